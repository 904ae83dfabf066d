import math

import pytest

from aim.engine.loop.saving import State
from aim.engine.loop.selection import due, exhausted, judge
from aim.engine.scores.metrics import METRICS, of_validation

TOP1, LOSS = (of_validation(METRICS, name) for name in ("top1", "loss"))


@pytest.mark.parametrize(
    ("every", "steps_per_epoch", "total", "expected"),
    [
        (0, 4, 8, []),
        (1, 4, 8, [4, 8]),
        (2, 4, 20, [8, 16, 20]),
        (5, 4, 8, [8]),
        (0.25, 4, 8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (0.25, 100, 200, [25, 50, 75, 100, 125, 150, 175, 200]),
        (0.5, 3, 6, [2, 3, 5, 6]),  # the first step after each half
        (1.5, 4, 14, [6, 12, 14]),
        (0.1, 30, 60, list(range(3, 61, 3))),  # 0.1 * 30 is more than 3
        (0.3, 10, 20, [3, 6, 9, 12, 15, 18, 20]),
        (0.001, 3, 6, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_validations_are_a_function_of_the_step(
    every: float, steps_per_epoch: int, total: int, expected: list[int]
) -> None:
    steps = range(1, total + 1)
    assert [step for step in steps if due(every, step, steps_per_epoch=steps_per_epoch, total=total)] == expected


def test_the_best_is_the_largest_but_for_the_loss_and_the_first_of_two() -> None:
    state = State()
    scores = [{"top1": 10.0, "loss": 2.0}, {"top1": 30.0, "loss": 3.0}, {"top1": 30.0, "loss": 1.0}]
    assert [judge(state, each, TOP1, epoch) for epoch, each in enumerate(scores, 1)] == [True, True, False]
    assert (state.best, state.best_epoch, state.in_vain) == (30.0, 2, 1)
    state = State()
    assert [judge(state, each, LOSS, epoch) for epoch, each in enumerate(scores, 1)] == [True, False, True]
    assert (state.best, state.best_epoch, state.in_vain) == (1.0, 3, 0)


def test_nothing_is_the_best_of_a_loss_that_is_no_number() -> None:
    state = State()
    judge(state, {"loss": 1.0}, LOSS, 1)
    assert not judge(state, {"loss": math.nan}, LOSS, 2)


def test_patience_counts_validations_since_the_best() -> None:
    state = State()
    for top1, over in ((10.0, False), (9.0, False), (11.0, False), (11.0, False), (5.0, True)):
        judge(state, {"top1": top1}, TOP1, 1)
        assert exhausted(state, 2) == over
        assert not exhausted(state, None)
