"""What a cell's predictions are worth: thresholded scores and continuous ones, over all classes and over pairs.

Shapes: n videos, k classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aim.engine.predictions import Predictions
from aim.engine.scores import LEAST, cross_entropies
from aim.errors import UserError
from aim.studying.curves import ALL
from aim.studying.intervals import Interval, bootstrap

Floats = NDArray[np.float64]

LENGTHS = (2, 4, 8)  # of the sequences of motions
EXACT = {f"exact{length}": length for length in LENGTHS}
NAMES = {
    "top1": "top-1",
    **{name: f"{length} in a row" for name, length in EXACT.items()},
    "cross_entropy": "cross-entropy",
    "brier": "Brier score",
    "margin": "margin",
}
LOW = ("cross_entropy", "brier")  # is better
THRESHOLDED = ("top1", *EXACT)


@dataclass(frozen=True)
class Answers:
    """The probabilities that a model gives, and the truth."""

    probability: Floats  # "n k"
    label: NDArray[np.int64]  # "n"


def score(predictions: Predictions, pairs: Sequence[Sequence[str]] = ()) -> dict[str, dict[str, Interval]]:
    """Task -> score -> its value and 95 % interval over the videos: of `all` classes, and of each pair "A/B".

    Raises UserError for a pair of classes that the predictions don't have.
    """
    whole = Answers(predictions.probability.astype(np.float64), predictions.label)
    names = predictions.classes.tolist()
    found = {ALL: scores_of(whole)}
    for first, second in pairs:
        if unknown := [name for name in (first, second) if name not in names]:
            raise UserError(f"study.pairs: no class {unknown[0]!r}; there are: {', '.join(names)}")
        found[task_of(first, second)] = scores_of(between(whole, names.index(first), names.index(second)))
    return found


def task_of(first: str, second: str) -> str:
    """The name of the task of a pair of classes."""
    return f"{first}/{second}"


def between(answers: Answers, first: int, second: int) -> Answers:
    """The videos of two classes, and probabilities as if there were no other."""
    chosen = np.isin(answers.label, (first, second))
    both = np.maximum(answers.probability[chosen][:, [first, second]], LEAST)
    return Answers(both / both.sum(1, keepdims=True), (answers.label[chosen] == second).astype(np.int64))


def scores_of(answers: Answers) -> dict[str, Interval]:
    """Every score of one task."""
    values = per_video(answers)
    found = {name: bootstrap(each) for name, each in values.items()}
    n, top1 = len(answers.label), found["top1"]
    for name, length in EXACT.items():
        found[name] = Interval(*(in_a_row(share, n, length) for share in (top1.value, top1.low, top1.high)))
    return {name: found[name] for name in NAMES}


def per_video(answers: Answers) -> dict[str, Floats]:
    """The scores that are means over videos, "n" each."""
    probability, label = answers.probability, answers.label
    rows = np.arange(len(label))
    own = probability[rows, label]
    others = probability.copy()
    others[rows, label] = -1
    return {
        "top1": (probability.argmax(1) == label).astype(np.float64),
        "cross_entropy": cross_entropies(probability.astype(np.float32), label),
        "brier": (probability**2).sum(1) - 2 * own + 1,
        "margin": own - others.max(1),
    }


def in_a_row(share: float, videos: int, length: int) -> float:
    """The share of sequences of `length` different videos that are all right, where `share` of the videos are.

    It is exact over all such sequences, C(r, length) / C(n, length) of r right ones among n, so that no drawing of them
    adds noise; about share ** length of many videos. The bounds of an interval needn't be whole numbers of videos.
    """
    if videos < length:
        return float("nan")
    right = share * videos
    return float(np.prod([max(right - i, 0.0) / (videos - i) for i in range(length)]))


def chances(classes: int) -> dict[str, float]:
    """What guessing gives: the same probability to all classes, or for top-1 any of them."""
    return {
        "top1": 1 / classes,
        **{name: classes**-length for name, length in EXACT.items()},
        "cross_entropy": float(np.log(classes)),
        "brier": 1 - 1 / classes,
        "margin": 0.0,
    }


def described(classes: int) -> dict[str, dict[str, Any]]:
    """The scores for study.json; chance is that of all classes."""
    chance: Mapping[str, float] = chances(classes)
    return {
        name: {
            "name": text, "better": "low" if name in LOW else "high", "thresholded": name in THRESHOLDED,
            "chance": chance[name],
        }
        for name, text in NAMES.items()
    }  # fmt: skip
