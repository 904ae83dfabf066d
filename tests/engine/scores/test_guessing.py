"""The chance levels of one answer to all videos, against numbers by hand."""

import math

import pytest
import torch
from torch import Tensor

from aim.engine.scores.guessing import OneAnswer, baseline, baseline_of, chance, one_answer
from aim.engine.scores.tasks import SINGLE_LABEL

LABEL = torch.tensor([0] * 1 + [1] * 7 + [3] * 2)  # of four classes


def answers(*classes: int) -> Tensor:
    """Sure of these."""
    return torch.eye(4)[torch.tensor(classes)]


def test_the_largest_class_is_the_yardstick() -> None:
    found = baseline(SINGLE_LABEL, LABEL, 4)
    assert (found["top1"], found["top5"]) == (70.0, 100.0)
    assert found["mean_class"] == pytest.approx(100 / 3, abs=1e-3)  # of three classes that have videos one is right
    entropy = -(0.1 * math.log(0.1) + 0.7 * math.log(0.7) + 0.2 * math.log(0.2))
    assert found["cross_entropy"] == pytest.approx(entropy, abs=1e-4)
    assert found["brier"] == pytest.approx(1 - 0.01 - 0.49 - 0.04, abs=1e-4)
    assert chance(SINGLE_LABEL, LABEL, 4)[:2] == pytest.approx((0.7, entropy), abs=1e-6)
    assert chance(SINGLE_LABEL, torch.arange(8), 8)[:2] == pytest.approx((1 / 8, math.log(8)))


def test_a_result_that_is_older_has_the_yardstick_of_its_classes() -> None:
    per_class = {"a": {"videos": 1, "right": 0}, "b": {"videos": 7, "right": 7}, "c": {"videos": 0, "right": 0}}
    assert baseline_of({"per_class": per_class})["top1"] == 87.5
    assert baseline_of({"per_class": per_class, "baseline": {"top1": 1.0}}) == {"top1": 1.0}
    assert baseline_of({"top1": 50.0}) == {}


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([1] * 10, OneAnswer(1, 10, 10)),
        ([3] * 9 + [0], OneAnswer(3, 9, 10)),
        ([0] + [1] * 9, None),  # it tells one of three others
        ([1] * 8 + [3] * 2, None),
        ([0] + [1] * 7 + [3] * 2, None),
    ],
)
def test_nearly_one_answer_to_all_videos_is_noticed(predicted: list[int], expected: OneAnswer | None) -> None:
    assert one_answer(SINGLE_LABEL, answers(*predicted), LABEL) == expected


def test_one_answer_that_is_right_for_all_is_no_fault() -> None:
    assert one_answer(SINGLE_LABEL, answers(*[1] * 7), torch.tensor([1] * 7)) is None
    assert one_answer(SINGLE_LABEL, torch.empty(0, 4), torch.empty(0, dtype=torch.int64)) is None
