"""Scores of a cell's predictions: thresholded and continuous ones, over all classes and over pairs.

Shapes: n videos, k classes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from aim.engine.scores import metrics
from aim.engine.scores.metrics import Metric
from aim.engine.scores.predictions import Predictions
from aim.engine.scores.quality import LEAST, Label, Probability
from aim.ground.errors import UserError
from aim.study.findings.curves import ALL
<<<<<<< HEAD
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
=======
from aim.study.findings.intervals import Floats, Interval, bootstrap

LENGTHS = (2, 4, 8)  # of the sequences of motions
EXACT = {f"exact{length}": length for length in LENGTHS}


class Score(NamedTuple):
    """A score of a task: its words, the better direction, whether it counts right answers, and what guessing has.

    Guessing gives the same probability to all of so many classes, or for top-1 any of them as the answer.
    """

    words: str
    better: Literal["high", "low"]
    thresholded: bool
    chance: Callable[[int], float]


def margin(probability: Probability, label: Label) -> Floats:
    """The probability of each video's class less that of the most probable other one, "n"."""
    rows = np.arange(len(label))
    others = probability.copy()
    others[rows, label] = -1
    found: Floats = probability[rows, label] - others.max(1)
    return found
>>>>>>> main


TOP1, *OTHERS = [each for each in metrics.of("one") if each.per_video is not None and each.chance is not None]
PER_VIDEO = {each.name: each.per_video for each in (TOP1, *OTHERS) if each.per_video} | {"margin": margin}
MAIN = TOP1.name  # the score that thresholds and comparisons are told for


def _of_metrics(*found: Metric) -> dict[str, Score]:
    return {each.name: Score(each.words, each.better, each is TOP1, each.chance) for each in found if each.chance}


SCORES = {
    **_of_metrics(TOP1),
    **{name: Score(f"{n} in a row", "high", True, partial(pow, exp=-n)) for name, n in EXACT.items()},
    **_of_metrics(*OTHERS),
    "margin": Score("margin", "high", False, lambda classes: 0.0),
}


def score(predictions: Predictions, pairs: Sequence[Sequence[str]] = ()) -> dict[str, dict[str, Interval]]:
    """Task -> score -> its value and 95 % interval over the videos: of `all` classes, and of each pair "A/B".

    Of several labels a video there are no pairs. Raises UserError for a pair of classes that the predictions don't
    have.
    """
    if predictions.several:
<<<<<<< HEAD
        if pairs:
            raise UserError(
                "study.pairs are classes of which a video has one; with task=multi_label add study.pairs=[]"
            )
        return {ALL: scores_of_several(predictions.probability, predictions.label)}
    whole = Answers(predictions.probability.astype(np.float64), predictions.label)
=======
        raise UserError("task=multi_label: a study compares scores of one label a video; aim.report compares mAP")
    probability, label = predictions.probability.astype(np.float64), predictions.label
>>>>>>> main
    classes = predictions.classes.tolist()
    found = {ALL: scores_of(probability, label)}
    for pair in pairs:
        if unknown := [name for name in pair if name not in classes]:
            raise UserError(f"study.pairs: no class {unknown[0]!r}; there are: {', '.join(classes)}")
        found["/".join(pair)] = scores_of(*between(probability, label, [*map(classes.index, pair)]))
    return found


def between(probability: Floats, label: Label, pair: Sequence[int]) -> tuple[Floats, Label]:
    """The videos of two classes, and probabilities as if there were no other."""
    chosen = np.isin(label, pair)
    both = np.maximum(probability[chosen][:, pair], LEAST)
    return both / both.sum(1, keepdims=True), (label[chosen] == pair[1]).astype(np.int64)


<<<<<<< HEAD
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
=======
def scores_of(probability: Floats, label: Label) -> dict[str, Interval]:
    """Every score of one task, from "n k" and "n"."""
    found = {name: bootstrap(of(probability, label)) for name, of in PER_VIDEO.items()}
    for name, length in EXACT.items():
        found[name] = Interval(*(in_a_row(share, len(label), length) for share in found[MAIN]))
    return {name: found[name] for name in SCORES}
>>>>>>> main


def in_a_row(share: float, videos: int, length: int) -> float:
    """The share of sequences of `length` different videos that are all right, where `share` of the videos are.

    It is exact over all such sequences, C(r, length) / C(n, length) of r right ones among n, so that no drawing of them
    adds noise; about share ** length of many videos. The bounds of an interval needn't be whole numbers of videos.
    """
    if videos < length:
        return float("nan")
    right = share * videos
    return float(np.prod([max(right - i, 0.0) / (videos - i) for i in range(length)]))


<<<<<<< HEAD
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
=======
def described(classes: int) -> dict[str, dict[str, Any]]:
    """The scores for study.json; chance is that of all classes."""
>>>>>>> main
    return {
        name: {
            "name": each.words, "better": each.better, "thresholded": each.thresholded, "chance": each.chance(classes),
        }
<<<<<<< HEAD
        for name, text in names().items() if name in chance
=======
        for name, each in SCORES.items()
>>>>>>> main
    }  # fmt: skip
