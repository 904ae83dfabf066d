"""Runs continued on another number of ranks: the same global batches, and losses equal to rounding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from aim.engine.run.settings import Run
from aim.engine.run.splitting import followed
from aim.engine.trained import checkpoint
from aim.ground import config
from tests.conftest import ROOT
from tests.messages import refused
from tests.toy import TOY, journal, killed_at, weights

pytestmark = pytest.mark.usefixtures("toy_cache")


def toy(*overrides: str) -> Run:
    return config.build(config.compose([*TOY, *overrides]), Run)


@pytest.mark.parametrize(
    ("batch", "each", "ranks", "clips", "parts", "at_once"),
    [
        (64, 1, 8, 8, 1, 8),  # nothing has changed
        (64, 1, 2, 8, 4, 8),  # eight ranks became two
        (64, 1, 64, 8, 1, 1),
        (64, 1, 3, 8, 3, 8),  # 72 places
        (64, 1, 5, 8, 2, 7),  # 70
        (8, 1, 3, 8, 1, 3),
        (64, 4, 3, 8, 3, 8),  # 16 videos in 18 places
    ],
)
def test_parts_follow_the_ranks_and_no_rank_takes_more_at_once(
    batch: int, each: int, ranks: int, clips: int, parts: int, at_once: int, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = toy(f"train.batch_size={batch}", f"train.clips_per_video={each}")
    found = followed(asked, ranks, clips)
    assert (found.train.accumulate, found.train.clips_at_once(ranks)) == (parts, at_once)
    empty = ranks * parts * at_once - batch
    said = capsys.readouterr().err
    assert bool(said) == (parts > 1 or empty > 0)
    assert (f"{empty} places of a step stay empty" in said) == (empty > 0)
    assert followed(found, 1, batch).train.accumulate == 1


def test_a_run_that_begins_must_divide_its_batch_and_so_must_one_that_mixes() -> None:
    with refused("train.batch_size=8", "3", "train.batch_size=6", "gpus=2"):
        followed(toy(), 3, None)
    with refused("train.batch_size=8", "3", "train.batch_size=6", "gpus=2"):
        followed(toy("train.mixup=0.8"), 3, 4)
    assert followed(toy("train.mixup=0.8"), 2, 2).train.accumulate == 2


def test_what_a_rank_works_through_at_once_is_kept_with_the_run(
    tmp_path: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_at(1, tmp_path, "train.accumulate=4")
    path = tmp_path / "last.pt"
    state = checkpoint.load_last(path)
    assert state["clips"] == 2
    torch.save(state | {"clips": 3}, path)  # as of another number of ranks
    capsys.readouterr()
    killed_at(1, tmp_path, "train.accumulate=4")
    assert (
        "train.accumulate=3 on 1 rank, as none has worked through more than 3 clips at once before; 1 places"
        in capsys.readouterr().err
    )
    assert checkpoint.load_last(path)["clips"] == 3
    killed_at(1, tmp_path, "train.accumulate=1")  # by hand
    assert checkpoint.load_last(path)["clips"] == 8
    for line, expected in zip(journal(tmp_path)[:3], journal(unbroken)[:3], strict=True):
        assert line == pytest.approx(expected, rel=1e-4)


def test_another_split_holds_though_its_first_try_was_killed_before_it_saved(tmp_path: Path) -> None:
    """Like the next one, which knows that only from config.yaml."""
    killed_at(1, tmp_path)
    for step in (0, 1):
        killed_at(step, tmp_path, "train.accumulate=4")
    assert checkpoint.load_last(tmp_path / "last.pt")["clips"] == 2
    killed_at(0, tmp_path)
    killed_at(1, tmp_path, "train.accumulate=4")
    assert checkpoint.load_last(tmp_path / "last.pt")["clips"] == 2


def on_ranks(ranks: int, run_dir: Path, *overrides: str) -> str:
    """Train the toy with a number of processes; returns their stderr."""
    command = [sys.executable, "-m", "aim.train", *TOY, f"run_dir={run_dir}", f"gpus={ranks}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_losses_are_those_of_one_rank(tmp_path: Path, unbroken: Path, ranks: int) -> None:
    """Eight ranks take one clip each."""
    on_ranks(ranks, tmp_path)
    for line, expected in zip(journal(tmp_path), journal(unbroken), strict=True):
        assert line == pytest.approx(expected, rel=1e-4)
    before = weights(unbroken)
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_a_run_goes_on_at_another_number_of_ranks(tmp_path: Path, unbroken: Path, ranks: int) -> None:
    """Three ranks can't divide eight clips."""
    killed_at(4, tmp_path)
    assert ("1 places of a step stay empty" in on_ranks(ranks, tmp_path)) == (ranks == 3)
    for line, expected in zip(journal(tmp_path), journal(unbroken), strict=True):
        assert line == pytest.approx(expected, rel=1e-4)
