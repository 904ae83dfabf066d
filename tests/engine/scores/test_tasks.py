"""The tasks: their losses, probabilities and answers; a task of several labels trains and is tested."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aim.data.loading.loader import Batch
from aim.engine.loop.evaluation import evaluate
from aim.engine.loop.mixing import mix
from aim.engine.loop.training import train_step
from aim.engine.run.settings import Run
from aim.engine.scores.calibration import Calibration, fit_temperature
from aim.engine.scores.guessing import baseline
from aim.engine.scores.metrics import of_validation
from aim.engine.scores.tasks import SINGLE_LABEL, MultiLabel, SingleLabel, Task, named
from aim.engine.trained.exported import About, parsed
from aim.engine.trained.recogniser import Recogniser, Trained
from aim.ground import config
from aim.ground.kinds import written
from aim.models.classifier import VideoClassifier
from tests.messages import refused
from tests.toy import TOY

CPU = torch.device("cpu")
CLASSES = 5
SEVERAL: Task = MultiLabel(1.0)


@dataclass(frozen=True)
class Own(SingleLabel):
    """A task of a user's package."""


@pytest.fixture
def settings() -> Run:
    run = config.build(config.compose([*TOY, "optim.lr=1e-2", "dropout=0"]), Run)
    return replace(run, device="cpu")


@pytest.fixture
def model(settings: Run) -> VideoClassifier:
    return settings.model(CLASSES)


def videos(n: int, model: VideoClassifier) -> Batch:
    generator = torch.Generator().manual_seed(0)
    shape = (n, 1, model.num_frames, 3, model.size, model.size)
    label = (torch.rand(n, CLASSES, generator=generator) > 0.5).to(torch.int64)
    video = (32 * torch.rand(shape, generator=generator)).to(torch.uint8)
    video += (56 * torch.arange(n, dtype=torch.uint8)).view(n, 1, 1, 1, 1, 1)  # each of its own brightness
    return Batch(video, label, torch.arange(n), torch.ones(n))


