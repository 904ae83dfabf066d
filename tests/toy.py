"""A run small enough for tests: two dozen moving shapes, a random trunk of two blocks, a few steps."""

import json
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from aim.benchmark import verb as benchmark
from aim.engine.loop import training
from aim.engine.run import plan
from aim.engine.run.settings import Run
from aim.engine.run.step import peak_of_step
from aim.eval import verb as eval
from aim.ground import config
from aim.models.classifier import VideoClassifier
from aim.models.flops import gmacs_per_view
from aim.train import verb as train

TOY = [
    "+experiment=demo",
    "reader=pyav",
    "precision=fp32",
    "data.lists.num_train=24",
    "data.lists.num_val=16",
    "data.lists.size=32",
    "data.lists.num_frames=9",
    "data.workers=0",
    "clip.num_frames=4",
    "clip.stride_frames=1",
    "clip.size=32",
    "backbone.weights=random",
    "backbone.name=vit_tiny_patch16_224",
    "backbone.options={img_size: 32, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2}",
    "train.epochs=2",
    "train.batch_size=8",
    "train.eval_every=1",
    "train.log_every=1",
    "train.save_minutes=0",
]


# The same on a user's videos; data.root=DIR is to be added.
OWN = [*(setting for setting in TOY if not setting.startswith("data.lists.")), "data=folder", "data.directional=true"]


PEAKS: dict[str, int] = {}


def peak_counted_once(run: Run, num_classes: int, clips: int) -> int:
    """`peak_of_step`, which takes a tenth of a second, once for each model and kind of step."""
    key = str((run.backbone, run.adapter, run.clip, run.train, run.precision, run.dropout, num_classes, clips))
    if key not in PEAKS:
        PEAKS[key] = peak_of_step(run, num_classes, clips)
    return PEAKS[key]


GMACS: dict[str, float] = {}


def gmacs_counted_once(model: VideoClassifier) -> float:
    """`gmacs_per_view`, which takes a fifteenth of a second, once for each model, identified by its text."""
    key = f"{model} {model.num_frames} {model.size} {[tuple(each.shape) for each in model.parameters()]}"
    if key not in GMACS:
        GMACS[key] = gmacs_per_view(model)
    return GMACS[key]


def run(run_dir: Path, *overrides: str, toy: Sequence[str] = TOY) -> dict[str, Any]:
    """Train the toy in this process; returns its results.json."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "peak_of_step", peak_counted_once)
        patch.setattr(train, "gmacs_per_view", gmacs_counted_once)
        train.main(config.compose([*toy, f"run_dir={run_dir}", *overrides]))
    found: dict[str, Any] = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    return found


def evaluate(trained: Path, run_dir: Path, *overrides: str, toy: Sequence[str] = TOY) -> dict[str, Any]:
    """Test the toy's checkpoint in this process; returns its results.json."""
    eval.main(
        config.compose([*toy, f"checkpoint={trained / 'best.safetensors'}", f"run_dir={run_dir}", *overrides], "eval")
    )
    found: dict[str, Any] = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    return found


def measure(run_dir: Path, *overrides: str) -> dict[str, Any]:
    """Benchmark the toy in this process; returns its benchmark.json, or plan.json."""
    toy = [item for item in TOY if "data=folder" not in overrides or not item.startswith("data.lists")]
    benchmark.main(config.compose([*toy, f"run_dir={run_dir}", *overrides], "benchmark"))
    name = "plan.json" if "what=plan" in overrides else "benchmark.json"
    found: dict[str, Any] = json.loads((run_dir / name).read_text(encoding="utf-8"))
    return found


def videos(toy_cache: Path) -> list[Path]:
    """The toy's validation videos."""
    return sorted(path for path in toy_cache.rglob("*.mp4") if "val" in path.parts)


def journal(run_dir: Path) -> list[dict[str, float]]:
    """The lines of log.jsonl without times."""
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("clips_per_second", "waiting", "peak_memory_gib")} for line in lines
    ]


class Died(KeyboardInterrupt):
    """Stands for a SIGKILL."""


def at_each_step(
    patch: pytest.MonkeyPatch,
    before: Callable[[int], object] = lambda step: None,
    after: Callable[[int, torch.Tensor], object] = lambda step, sums: None,
) -> list[int]:
    """Do something before and after each training step, counted from 1. The list gets each number that began."""
    original, begun = training.train_step, list[int]()

    def step(*args: Any, **kwargs: Any) -> torch.Tensor:
        number = len(begun) + 1
        begun.append(number)
        before(number)
        sums = original(*args, **kwargs)
        after(number, sums)
        return sums

    patch.setattr(training, "train_step", step)
    return begun


def dies_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """After so many steps, training dies before it does anything more."""

    def die(number: int) -> None:
        if number > step:
            raise Died

    at_each_step(patch, before=die)


def killed_at(step: int, run_dir: Path, *overrides: str, toy: Sequence[str] = TOY) -> None:
    """Train so many steps, and die there."""
    with pytest.MonkeyPatch.context() as patch:
        dies_at(step, patch)
        with pytest.raises(Died):
            run(run_dir, *overrides, toy=toy)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """The trained tensors of last.pt."""
    tensors: dict[str, torch.Tensor] = torch.load(run_dir / "last.pt", weights_only=True)["model"]
    return tensors


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes in this block: a full disk without a mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def exits(code: int) -> Iterator[None]:
    """The block leaves the process with this exit code."""
    with pytest.raises(SystemExit) as caught:
        yield
    assert caught.value.code == code
