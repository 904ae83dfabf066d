"""The parts of a report on several labels a video, against counts made by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aim.engine.scores import predictions
from aim.engine.scores.predictions import Predictions
from aim.report import several
from aim.report.charts import reliability
from aim.report.page import render
from aim.report.runs import main_of, read
from aim.report.table import table
from tests.messages import refused
from tests.report.made import RESULT, predicted, run_directory

LABEL = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]]
PROBABILITY = [[0.9, 0.2, 0.1], [0.4, 0.6, 0.2], [0.7, 0.1, 0.1], [0.1, 0.6, 0.4]]


@pytest.fixture
def found() -> Predictions:
    made = predicted([0] * 4, PROBABILITY, ["kick", "wave", "jump"])
    about = {"task": {"kind": "multi_label", "positive_weight": 1.0}, "temperature": None, "thresholds": [0.5] * 3}
    return replace(made, label=np.array(LABEL), about={**made.about, **about})


def test_each_class_is_told_by_itself(found: Predictions) -> None:
    wave, kick, jump = several.by_class(found)
    assert (wave.name, wave.videos, wave.share, wave.average_precision) == ("wave", 2, 50.0, 100.0)
    assert (wave.precision, wave.recall, wave.f1) == (100.0, 100.0, 100.0)
    assert kick.average_precision == pytest.approx(100 * (0.5 * 1 + 0.5 * 2 / 3))
    assert (kick.precision, kick.recall, kick.f1) == (50.0, 50.0, 50.0)
    assert (jump.average_precision, jump.precision, jump.recall, jump.f1) == (None, None, None, None)
    assert jump.calibration_error == pytest.approx(100 * (0.1 + 0.2 + 0.1 + 0.4) / 4)


def test_labels_together_and_the_worst_answers(found: Predictions) -> None:
    assert several.together(found) == [[(2, 2), (1, 0), (0, 0)], [(1, 0), (2, 2), (0, 0)], [(0, 0)] * 3]
    assert several.worst_misses(found, 5) == [(1, 0)]
    assert several.worst_alarms(found, 5) == [(2, 0)]
    lower = replace(found, about={**found.about, "thresholds": [0.05, 0.7, 0.3], "temperature": [1.0] * 3})
    assert several.worst_misses(lower, 1) == [(1, 1)]
    assert several.worst_alarms(lower, 9) == [(2, 0), (3, 2), (3, 0)]


def test_the_diagram_is_of_all_labels(found: Predictions) -> None:
    by_hand = sum(
        abs(p - y) for row, truth in zip(PROBABILITY, LABEL, strict=True) for p, y in zip(row, truth, strict=True)
    )
    assert 0 < reliability(found).error < 100 * by_hand / 12


def test_a_page_and_a_table_show_them(found: Predictions, tmp_path: Path) -> None:
    own = {key: value for key, value in RESULT.items() if key not in ("top1", "top5", "mean_class")}
    folder = run_directory(tmp_path / "many", None, "lr: 1")
    (folder / "results.json").write_text(json.dumps(own | found.results()))
    predictions.write(folder / predictions.TEST, found)
    run = read(folder, whole=True)
    assert main_of([run]).name == "map"
    text = render([run])
    for piece in (
        "mAP",
        "The worst misses",
        "false alarms",
        "Co-occurring labels",
        "listed: kick, wave; given: wave",
    ):
        assert piece in text
    assert "Confusions" not in text
    assert "| mAP (%) | mean class share (%) |" in table([run])
    assert "mAP" in render([run, run])
    (folder / "results.json").write_text(json.dumps(own))
    with refused("results.json", "top1"):
        read(folder)
