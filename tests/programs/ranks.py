"""Ranks that end in one way or another, by the name of a function."""

import os
import signal
import sys
import time
from datetime import timedelta

from aim.engine.machine import distributed, peers
from aim.engine.machine.distributed import World
from aim.ground.errors import UserError
from aim.ground.signals import Interrupted, follow_parent, interruptible, stop_signals
from aim.shell import command


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # at once: print may write the end of a line later, after another rank's


def bad_video(world: World) -> None:
    peers.FAILING_SECONDS = 1.0
    if world.rank == 1:
        raise UserError("x.mp4 can't be read")
    if world.rank == 2:
        time.sleep(600)  # as if it hung in the driver
    distributed.gather(1)


def bug(world: World) -> None:
    if world.rank == 1:
        raise ZeroDivisionError
    distributed.gather(1)


def killed(world: World) -> None:
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.gather(1)


def stopped_early(world: World) -> None:
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    distributed.gather(1)
    time.sleep(600)


def trains(world: World) -> None:
    with stop_signals() as stop:
        say(distributed.share(f"shared by {world.rank}"))  # from here on signals are answered
        while not any(distributed.gather(bool(stop))):
            time.sleep(0.05)
    try:
        raise Interrupted("saved")
    finally:
        if world.is_main:  # a tracker that takes longer than any other rank
            time.sleep(3)
            print("tracker closed", flush=True)


def no_memory(world: World) -> None:
    import torch

    from aim.engine.loop.faults import explained
    from aim.engine.run.settings import Run
    from aim.ground import config
    from tests.toy import TOY

    training = config.build(config.compose(TOY), Run).train
    with explained(lambda: "step 5 of 9", training, world):
        if world.rank == 1:
            torch.empty(2**60)
        distributed.gather(1)


def hangs(world: World) -> None:
    from aim.engine.loop.faults import explained

    soon()
    if world.rank == 0:
        with explained(lambda: "step 5 of 9", None, world):
            distributed.gather(1)
    time.sleep(600)


def soon() -> None:
    distributed.gather(1)  # all are there
    distributed.dist.set_timeout(timedelta(seconds=3))


def silent(world: World) -> None:
    from aim.engine.loop.faults import explained

    peers.SILENT_SECONDS, peers.FAILING_SECONDS = 2.0, 1.0
    distributed.gather(1)  # all are there
    say(f"{world.rank} {os.getpid()}")
    with stop_signals() as stop, explained(lambda: "step 5 of 9", None, world):
        while not any(distributed.gather(bool(stop))):
            time.sleep(0.05)
    raise Interrupted("saved")


def apart(world: World) -> None:
    soon()
    if world.rank == 1:
        time.sleep(6)
    distributed.meet()
    say(f"met {distributed.gather(world.rank)}")


def buckets(world: World) -> None:
    import torch

    from aim.data.loading.loader import Batch
    from aim.engine.loop.training import train_step
    from aim.engine.run.settings import Run
    from aim.ground import config
    from tests.toy import TOY

    # In two parts, all trained but for a tensor without gradient; other videos on each rank, one missing.
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
    assert sums[1] == 10
    assert sums[4] == 1
    first = run.model(8).parameters()
    assert sum(not torch.equal(before, now) for before, now in zip(first, found[0][1:], strict=False)) > 10
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    say("alike")


if __name__ == "__main__":
    follow_parent()
    with command.reported(debug=False), interruptible(), distributed.start("cpu", 0) as world:
        globals()[sys.argv[1]](world)
