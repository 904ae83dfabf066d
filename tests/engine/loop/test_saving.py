"""Saves during training, and runs with every stateful option switched on."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from aim.engine.loop import course, testing, training
from aim.engine.loop.ema import Average
from aim.engine.loop.evaluation import Evaluation
from aim.engine.loop.saving import Saver, State
from aim.engine.machine.distributed import World
from aim.engine.scores.tasks import SINGLE_LABEL
from aim.engine.trained import checkpoint
from aim.ground.choices import leaves
from aim.ground.signals import Interrupted
from tests.conftest import ROOT
from tests.engine.loop.test_ema import by_hand
from tests.messages import refused
from tests.toy import TOY, Died, at_each_step, file_size_limit, journal, killed_at, run, weights

pytestmark = pytest.mark.usefixtures("toy_cache")

# Validations after steps 2, 3, 5 and 6, of some of the 16 videos.
EVERYTHING = [
    "train.ema=0.6", "train.clip_grad=0.5", "train.eval_every=0.5", "train.eval_videos=6", "train.best_by=loss",
    "train.patience=9",
]  # fmt: skip


def state_of(run_dir: Path) -> dict[str, Any]:
    """last.pt without the run's time."""
    saved = torch.load(run_dir / "last.pt", weights_only=True)
    return {key: value for key, value in leaves(saved) if key != "seconds"}


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Bit by bit."""
    assert a.keys() == b.keys()
    for key, value in a.items():
        assert torch.equal(value, b[key]) if isinstance(value, Tensor) else value == b[key], key


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, toy_cache: Path) -> tuple[Path, list[Tensor]]:
    """A run with everything, in one go; and its head's bias at the start and after each step."""
    folder = tmp_path_factory.mktemp("whole")
    history = list[Tensor]()
    original = training.train_step

    def recorded(model: Any, *args: Any, **kwargs: Any) -> Tensor:
        if not history:
            history.append(model.head.bias.detach().clone())
        sums = original(model, *args, **kwargs)
        history.append(model.head.bias.detach().clone())
        return sums

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train_step", recorded)
        run(folder, *EVERYTHING)
    return folder, history


def test_the_mean_is_what_is_validated_tested_and_kept(whole: tuple[Path, list[Tensor]], tmp_path: Path) -> None:
    folder, history = whole
    saved = torch.load(folder / "last.pt", weights_only=True)
    assert torch.equal(saved["model"]["head.bias"], history[-1])
    torch.testing.assert_close(saved["ema"]["head.bias"].double(), by_hand(history, 0.6), rtol=1e-5, atol=1e-7)
    best = round(saved["best_epoch"] * 3)
    kept = load_file(folder / "best.safetensors")["head.bias"].double()
    torch.testing.assert_close(kept, by_hand(history[: best + 1], 0.6), rtol=1e-5, atol=1e-7)
    assert len(history) == 7


def test_validations_come_within_epochs_and_of_the_same_few_videos(whole: tuple[Path, list[Tensor]]) -> None:
    lines = [line for line in journal(whole[0]) if "val_top1" in line]
    assert [line["step"] for line in lines] == [2, 3, 5, 6]
    assert [line["epoch"] for line in lines] == [0.667, 1.0, 1.667, 2.0]
    assert {round(line["val_top1"] * 6 / 100, 6).is_integer() for line in lines} == {True}
    found = json.loads((whole[0] / "results.json").read_text())
    assert found["num_videos"] == 16
    assert found["epochs_trained"] == 2.0
    best = min(lines, key=lambda line: line["val_loss"])
    saved = torch.load(whole[0] / "last.pt", weights_only=True)
    assert (saved["best"], saved["best_epoch"] * 3) == (best["val_loss"], best["step"])


