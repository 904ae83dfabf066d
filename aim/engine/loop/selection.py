"""Schedule of validations, choice of the best weights, and early stopping."""

import math
from collections.abc import Mapping, Sequence

from aim.engine.loop.saving import State
from aim.engine.scores.metrics import Metric


def due(every: float, step: int, *, steps_per_epoch: int, total: int) -> bool:
    """Whether a validation, which comes every so many epochs (0: never) and at the end, follows this step."""

    def intervals(step: int) -> int:
        return math.floor(step / (every * steps_per_epoch) + 1e-9)

    return every > 0 and (step == total or intervals(step) > intervals(step - 1))


def judge(state: State, scores: Mapping[str, float], by: Metric, epoch: float) -> bool:
    """Note a validation at this epoch; whether it is the best so far. Of two alike the earlier one is."""
    new, best = scores[str(by.validated)], state.best
    improved = best is None or by.improves(new, best)
    if improved:
        state.best, state.best_epoch, state.in_vain = new, epoch, 0
    else:
        state.in_vain += 1
    return improved


def foremost(heads: Sequence[Mapping[str, float]], by: Metric) -> int:
    """The place of the best of several heads' scores; of two alike the one with the lower loss is."""

    def rank(scores: Mapping[str, float]) -> tuple[float, float]:
        score = scores[str(by.validated)]
        return score if by.better == "low" else -score, scores.get("loss", 0.0)

    return min(range(len(heads)), key=lambda head: rank(heads[head]))


def exhausted(state: State, patience: int | None) -> bool:
    """Whether the newest `patience` validations were all in vain."""
    return patience is not None and state.in_vain >= patience
