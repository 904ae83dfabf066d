"""The table of metrics against hand-written numbers; one entry is enough for a metric."""

import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest

from aim.engine.run.settings import Run
from aim.engine.scores import metrics
from aim.engine.scores.metrics import METRICS, Metric, confusion, of_validation
from aim.engine.scores.quality import best
from aim.engine.telling import tracking
from aim.ground import config
from aim.report import page, runs
from aim.study.findings import scores as studied
from tests.messages import refused
from tests.toy import journal, run

TABLE = {metric.name: metric for metric in METRICS}
SURE = Metric(
    "sure", "sureness", "high", "percent", "sure", chance=lambda k: 1 / k,
    per_video=lambda probability, label: probability.max(1).astype(np.float64),
)  # fmt: skip

# Three classes; the truth is first, first, second, third (a tie with class 1, which is lower).
PROBABILITY = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3]], np.float32)
LABEL = np.array([0, 1, 2, 2])


def value(name: str, probability: np.ndarray, label: np.ndarray) -> float:
    return TABLE[name].value(probability.astype(np.float32), label)


def test_metrics_of_a_hand_written_table() -> None:
    assert confusion(best(PROBABILITY), LABEL, 3).tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert value("top1", PROBABILITY, LABEL) == 50.0
    assert value("top5", PROBABILITY, LABEL) == 100.0
    assert value("mean_class", PROBABILITY, LABEL) == pytest.approx(100 * 2 / 3)
    own = (0.7, 0.6, 0.3, 0.3)
    assert value("cross_entropy", PROBABILITY, LABEL) == pytest.approx(-np.log(own).mean(), rel=1e-6)
    squares = ((PROBABILITY - np.eye(3)[LABEL]) ** 2).sum(1)
    assert value("brier", PROBABILITY, LABEL) == pytest.approx(squares.mean(), rel=1e-6)
    # Of four bins: 0.7 and 0.6 right, 0.5 and 0.4 wrong.
    assert value("calibration_error", PROBABILITY, LABEL) == pytest.approx((0.3 + 0.4 + 0.5 + 0.4) / 4, rel=1e-6)


def test_metrics_of_many_videos_are_numpys() -> None:
    rng = np.random.default_rng(0)
    probability, label = rng.dirichlet(np.ones(11), 37), rng.integers(11, size=37)
    order = np.argsort(-probability, axis=1)
    assert value("top1", probability, label) == pytest.approx(100 * np.mean(order[:, 0] == label))
    among = [y in row[:5] for y, row in zip(label, order, strict=True)]
    assert value("top5", probability, label) == pytest.approx(100 * np.mean(among))


def test_classes_without_videos_take_no_part_in_the_mean() -> None:
    assert value("mean_class", np.eye(4)[:2], np.array([0, 1])) == 100.0


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_says_what_it_is_and_which_way_is_better(metric: Metric) -> None:
    right, wrong = np.eye(8, dtype=np.float32)[:6], np.eye(8, dtype=np.float32)[::-1][:6]
    label = np.arange(6) if metric.labels == "one" else np.eye(8, dtype=np.int64)[:6]
    assert metric.words
    assert metric.improves(metric.value(right, label), metric.value(wrong, label))
    assert not metric.improves(1.0, 1.0)
    if metric.chance is not None:
        assert metric.per_video is not None
        assert metric.per_video(right, label).shape == (6,)


def test_of_no_videos_a_loss_is_never_the_best() -> None:
    nothing, labels = np.empty((0, 3), np.float32), np.empty(0, np.int64)
    assert [metric.value(nothing, labels) for metric in METRICS] == [0.0] * len(METRICS)
    assert math.isnan(TABLE["cross_entropy"].validation(nothing, labels))
    assert TABLE["top1"].validation(nothing, labels) == 0.0


def test_names_in_files_stay() -> None:
    assert list(TABLE) == [
        "top1", "mean_class", "top5", "cross_entropy", "brier", "calibration_error",
        "map", "macro_f1", "micro_f1", "binary_cross_entropy", "class_calibration_error",
    ]  # fmt: skip
    validated = [[each.validated for each in metrics.of(labels) if each.validated] for labels in ("one", "several")]
    assert validated == [["top1", "mean_class", "top5", "loss"], ["map", "macro_f1", "micro_f1", "loss"]]
    assert tracking.columns(several=False)[-4:] == ["val_top1", "val_mean_class", "val_top5", "val_loss"]
    assert list(studied.SCORES) == [
        "top1", "exact2", "exact4", "exact8", "cross_entropy", "brier", "margin",
        "map", "macro_f1", "micro_f1", "binary_cross_entropy",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["top2", "brier"])
def test_a_run_is_chosen_by_a_metric_of_a_validation(name: str) -> None:
    with refused(f"train.best_by='{name}'", "top1", "top5", "mean_class", "loss"):
        config.build(config.compose(["+experiment=demo", f"train.best_by={name}"]), Run)
    assert of_validation(metrics.of("one"), "loss") is TABLE["cross_entropy"]
    assert of_validation(metrics.of("several"), "loss") is TABLE["binary_cross_entropy"]


def test_adding_a_metric_is_one_entry(tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged, used for the choice, stored, tracked, reported and studied."""
    monkeypatch.setattr(metrics, "METRICS", (*METRICS, SURE))
    found = run(tmp_path, "train.epochs=1", "train.best_by=sure", "test=best", "tracker=csv")
    (validation,) = [line for line in journal(tmp_path) if "val_sure" in line]
    assert found["selection"]["by"] == "validation sureness"
    assert found["selection"]["sure"] == validation["val_sure"]
    assert found["sure"] == pytest.approx(validation["val_sure"], abs=1e-3)
    assert json.loads((tmp_path / "results.json").read_text())["sure"] == found["sure"]
    assert "val_sure" in (tmp_path / "log.csv").read_text().splitlines()[0].split(",")
    assert tracking.tested(found)["test_sure"] == found["sure"]
    data = runs.read(tmp_path, whole=True)
    assert dict(page.facts(data))["sureness"].startswith(f"{found['sure']:.2f} % (")
    two = page.render([data, data])
    assert "sureness %" in two
    assert f"{found['sure']:.2f}" in two
    assert data.found is not None
    try:
        scores = importlib.reload(studied).score(data.found)["all"]  # whose table is made when it's imported
        assert scores["sure"].value == pytest.approx(found["sure"] / 100, abs=1e-4)
    finally:
        monkeypatch.undo()
        importlib.reload(studied)


def test_results_round_to_the_number_that_the_validation_showed() -> None:
    """8 of 19 are 42.105...: kept with three digits, they were 42.10 % in the table and 42.11 % of the epoch."""
    top1, share = TABLE["top1"], 100 * 8 / 19
    assert top1.text(round(share, top1.digits)) == top1.text(share) == "42.11 %"
