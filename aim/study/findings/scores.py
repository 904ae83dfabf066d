"""Scores of a cell's predictions: thresholded and continuous ones, over all classes and over pairs.

Shapes: n videos, k classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aim.engine.scores import metrics
from aim.engine.scores.metrics import Metric
from aim.engine.scores.predictions import Predictions
from aim.engine.scores.quality import LEAST
from aim.ground.errors import UserError
from aim.study.findings.curves import ALL
from aim.study.findings.intervals import DRAWS, Interval, bootstrap, drawn, percentiles

Floats = NDArray[np.float64]

LENGTHS = (2, 4, 8)  # of the sequences of motions
EXACT = {f"exact{length}": length for length in LENGTHS}
MAIN = metrics.of("one")[0].name  # the score that thresholds and comparisons are told for
THRESHOLDED = (MAIN, *EXACT, "macro_f1", "micro_f1")
PART = 10_000_000  # videos of draws that are scored together
LOSSES = ("cross_entropy", "binary_cross_entropy")


def studied(labels: Literal["one", "several"]) -> list[Metric]:
    """The metrics with an interval of which it is known what guessing gives."""
    if labels == "several":
        return [metric for metric in metrics.of(labels) if metric.per_video or metric.of_draws]
    return [metric for metric in metrics.of(labels) if metric.per_video and metric.chance]


def names() -> dict[str, str]:
    """Each score and its words: those of the table, and those that only studies have."""
    main, *others = studied("one")
    return {
        main.name: main.words,
        **{name: f"{length} in a row" for name, length in EXACT.items()},
        **{metric.name: metric.words for metric in others},
        "margin": "margin",
        **{metric.name: metric.words for metric in studied("several")},
    }


@dataclass(frozen=True)
class Answers:
    """The probabilities that a model gives, and the truth."""

    probability: Floats  # "n k"
    label: NDArray[np.int64]  # "n"


def score(predictions: Predictions, pairs: Sequence[Sequence[str]] = ()) -> dict[str, dict[str, Interval]]:
    """Task -> score -> its value and 95 % interval over the videos: of `all` classes, and of each pair "A/B".

    Of several labels a video there are no pairs. Raises UserError for a pair of classes that the predictions don't
    have.
    """
    if predictions.several:
        if pairs:
            raise UserError(
                "study.pairs are classes of which a video has one; with task=multi_label add study.pairs=[]"
            )
        return {ALL: scores_of_several(predictions.probability, predictions.label)}
    whole = Answers(predictions.probability.astype(np.float64), predictions.label)
    classes = predictions.classes.tolist()
    found = {ALL: scores_of(whole)}
    for first, second in pairs:
        if unknown := [name for name in (first, second) if name not in classes]:
            raise UserError(f"study.pairs: no class {unknown[0]!r}; there are: {', '.join(classes)}")
        found[task_of(first, second)] = scores_of(between(whole, classes.index(first), classes.index(second)))
    return found


def task_of(first: str, second: str) -> str:
    """The name of the task of a pair of classes."""
    return f"{first}/{second}"


def between(answers: Answers, first: int, second: int) -> Answers:
    """The videos of two classes, and probabilities as if there were no other."""
    chosen = np.isin(answers.label, (first, second))
    both = np.maximum(answers.probability[chosen][:, [first, second]], LEAST)
    return Answers(both / both.sum(1, keepdims=True), (answers.label[chosen] == second).astype(np.int64))


def scores_of_several(probability: NDArray[np.float32], label: NDArray[np.int64]) -> dict[str, Interval]:
    """Every score of several labels a video."""
    found, times = {}, drawn(len(label), DRAWS, 0)
    parts = np.array_split(times, 1 + times.size // PART)
    for metric in studied("several"):
        if metric.per_video is not None:
            found[metric.name] = bootstrap(metric.per_video(probability, label))
        elif metric.of_all is not None and metric.of_draws is not None:
            values = np.concatenate([metric.of_draws(probability, label, part) for part in parts])
            found[metric.name] = Interval(metric.of_all(probability, label), *percentiles(values))
    return found


def scores_of(answers: Answers) -> dict[str, Interval]:
    """Every score of one task."""
    values = per_video(answers)
    found = {name: bootstrap(each) for name, each in values.items()}
    n, main = len(answers.label), found[MAIN]
    for name, length in EXACT.items():
        found[name] = Interval(*(in_a_row(share, n, length) for share in (main.value, main.low, main.high)))
    return {name: found[name] for name in names() if name in found}


def per_video(answers: Answers) -> dict[str, Floats]:
    """The scores that are means over videos, "n" each."""
    probability, label = answers.probability, answers.label
    rows = np.arange(len(label))
    own = probability[rows, label]
    others = probability.copy()
    others[rows, label] = -1
    found = {metric.name: metric.per_video(probability, label) for metric in studied("one") if metric.per_video}
    return {**found, "margin": own - others.max(1)}


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
    """The scores of guessing: the same probability to all classes, or for top-1 any of them."""
    found = {metric.name: metric.chance(classes) for metric in studied("one") if metric.chance is not None}
    return {**found, **{name: classes**-length for name, length in EXACT.items()}, "margin": 0.0}


def guessed(predictions: Predictions) -> dict[str, float]:
    """The scores of guessing on these videos; of several labels a video, of the best answer that all get alike."""
    if not predictions.several:
        return chances(len(predictions.classes))
    percent = {metric.name for metric in studied("several") if metric.unit == "percent"}
    of_all = {metric.name: predictions.baseline[metric.name] for metric in studied("several")}
    return {name: value / 100 if name in percent else value for name, value in of_all.items()}


def better(name: str) -> Literal["high", "low"]:
    """The better direction of a score; those that only studies have are the better the higher."""
    return next((metric.better for metric in metrics.METRICS if metric.name == name), "high")


def described(chance: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The scores for study.json, by those of guessing, which are of all classes."""
    return {
        name: {
            "name": text, "better": better(name), "thresholded": name in THRESHOLDED,
            "chance": chance[name],
        }
        for name, text in names().items() if name in chance
    }  # fmt: skip
