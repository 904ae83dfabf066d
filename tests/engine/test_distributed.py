"""Real ranks of a program that ends in one way or another."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aim.engine import distributed
from aim.errors import UserError
from aim.signals import INTERRUPTED
from tests.conftest import ROOT

PROGRAM = """
import os, signal, sys, time
from aim import command
from aim.engine import distributed, peers
from aim.errors import UserError
from aim.signals import Interrupted, follow_parent, interruptible, stop_signals

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
                model, optimizer, parts, run.train, "fp32", world.device, stop=world.rank == 1, summing=summing
            )
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


def start(tmp_path: Path, case: str, ranks: int = 2) -> "subprocess.Popen[str]":
    """Launch ranks of the program."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    line = [sys.executable, "-m", "program", case]
    code = f"import sys; from aim.engine.distributed import launch; sys.exit(launch({line}, {ranks}))"
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("case", "code", "expected"),
    [
        ("bad_video", 2, r"aim: error: rank 1: x\.mp4 can't be read\n"),
        ("bug", 1, r"\[rank1\]: Traceback[^\n]*\n(\[rank1\]:   .*\n)+\[rank1\]: ZeroDivisionError\n"),
        (
            "killed",
            1,
            r"aim: error: rank 0 lost contact with another rank, .*\n"
            r"aim: error: rank 1 was killed by SIGKILL, as the kernel does when memory runs out; .*\n",
        ),
        ("stopped_early", INTERRUPTED, r"aim: stopped by a signal outside of training, .*\n"),
    ],
)
def test_one_rank_says_what_happened_and_all_leave(tmp_path: Path, case: str, code: int, expected: str) -> None:
    process = start(tmp_path, case, ranks=3 if case == "bad_video" else 2)
    _, stderr = process.communicate(timeout=120)
    assert re.fullmatch(expected, stderr), stderr
    assert process.returncode == code


def test_gradients_in_buckets_are_those_of_one_message(tmp_path: Path) -> None:
    process = start(tmp_path, "buckets")
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (0, "alike\n" * 2), stderr


def test_few_gradients_go_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    with torch.device("meta"):
        model = torch.nn.Linear(1000, distributed.MANY // 1001)
    assert distributed.summing(model) is None


def test_a_signal_at_the_launcher_alone_reaches_the_ranks_which_may_take_their_time(tmp_path: Path) -> None:
    process = start(tmp_path, "trains")
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["shared by 0\n"] * 2
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert stdout == "tracker closed\n"
    assert stderr == "aim: saved; the same command continues\n"
    assert process.returncode == INTERRUPTED


@pytest.mark.parametrize(
    ("codes", "asked", "expected", "said"),
    [
        ({}, False, 0, ""),
        ({}, True, 0, ""),  # it was faster than the signal
        ({0: 75, 1: 75}, True, 75, ""),
        ({1: 75, 0: -15}, False, 75, ""),
        ({0: -2, 1: -2}, True, 75, "nothing was lost"),
        ({0: 75, 1: 2}, True, 2, ""),
        ({0: 75, 1: 1}, True, 1, ""),
        ({1: 3, 0: -15}, False, 3, ""),
        ({1: 2, 0: -9}, False, 2, ""),
        ({1: -15, 0: 75}, False, 1, "rank 1 was killed by SIGTERM"),
        ({0: 1, 1: -11}, False, 1, "rank 1 was killed by SIGSEGV"),
        ({1: -15, 0: -9}, True, 75, "nothing was lost"),
        ({0: 75, 1: -9}, True, 1, "rank 1 was killed by SIGKILL, as the kernel does"),
    ],
)
def test_the_exit_code_of_all_ranks(
    capsys: pytest.CaptureFixture[str], codes: dict[int, int], asked: bool, expected: int, said: str
) -> None:
    assert distributed.verdict(codes, asked=asked) == expected
    err = capsys.readouterr().err
    assert said in err
    assert bool(said) == bool(err)


def test_alone_everything_is_shared_already() -> None:
    assert distributed.share({"a": 1}) == {"a": 1}
    assert distributed.gather(3) == [3]


def test_ranks_with_other_data_or_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"data_hash": "a", "checkpoint": "b"}
    monkeypatch.setattr(distributed, "gather", lambda value: [value, value])
    distributed.agree(mine)
    monkeypatch.setattr(distributed, "gather", lambda value: [value, value, {**value, "checkpoint": "c"}])
    with pytest.raises(UserError, match="rank 2 has another checkpoint than rank 0"):
        distributed.agree(mine)
