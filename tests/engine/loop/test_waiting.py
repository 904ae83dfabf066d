"""No step waits for the device: on one with unreadable tensors, and in the order of reads.

Tensors on torch's meta device have no content. All that would wait for a GPU (`.item()`, `.cpu()`, an `if` on a tensor,
a mask as an index) raises there, in the forward pass, the backward pass and the optimizer alike.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aim.data.loading.loader import Batch
from aim.engine.loop import course, evaluation, training
from aim.engine.loop.optim import adamw
from aim.engine.run.settings import Run
from aim.engine.scores.tasks import SINGLE_LABEL
from aim.ground import choices, config
from aim.models.classifier import VideoClassifier
from tests.toy import TOY, run

META = torch.device("meta")
ADAPTERS = sorted(path.stem for path in (choices.CONFIGS / "adapter").glob("*.yaml"))
EVERYTHING = [
    "train.mixup=0.8", "train.cutmix=1.0", "train.label_smoothing=0.1", "train.clips_per_video=2", "dropout=0.5",
    "train.clip_grad=1.0",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device has none."""
    for module in (training, evaluation):
        monkeypatch.setattr(module, "autocast", lambda *_: nullcontext())


def settings(*overrides: str) -> Run:
    made: Run = config.build(config.compose([*TOY, *EVERYTHING, *overrides]), Run)
    return made


def batch() -> Batch:
    label = torch.zeros(4, dtype=torch.int64, device=META)
    video = torch.zeros(4, 2, 4, 3, 32, 32, dtype=torch.uint8, device=META)
    return Batch(video, label, label, torch.ones(4, device=META))


def step(model: VideoClassifier, run: Run) -> Tensor:
    optimizer = adamw(model, run.optim)
    return training.train_step(model, optimizer, [batch(), batch()], run.train, "fp32", META, task=run.task, stop=False)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_step_reads_nothing_from_the_device(adapter: str) -> None:
    run = settings(f"adapter={adapter}")
    sums = step(run.model(8).to(META).train(), run)
    assert sums.device == META


@pytest.mark.parametrize("read", [Tensor.item, Tensor.cpu, bool, lambda x: x[x > 0]])
def test_a_step_that_reads_something_is_found_out(read: Any) -> None:
    run = settings()
    model = run.model(8).to(META).train()
    model.head.register_forward_hook(lambda *args: read(args[2].sum()) and None)
    with pytest.raises(RuntimeError):
        step(model, run)


def test_a_test_reads_nothing_but_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "to_host", lambda *tensors: lambda: list(tensors))
    model = settings().model(8).to(META).eval()
    for read in evaluation.score(model, iter([batch(), batch()]), task=SINGLE_LABEL, device=META, precision="fp32"):
        assert [tuple(tensor.shape) for tensor in read()] == [(4,), (4,), (4,), (4, 8), (4, 2, 8)]


@pytest.mark.usefixtures("toy_cache")
def test_results_are_read_when_the_next_step_has_been_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies to the host begin before it: one that is begun after a step waits for that step."""
    events: list[str] = []
    train_step = training.train_step

    def recorded(name: str) -> Any:
        counter = 0

        def to_host(*tensors: Tensor) -> Any:
            nonlocal counter
            counter += 1
            events.append(f"{name} sends {counter}")
            return lambda i=counter: events.append(f"{name} reads {i}") or list(tensors)

        return to_host

    def begins(*args: Any, **kwargs: Any) -> Tensor:
        events.append("step begins")
        return train_step(*args, **kwargs)

    monkeypatch.setattr(training, "train_step", begins)
    monkeypatch.setattr(course, "to_host", recorded("train"))
    monkeypatch.setattr(evaluation, "to_host", recorded("test"))
    run(tmp_path, "train.epochs=1", "train.log_every=100", "train.save_minutes=100", "train.eval_every=0")
    assert events == [
        "step begins", "train sends 1",
        "step begins", "train reads 1", "train sends 2",
        "step begins", "train reads 2", "train sends 3",
        "train reads 3",
        "test sends 1", "test sends 2", "test reads 1", "test reads 2",
    ]  # fmt: skip
