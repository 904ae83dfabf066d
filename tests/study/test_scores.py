"""Scores of predictions, against sums over every sequence and plain formulas."""

import itertools
import math

import numpy as np
import pytest

from aim.engine.scores import several
from aim.study.findings.scores import EXACT, SCORES, described, guessed, in_a_row, score
from tests.messages import refused
from tests.study.small import CLASSES, answers


@pytest.mark.parametrize("length", [1, 2, 4])
def test_in_a_row_is_the_share_of_all_sequences_that_are_right(length: int) -> None:
    right = [True, False, True, True, True, False, True]
    sequences = list(itertools.permutations(right, length))
    expected = sum(map(all, sequences)) / len(sequences)
    assert in_a_row(5 / 7, 7, length) == pytest.approx(expected, abs=1e-12)
    assert in_a_row(1.0, 7, length) == 1
    assert math.isnan(in_a_row(1.0, 3, 4))


def test_scores_are_means_over_videos() -> None:
    found = answers(0.6)
    scores = score(found)["all"]
    own = found.probability[np.arange(64), found.label].astype(float)
    right = own > 0.5
    assert scores["top1"].value == right.mean()
    assert scores["top1"].low < right.mean() < scores["top1"].high
    assert scores["cross_entropy"].value == pytest.approx(np.mean([-math.log(p) for p in own]))
    truth = np.eye(8)[found.label]
    assert scores["brier"].value == pytest.approx(np.mean(((found.probability - truth) ** 2).sum(1)))
    assert scores["margin"].value == pytest.approx(np.where(right, 0.6 - 0.4 / 7, 0.4 / 7 - 0.6).mean())
    for name, length in EXACT.items():
        n, r = 64, int(right.sum())
        assert scores[name].value == pytest.approx(math.comb(r, length) / math.comb(n, length))
        assert scores[name].low < scores[name].value < scores[name].high


def test_a_pair_is_its_own_task_with_no_other_class() -> None:
    found = answers(0.6)
    scores = score(found, [("grow", "shrink")])["grow/shrink"]
    first, second = CLASSES.tolist().index("grow"), CLASSES.tolist().index("shrink")
    chosen = [i for i, label in enumerate(found.label) if label in (first, second)]
    own = [
        found.probability[i, found.label[i]] / (found.probability[i, first] + found.probability[i, second])
        for i in chosen
    ]
    assert scores["cross_entropy"].value == pytest.approx(np.mean([-math.log(p) for p in own]), rel=1e-6)
    assert scores["top1"].value == pytest.approx(np.mean([p > 0.5 or (p == 0.5 and found.label[i] == first)
                                                          for p, i in zip(own, chosen, strict=True)]))  # fmt: skip
    with refused("study.pairs", "'growl'", "move_right"):
        score(found, [("growl", "shrink")])


def test_guessing_has_the_score_of_chance() -> None:
    found = answers(0.5)
    equal = np.full_like(found.probability, 1 / 8)
    scores = score(found.__class__(**{**found.__dict__, "probability": equal}))["all"]
    for name in ("cross_entropy", "brier", "margin", "top1"):
        assert scores[name].value == pytest.approx(SCORES[name].chance(8), abs=1e-6)
    assert described(guessed(found))["exact4"] == {
        "name": "4 in a row",
        "better": "high",
        "thresholded": True,
        "chance": 8**-4,
    }


def test_several_labels_a_video_have_scores_of_all_videos_with_intervals() -> None:
    found = answers(0.5)
    label = np.eye(8, dtype=np.int64)[found.label]
    label[::4, 3] = 1
    about = {"root": ".", "task": {"kind": "multi_label", "positive_weight": 1.0}}
    many = found.__class__(**{**found.__dict__, "label": label, "about": about})
    scores = score(many)["all"]
    assert scores["map"].value == several.mean_average_precision(found.probability, label)
    assert scores["macro_f1"].value == several.macro_f1(found.probability, label)
    for name in ("map", "macro_f1", "micro_f1", "binary_cross_entropy"):
        assert scores[name].low < scores[name].value < scores[name].high, name
    assert guessed(many)["map"] == pytest.approx(label.mean(), abs=1e-6)
    assert guessed(many)["macro_f1"] == pytest.approx(several.always_macro_f1(label), abs=1e-6)
    assert list(described(guessed(many))) == list(scores)
    assert described(guessed(many))["macro_f1"]["thresholded"]
    with refused("study.pairs=[]", "task=multi_label"):
        score(many, [("grow", "shrink")])
