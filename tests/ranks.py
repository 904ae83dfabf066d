"""Real ranks of a program that ends in one way or another."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT

PROGRAM = """
import os, signal, sys, time
from datetime import timedelta
from aim import command
from aim.engine import distributed, peers
from aim.ground.errors import UserError
from aim.ground.signals import Interrupted, follow_parent, interruptible, stop_signals

def say(line):
    os.write(1, f"{line}\\n".encode())  # at once: print may write the end of a line later, after another rank's

def bad_video(world):
    peers.FAILING_SECONDS = 1.0
    if world.rank == 1:
        raise UserError("x.mp4 can't be read")
    time.sleep(600) if world.rank == 2 else distributed.gather(1)  # as if it hung in the driver

def bug(world):
    if world.rank == 1:
        raise ZeroDivisionError
    distributed.gather(1)

def killed(world):
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.gather(1)

def stopped_early(world):
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    distributed.gather(1)
    time.sleep(600)

def trains(world):
    with stop_signals() as stop:
        say(distributed.share(f"shared by {world.rank}"))  # from here on a signal is to be answered so
        while not any(distributed.gather(bool(stop))):
            time.sleep(0.05)
    try:
        raise Interrupted("saved")
    finally:
        if world.is_main:  # a tracker that takes longer than any other rank
            time.sleep(3)
            print("tracker closed", flush=True)

def no_memory(world):
    import torch
    from aim import config
    from aim.engine.faults import explained
    from aim.engine.settings import Run
    from tests.toy import TOY

    training = config.build(config.compose(TOY), Run).train
    with explained(lambda: "step 5 of 9", training, world):
        if world.rank == 1:
            torch.empty(2**60)
        distributed.gather(1)

def hangs(world):
    from aim.engine.faults import explained

    soon()
    if world.rank == 0:
        with explained(lambda: "step 5 of 9", None, world):
            distributed.gather(1)
    time.sleep(600)

def soon():
    distributed.gather(1)  # all are there
    distributed.dist.set_timeout(timedelta(seconds=3))

def silent(world):
    from aim.engine.faults import explained

    peers.SILENT_SECONDS, peers.FAILING_SECONDS = 2.0, 1.0
    distributed.gather(1)  # all are there
    say(f"{world.rank} {os.getpid()}")
    with stop_signals() as stop, explained(lambda: "step 5 of 9", None, world):
        while not any(distributed.gather(bool(stop))):
            time.sleep(0.05)
    raise Interrupted("saved")

def apart(world):
    soon()
    if world.rank == 1:
        time.sleep(6)
    distributed.meet()
    say(f"met {distributed.gather(world.rank)}")

def buckets(world):
    import torch
    from aim import config
    from aim.data.loader import Batch
    from aim.engine.settings import Run
    from aim.engine.training import train_step
    from tests.toy import TOY

    # In two parts, all of it trained but for what gets no gradient, other videos on each rank, one of them missing.
    run = config.build(config.compose([*TOY, "adapter=full", "train.accumulate=2"]), Run)
    generator = torch.Generator().manual_seed(world.rank)
    videos = torch.randint(256, (2, 3, 1, 4, 3, 32, 32), dtype=torch.uint8, generator=generator)
    weight = torch.tensor([1.0, 1.0, float(world.rank)])
    parts = [Batch(video, torch.arange(3), torch.arange(3), weight) for video in videos]
    found = []
    for distributed.MANY in (10**9, 1):
        model = run.model(8)
        model.register_parameter("unused", torch.nn.Parameter(torch.ones(3)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        summing = distributed.summing(model)
        assert (summing is None) == (distributed.MANY > 1)
        for _ in range(2):
            sums = train_step(
                model, optimizer, parts, run.train, "fp32", world.device,
                task=run.task, stop=world.rank == 1, summing=summing,
            )  # fmt: skip
        found.append([sums, *model.parameters()])
    assert sums[1] == 10 and sums[4] == 1
    first = run.model(8).parameters()
    assert sum(not torch.equal(before, now) for before, now in zip(first, found[0][1:])) > 10
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    say("alike")

follow_parent()
with command.reported(debug=False), interruptible(), distributed.start("cpu", 0) as world:
    globals()[sys.argv[1]](world)
"""


def start(tmp_path: Path, case: str, ranks: int = 2, restarts: int = 0) -> "subprocess.Popen[str]":
    """Launch ranks of the program."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    line = [sys.executable, "-m", "program", case]
    code = f"import sys; from aim.engine.launcher import launch; sys.exit(launch({line}, {ranks}, {restarts}))"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # as a shell starts it: Ctrl-Z suspends only jobs of a shell
    )
