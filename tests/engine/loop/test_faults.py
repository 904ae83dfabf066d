"""Faults of a run that a test can produce: memory, disks, shared memory, ranks."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aim.engine.loop import faults, testing
from aim.engine.loop.faults import explained, no_gpu_memory
from aim.engine.machine.distributed import World
from aim.engine.run.recipe import Training
from aim.engine.run.settings import Run
from aim.ground import config
from tests.conftest import ROOT
from tests.messages import named, refused, unnamed
from tests.ranks import start
from tests.toy import TOY, at_each_step, evaluate, run

GIB = 2**30
CPU = World(0, 1, torch.device("cpu"))


def settings(*overrides: str) -> Training:
    made: Run = config.build(config.compose([*TOY, *overrides]), Run)
    return made.train


@pytest.mark.parametrize(
    ("overrides", "ranks", "expected"),
    [
        ([], 1, ["train.accumulate=2", "4", "20.5", "train.memory=lean"]),
        (["train.accumulate=2"], 1, ["train.accumulate=4", "2", "20.5"]),
        (["train.batch_size=24"], 2, ["train.accumulate=2", "6"]),
        (["train.batch_size=18"], 2, ["train.accumulate=3", "3", "14.0"]),
        (["train.batch_size=2"], 2, ["GPUs", "train.batch_size"]),
        (["train.batch_size=4", "train.mixup=0.8"], 2, ["GPUs", "train.batch_size"]),
        (["train.clips_per_video=4"], 1, ["train.accumulate=2"]),
        (["train.clips_per_video=8"], 1, ["GPUs", "train.batch_size"]),
    ],
)
def test_gpu_memory_that_runs_out_is_told_with_what_was_measured_and_what_fits(
    overrides: list[str], ranks: int, expected: list[str]
) -> None:
    world = World(0, ranks, torch.device("cuda"))
    text = no_gpu_memory("step 7 of 11", settings(*overrides), world, 1 * GIB, 40 * GIB, 48 * GIB, 0)
    named(text, "GPU", "7", "11", "40.0", "1.0", "48.0", *expected)


def test_memory_of_other_programs_is_named() -> None:
    text = no_gpu_memory("step 1 of 9", settings(), CPU, GIB, 30 * GIB, 48 * GIB, 16 * GIB)
    named(text, "48.0", "16.0")


def test_a_gpu_that_is_full_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_cache: Path) -> None:
    """torch's GPU error in the second step, raised on a CPU."""

    def full(step: int) -> None:
        if step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")

    at_each_step(monkeypatch, before=full)
    for name in ("memory_reserved", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: 2 * GIB)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 2 * GIB))
    with refused("2", "6", "8", "train.accumulate=2", "train.memory=lean") as caught:
        run(tmp_path)
    assert "\n" not in str(caught.value)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["8 x 1", "train.accumulate=2"]),
        (["views.temporal=4", "views.spatial=3"], ["1 x 12", "views.temporal", "views.spatial"]),
    ],
)
def test_a_gpu_that_is_full_in_the_test_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    toy_cache: Path,
    unbroken: Path,
    overrides: list[str],
    expected: list[str],
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")

    shutil.copytree(unbroken, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    monkeypatch.setattr(testing, "evaluate", full)
    if not overrides:
        with refused(*expected):
            run(tmp_path / "run")
    with refused(*expected):
        evaluate(unbroken, tmp_path / "test", *overrides)


def test_memory_of_the_machine_that_runs_out_is_one_line() -> None:
    with (
        refused("memory", "1", "train.accumulate=2", "train.memory=lean"),
        explained(lambda: "step 1", settings(), CPU),
    ):
        torch.empty(2**60)


def test_other_errors_stay_what_they_are_and_know_their_step() -> None:
    with pytest.raises(RuntimeError, match="a bug") as caught, explained(lambda: "step 7", settings(), CPU):
        raise RuntimeError("a bug")
    assert caught.value.__notes__ == ["at step 7"]
    assert faults.GIB == GIB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "code", "expected"),
    [
        ("no_memory", 2, ["1", "memory", "5", "9"]),
        ("hangs", 1, ["0", "5", "9"]),
    ],
)
def test_a_rank_in_trouble_is_one_line_and_the_others_leave(
    tmp_path: Path, case: str, code: int, expected: list[str]
) -> None:
    """The second waits 600 seconds for nothing, and a collective 3 for it."""
    process = start(case)
    _, stderr = process.communicate(timeout=120)
    assert stderr.count("\n") == 1, stderr
    named(stderr, "error:", *expected)
    assert process.returncode == code


@pytest.mark.slow
def test_where_ranks_may_be_apart_they_wait_for_longer_than_for_a_collective(tmp_path: Path) -> None:
    process = start("apart")
    stdout, stderr = process.communicate(timeout=120)
    assert stdout == "met [0, 1]\n" * 2, stderr


SMALL_DISK = """
mount -t tmpfs -o size={size} none {folder} || exit 99
exec {command}
"""


def in_small(folder: Path, size: str, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run the command with a private disk of that size as the folder; skip where that is forbidden."""
    quoted = " ".join(f"'{word}'" for word in command)
    script = SMALL_DISK.format(size=size, folder=folder, command=quoted)
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"no small disks here: {done.stderr}")
    return done


@pytest.mark.slow
@pytest.mark.parametrize(
    ("disk", "expected"),
    [
        ("600k", ["last.pt", "full"]),  # a toy's last.pt has half a megabyte
        ("600k,ro", ["read-only", "run_dir=DIR"]),
    ],
)
def test_a_disk_that_is_full_or_read_only_is_one_line(
    tmp_path: Path, toy_cache: Path, disk: str, expected: list[str]
) -> None:
    done = in_small(tmp_path, disk, sys.executable, "-m", "aim.train", *TOY, f"run_dir={tmp_path}/run")
    assert done.returncode == 2, done.stderr
    named(done.stderr, "error:", *expected)
    unnamed(done.stderr, "Traceback")


@pytest.mark.slow
def test_shared_memory_that_is_too_small_is_one_line(tmp_path: Path, toy_cache: Path) -> None:
    """Three batches of 8 clips of 4 frames of 224 pixels are 14 MiB."""
    own = [*TOY, "clip.size=224", "backbone.options.img_size=224", "data.workers=1"]
    command = [sys.executable, "-m", "aim.train", *own, f"run_dir={tmp_path}/run"]
    done = in_small(Path("/dev/shm"), "4m", *command)
    assert done.returncode == 2, done.stderr
    named(done.stderr, "error:", "--shm-size=8g")
    unnamed(done.stderr, "Traceback")