class Videos:
    """A loader of batches of two."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.batch_size, self.batches_per_epoch = batch, 2, len(batch.video) // 2
        self.dataset = Some(len(batch.video))
        self.seconds = [[(0.0, 1.0)]] * len(batch.video)

    def epoch(self, _: int) -> Iterator[Batch]:
        parts = zip(*(column.split(2) for column in vars(self.batch).values()), strict=True)
        return (Batch(*part) for part in parts)


class Some:
    """Videos of one view."""

    def __init__(self, n: int) -> None:
        self.n, self.shape = n, (1,)

    def __len__(self) -> int:
        return self.n


def outcome(model: VideoClassifier, batch: Batch) -> Any:
    loader: Any = Videos(batch)
    return evaluate(model, loader, task=SEVERAL, device=CPU, precision="fp32")


@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_a_task_of_several_labels_trains_and_is_tested(settings: Run, model: VideoClassifier, mixup: float) -> None:
    batch, training = videos(4, model), replace(settings.train, mixup=mixup)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(0)
    model.train()
    losses = []
    for _ in range(60):
        sums = train_step(model, optimizer, [batch], training, "fp32", CPU, task=SEVERAL, stop=False)
        losses.append(float(sums[0] / sums[1]))
        assert 0 <= sums[2] <= sums[1]
    assert losses[0] == pytest.approx(np.log(2), abs=0.2)
    assert losses[-1] < losses[0] - 0.1
    if not mixup:
        assert losses[-1] < 0.45  # a blind model has at least the labels' entropy
        found = outcome(model, batch)
        wrong = ((found.probability > 0.5) != batch.label.bool()).any(1)
        assert found.scores["map"] > baseline(SEVERAL, found.label, found.probability.shape[1])["map"]
        assert bool(wrong.any()) <= (found.scores["micro_f1"] < 100)
        assert torch.equal(found.label, batch.label)
        assert found.probability.sum(1).max() > 1.5  # which no softmax has


def test_its_probabilities_are_calibrated_and_predicted(model: VideoClassifier) -> None:
    batch = videos(4, model)
    with torch.no_grad():
        model.head.weight.normal_(std=1.0)
    found = outcome(model.eval(), batch)
    logits = found.probability.logit()
    cooler = SEVERAL.tempered(found.log_probability.float()[:, 0], 2.0)
    torch.testing.assert_close(cooler, (logits / 2).sigmoid(), atol=2e-3, rtol=0)
    sure = F.logsigmoid(4 * torch.tensor([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]))[:, None]
    label = torch.tensor([[1, 0], [0, 0], [1, 1]])  # wrong at two of six
    assert fit_temperature(SEVERAL, sure, label) > 1.5
    run = config.build(config.compose(TOY), Run)
    recogniser = Recogniser(model, list("abcde"), run.clip, run.views, task=SEVERAL)
    torch.testing.assert_close(recogniser.predict(batch.video[:, 0]), found.probability, atol=1e-5, rtol=0)


def test_a_run_is_chosen_by_a_metric_of_its_own_task(settings: Run) -> None:
    assert of_validation(SEVERAL.metrics, replace(settings, task=SEVERAL).train.best_by).name == "map"
    with refused("train.best_by='top5'", "map", "macro_f1"):
        replace(settings, task=SEVERAL, train=replace(settings.train, best_by="top5"))
    replace(settings, task=SEVERAL, train=replace(settings.train, best_by="macro_f1"))


def test_settings_of_before_there_were_tasks_are_of_a_single_label() -> None:
    cfg = config.resolve(config.compose(TOY))
    assert cfg.pop("task") == {"kind": "single_label"}
    assert config.build(config.completed(cfg, Run), Run).task == SINGLE_LABEL
    parts = {key: value for key, value in cfg.items() if key in Trained.__dataclass_fields__}
    assert config.build(parts, Trained, received=True).task == SINGLE_LABEL
    named = {**parts, "task": {"kind": "single_label"}}
    assert config.build(named, Trained, received=True).task == SingleLabel()


def test_a_mixed_target_is_of_both_clips() -> None:
    torch.manual_seed(0)
    video, label = torch.rand(2, 3, 2, 4, 4), torch.tensor([0, 2])
    _, target, _ = mix(SINGLE_LABEL, video, label, torch.ones(2), 3, 1.0, 0.0)
    assert target.sum(1).tolist() == pytest.approx([1.0, 1.0])
    assert (target[:, 1] == 0).all()
    assert (target[:, [0, 2]] > 0).all()
    _, alone, _ = mix(SINGLE_LABEL, video[:1], label[:1], torch.ones(1), 3, 1.0, 0.0)
    assert alone.tolist() == [[1.0, 0.0, 0.0]]
    _, plain, _ = mix(SINGLE_LABEL, video, label, torch.ones(2), 3, 0.0, 0.0)
    assert torch.equal(plain, label)


def test_evidence_is_the_log_odds_of_the_logits() -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for task in (SINGLE_LABEL, SEVERAL):
        torch.testing.assert_close(task.evidence(task.probability(logits), 2), task.log_odds(logits, 2))


def test_files_name_their_task() -> None:
    assert written("task", SINGLE_LABEL) == {"kind": "single_label"}
    assert named({"kind": "single_label"}) == named(None) == SINGLE_LABEL
    assert named(written("task", SEVERAL)) == SEVERAL
    for node in ({"kind": "other"}, {"_target_": f"{__name__}.Own"}):
        with refused("Own" if "_target_" in node else "single_label"):
            named(node)
    assert written("task", Own()) == {"_target_": f"{__name__}.Own"}


def test_an_exported_file_names_its_task(settings: Run) -> None:
    about = About(["a", "b"], settings.clip, settings.views, {"name": "x"}, {"name": "y"}, Calibration(1.5))
    text = about.to_text()
    assert parsed(text, Path("x.onnx")) == about
    assert json.loads(text.pop("task")) == {"kind": "single_label"}
    assert parsed(text, Path("x.onnx")) == about  # of before
    many = replace(about, calibration=Calibration([1.5, 2.0], [0.25, 0.75]), task=SEVERAL)
    assert parsed(many.to_text(), Path("x.onnx")) == many
    assert "sigmoid" in many.to_text()["expects"]
