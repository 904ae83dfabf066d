"""Doubtful labels, against cleanlab and by hand."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aim.engine.scores.predictions import Predictions
from aim.report import doubtful, verb
from aim.report.doubtful import NOBODY, confident
from tests.messages import named
from tests.report.made import predicted, random_predictions, run_directory

# Six videos of three classes: 0 0 1 1 1 2.
FOUND = predicted(
    [0, 0, 1, 1, 1, 2],
    [[0.8, 0.1, 0.1], [0.8, 0.1, 0.1], [0.9, 0.05, 0.05], [0.1, 0.7, 0.2], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]],
)


def swapped(found: Predictions, count: int) -> Predictions:
    """The same with the labels of the first videos wrong."""
    label = found.label.copy()
    label[:count] = (label[:count] + 1) % len(found.classes)
    return replace(found, label=label)


def several(n: int, k: int, skill: float) -> Predictions:
    """Two labels a video on the average."""
    rng = np.random.default_rng(0)
    label = (rng.random((n, k)) < 2 / k).astype(np.int64)
    logits = rng.normal(size=(n, k)) + skill * (2 * label - 1)
    probability = (1 / (1 + np.exp(-logits))).astype(np.float32)
    about = {"root": "/nowhere", "task": {"kind": "multi_label", "positive_weight": 1.0}}
    return replace(random_predictions(n, k), label=label, probability=probability, about=about)


def of_cleanlab(label: NDArray[np.int64], probability: NDArray[np.floating]) -> set[int]:
    from cleanlab.count import compute_confident_joint

    _, doubted = compute_confident_joint(label, probability.astype(float), return_indices_of_off_diagonals=True)
    return {int(i) for i in doubted}


def ours(label: NDArray[np.int64], probability: NDArray[np.floating]) -> set[int]:
    likely = confident(probability, label)
    return set(np.flatnonzero((likely != NOBODY) & (likely != label)).tolist())


@pytest.mark.parametrize("skill", [1.0, 3.0, 6.0])
def test_confident_learning_is_cleanlabs(skill: float) -> None:
    found = swapped(random_predictions(300, 4, skill=skill), 20)
    assert ours(found.label, found.probability) == of_cleanlab(found.label, found.probability) != set()
    assert ours(found.label, found.probability) != of_cleanlab(found.label, found.probability[:, [1, 0, 2, 3]])


def test_several_labels_are_a_question_each_as_cleanlabs() -> None:
    found = several(200, 5, skill=1.5)
    doubts = set[tuple[str, str]]()
    for i in range(5):
        pair = np.stack([1 - found.probability[:, i], found.probability[:, i]], 1)
        doubts |= {(f"{video}.mp4", f"class {i}") for video in of_cleanlab(found.label[:, i], pair)}
    labels, left_out = doubtful.doubtful(found)
    assert {(each.path, each.given or each.proposed) for each in labels} == doubts
    assert left_out == 0
    assert {bool(each.given) for each in labels} == {True, False}  # to be taken away, and to be added
    assert all(not each.given or not each.proposed for each in labels)


def test_the_doubted_label_is_found_by_hand() -> None:
    """The classes' own means are 0.8, 0.52 and 0.7; only video 2 exceeds another class's."""
    (doubt,), left_out = doubtful.doubtful(FOUND)
    assert (doubt.path, doubt.given, doubt.proposed, left_out) == ("2.mp4", "class 1", "class 0", 0)
    assert (doubt.confidence, doubt.for_given) == pytest.approx((0.9, 0.05))


def test_labels_that_were_swapped_are_the_surest_doubts() -> None:
    doubts = doubtful.doubtful(swapped(random_predictions(300, 4, skill=6.0), 10)).labels[:10]
    assert sum(doubt.path in {f"{i}.mp4" for i in range(10)} for doubt in doubts) >= 9


def test_a_model_that_knows_nothing_doubts_nothing() -> None:
    for found in (
        random_predictions(300, 4, skill=0.0),
        random_predictions(300, 2, skill=0.0),
        predicted([0, 0, 0, 1, 2], [[0.6, 0.2, 0.2]] * 5),
    ):
        assert ours(found.label, found.probability)
        doubts = doubtful.doubtful(found)
        assert not doubts.labels
        assert doubts.left_out == len(ours(found.label, found.probability))
        named(doubts.text, str(doubts.left_out))


def test_a_class_that_is_not_known_is_not_doubted_where_the_others_are() -> None:
    """The model takes most of class 3 for class 2, so neither has doubts; labels of 0 and 1 were swapped."""
    found = swapped(random_predictions(300, 4, skill=6.0), 10)
    of_3 = np.flatnonzero(found.label == 3)
    found.probability[of_3[5:]] = found.probability[of_3[5:]][:, [0, 1, 3, 2]]
    doubts = doubtful.doubtful(found)
    assert {name for each in doubts.labels for name in (each.given, each.proposed)} == {"class 0", "class 1"}
    assert doubts.left_out > len(of_3) / 2


def test_a_report_of_one_run_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = swapped(random_predictions(60, 4, skill=6.0), 3)
    found.span[0] = (1.5, 4.0)
    run_dir = run_directory(tmp_path / "run", {"top1": 95.0, "num_videos": 60}, "{lr: 1}", found)
    verb.main([str(run_dir)])
    with (run_dir / doubtful.FILE).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]] == ["video", "given", "proposed", "confidence", "start", "end"]
    (first,) = (row for row in rows if row["video"] == "0.mp4")
    assert (first["start"], first["end"]) == ("1.5", "4")
    for row in rows:
        place = int(row["video"].removesuffix(".mp4"))
        assert row["given"] == f"class {found.label[place]}"
        assert float(row["confidence"]) == pytest.approx(float(found.confidence[place]), abs=1e-4)
    named(capsys.readouterr().err, str(run_dir / doubtful.FILE), str(len(rows)), "60")
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert page.count('<td class="path">') == len(rows)


def test_a_page_of_several_labels_names_them(tmp_path: Path) -> None:
    found = several(100, 4, skill=1.5)
    run_dir = run_directory(tmp_path / "run", {"map": 90.0, "num_videos": 100}, "{lr: 1}", found)
    verb.main([str(run_dir)])
    doubts = doubtful.doubtful(found).labels
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert page.count("(without class") == min(24, len(doubts)) > 0