@pytest.mark.parametrize("step", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_and_continued_everything_is_that_of_an_unbroken_run(
    whole: tuple[Path, list[Tensor]], tmp_path: Path, step: int
) -> None:
    """After the steps of a validation within an epoch, and between two."""
    killed_at(step, tmp_path, *EVERYTHING)
    run(tmp_path, *EVERYTHING)
    assert journal(tmp_path) == journal(whole[0])
    assert_same(state_of(tmp_path), state_of(whole[0]))
    assert_same(load_file(tmp_path / "best.safetensors"), load_file(whole[0] / "best.safetensors"))
    results = [json.loads((folder / "results.json").read_text()) for folder in (tmp_path, whole[0])]
    assert results[0]["top1"] == results[1]["top1"]


@pytest.mark.slow
def test_two_ranks_have_the_mean_and_the_choice_of_one(whole: tuple[Path, list[Tensor]], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aim.train", *TOY, f"run_dir={tmp_path}", "gpus=2", *EVERYTHING]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 0, done.stderr
    ours, alone = state_of(tmp_path), state_of(whole[0])
    for key, value in alone.items():
        if key.startswith(("ema.", "model.")):
            torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5)
    assert ours["best_epoch"] == alone["best_epoch"]
    for one, other in zip(journal(tmp_path), journal(whole[0]), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_gradients_are_clipped_to_a_norm_and_logged_as_they_were(whole: tuple[Path, list[Tensor]]) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 3.0), torch.full((2,), 4.0)
    norm = (6 * 9.0 + 2 * 16.0) ** 0.5
    torch.nn.utils.clip_grads_with_norm_(layer.parameters(), 0.5, torch.tensor(norm))
    assert torch.cat([layer.weight.grad.flatten(), layer.bias.grad]).norm().item() == pytest.approx(0.5, rel=1e-4)
    norms = [line["gradient_norm"] for line in journal(whole[0]) if "loss" in line]
    assert max(norms) > 0.5  # of which AdamW saw no more


def test_training_ends_when_validations_are_in_vain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And isn't resumed where the test was stopped."""

    def equal(*args: Any, **kwargs: Any) -> Evaluation:
        one, times = torch.tensor([1]), np.zeros((1, 1, 2), np.float32)
        views = torch.eye(8, dtype=torch.float16)[None, :1]
        return Evaluation(SINGLE_LABEL, one, one, torch.eye(8)[:1], views, times, 0)

    def dies(*args: Any, **kwargs: Any) -> Evaluation:
        raise Died

    settings = ["train.epochs=9", "train.patience=1", "views.temporal=2"]
    with monkeypatch.context() as patch:
        patch.setattr(course, "evaluate", equal)
        patch.setattr(testing, "evaluate", dies)
        with pytest.raises(Died):
            run(tmp_path, *settings)
    steps = at_each_step(monkeypatch)
    found = run(tmp_path, *settings)
    assert found["epochs_trained"] == 2.0
    assert steps == []


class Slow:
    """A disk that writes on demand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.may, self.begun = threading.Event(), threading.Event()
        original = checkpoint.save_last

        def save(path: Path, state: dict[str, Any]) -> None:
            self.begun.set()
            assert self.may.wait(60)
            original(path, state)

        patch.setattr(checkpoint, "save_last", save)


def saver(folder: Path, *, fused: bool = False) -> tuple[Saver, torch.nn.Parameter]:
    """One of a model of a single tensor, which has no trunk."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(5000))

        def saved_names(self) -> list[str]:
            return ["weight"]

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    world = World(0, 1, torch.device("cpu"))
    return Saver(folder, model, optimizer, Average(model, 0.5), {"trunk": "x"}, world, {}), model.weight  # type: ignore[arg-type]


def test_training_goes_on_while_a_save_is_written_and_leaves_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Slow(monkeypatch)
    (saving, weight) = saver(tmp_path)
    with saving:
        saving.save(State(step=1))  # returns before the disk has begun
        assert disk.begun.wait(60)
        assert not (tmp_path / "last.pt").exists()
        with torch.no_grad():
            weight.add_(1.0)
        saving.average.update(1)
        disk.may.set()
        saving.finish()
        saved = torch.load(tmp_path / "last.pt", weights_only=True)
        assert saved["step"] == 1
        assert not saved["model"]["weight"].any()
        assert not saved["ema"]["weight"].any()
        saving.save(State(step=2))
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 2  # the end waits for it
    assert torch.load(tmp_path / "previous.pt", weights_only=True)["step"] == 1


@pytest.mark.parametrize("fused", [True, False])
def test_a_run_goes_on_with_the_kernels_of_its_device(tmp_path: Path, fused: bool) -> None:
    """A GPU steps with one kernel for all tensors, also in a run begun on a CPU; and vice versa."""
    for kind in (not fused, fused):
        saving, weight = saver(tmp_path, fused=kind)
        with saving:
            saving.restore()
            weight.grad = torch.ones(5000)
            saving.optimizer.step()
            assert [group["fused"] for group in saving.optimizer.param_groups] == [kind]
            saving.save(State())
    assert saving.optimizer.state[weight]["step"] == 2


@pytest.mark.parametrize("found_by", ["save", "is_due", "finish"])
def test_what_a_write_fails_by_is_raised_by_whatever_comes_next(tmp_path: Path, found_by: str) -> None:
    (saving, _) = saver(tmp_path)
    with saving:
        saving.save(State(step=1))
        saving.finish()
        calls = {
            "save": lambda: saving.save(State(step=3)),
            "is_due": lambda: saving.is_due(0),
            "finish": saving.finish,
        }
        with file_size_limit(5_000):
            saving.save(State(step=2))
            assert saving.writing is not None
            saving.writing.exception(timeout=60)
        with refused("last.pt", "ulimit", "checkpoint"):
            calls[found_by]()
        assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 1
        saving.finish()  # it is said once


def test_a_stop_says_what_could_not_be_saved(tmp_path: Path) -> None:
    """While it validates, a run has begun to write, and doesn't check the outcome."""

    def stopped() -> None:
        (saving, _) = saver(tmp_path)
        with saving:
            saving.save(State(step=1))
            raise Interrupted("stopped by a signal during the val")

    with file_size_limit(5_000), refused("last.pt", "ulimit"):
        stopped()
    with pytest.raises(Interrupted):
        stopped()


@pytest.mark.slow
def test_a_full_disk_stops_training_and_the_same_command_goes_on(tmp_path: Path, unbroken: Path) -> None:
    killed_at(2, tmp_path)
    with file_size_limit(20_000), refused("last.pt", "ulimit", "command"):
        run(tmp_path)
    run(tmp_path)
    assert journal(tmp_path) == journal(unbroken)
    expected = weights(unbroken)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path).items())
