"""Scores of a cell's predictions: thresholded and continuous ones, over all classes and over pairs.

Shapes: n videos, k classes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from aim.engine.scores import metrics
from aim.engine.scores.metrics import Metric
from aim.engine.scores.predictions import Predictions
from aim.engine.scores.quality import LEAST, Label, Probability
from aim.ground.errors import UserError
from aim.study.findings.curves import ALL
from aim.study.findings.intervals import DRAWS, Floats, Interval, bootstrap, drawn, percentiles

LENGTHS = (2, 4, 8)  # of the sequences of motions
EXACT = {f"exact{length}": length for length in LENGTHS}


class Score(NamedTuple):
    """A score of a task: its words, the better direction, whether it counts right answers, and its chance level.

    Guessing gives the same probability to all classes, or for top-1 any of them as the answer. With several labels a
    video there is no such number: see `guessed`.
    """

    words: str
    better: Literal["high", "low"]
    thresholded: bool
    chance: Callable[[int], float]


def unknown(classes: int) -> float:
    """The chance level depends on the videos."""
    return float("nan")


def margin(probability: Probability, label: Label) -> Floats:
    """The probability of each video's class minus that of the most probable other one, "n"."""
    rows = np.arange(len(label))
    others = probability.copy()
    others[rows, label] = -1
    found: Floats = probability[rows, label] - others.max(1)
    return found


TOP1, *OTHERS = [each for each in metrics.of("one") if each.per_video is not None and each.chance is not None]
OF_SEVERAL = [each for each in metrics.of("several") if each.per_video or each.of_draws]
COUNTED = ("macro_f1", "micro_f1")  # of these: scores that count answers
PART = 10_000_000  # videos of draws scored together
LOSSES = ("cross_entropy", "binary_cross_entropy")
PER_VIDEO = {each.name: each.per_video for each in (TOP1, *OTHERS) if each.per_video} | {"margin": margin}
MAIN = TOP1.name  # the score of thresholds and comparisons


def _of_metrics(*found: Metric) -> dict[str, Score]:
    return {each.name: Score(each.words, each.better, each is TOP1, each.chance) for each in found if each.chance}


SCORES = {
    **_of_metrics(TOP1),
    **{name: Score(f"{n} in a row", "high", True, partial(pow, exp=-n)) for name, n in EXACT.items()},
    **_of_metrics(*OTHERS),
    "margin": Score("margin", "high", False, lambda classes: 0.0),
    **{each.name: Score(each.words, each.better, each.name in COUNTED, unknown) for each in OF_SEVERAL},
}


def score(predictions: Predictions, pairs: Sequence[Sequence[str]] = ()) -> dict[str, dict[str, Interval]]:
    """Task -> score -> its value and 95 % interval over the videos: of `all` classes, and of each pair "A/B".

    With several labels a video there are no pairs. Raises UserError for classes missing in the predictions.
    """
    if predictions.several:
        if pairs:
            raise UserError(
                "study.pairs are classes of which a video has one; with task=multi_label add study.pairs=[]"
            )
        return {ALL: scores_of_several(predictions.probability, predictions.label)}
    probability, label = predictions.probability.astype(np.float64), predictions.label
    classes = predictions.classes.tolist()
    found = {ALL: scores_of(probability, label)}
    for pair in pairs:
        if unknown := [name for name in pair if name not in classes]:
            raise UserError(f"study.pairs: no class {unknown[0]!r}; there are: {', '.join(classes)}")
        found["/".join(pair)] = scores_of(*between(probability, label, [*map(classes.index, pair)]))
    return found


def between(probability: Floats, label: Label, pair: Sequence[int]) -> tuple[Floats, Label]:
    """The videos of two classes, and probabilities renormalised to them."""
    chosen = np.isin(label, pair)
    both = np.maximum(probability[chosen][:, pair], LEAST)
    return both / both.sum(1, keepdims=True), (label[chosen] == pair[1]).astype(np.int64)


def scores_of(probability: Floats, label: Label) -> dict[str, Interval]:
    """Every score of one task, from "n k" and "n"."""
    found = {name: bootstrap(of(probability, label)) for name, of in PER_VIDEO.items()}
    for name, length in EXACT.items():
        found[name] = Interval(*(in_a_row(share, len(label), length) for share in found[MAIN]))
    return {name: found[name] for name in SCORES if name in found}


def scores_of_several(probability: Probability, label: Label) -> dict[str, Interval]:
    """Every score of several labels a video, from "n k" and "n k"; scores of all videos are computed for each draw."""
    found, times = {}, drawn(len(label), DRAWS, 0)
    for metric in OF_SEVERAL:
        if metric.of_all is None or metric.of_draws is None:
            assert metric.per_video is not None
            found[metric.name] = bootstrap(metric.per_video(probability, label))
        else:
            parts = [metric.of_draws(probability, label, x) for x in np.array_split(times, 1 + times.size // PART)]
            found[metric.name] = Interval(metric.of_all(probability, label), *percentiles(np.concatenate(parts)))
    return found


def in_a_row(share: float, videos: int, length: int) -> float:
    """The share of sequences of `length` different videos that are all right, where `share` of the videos are.

    It is exact over all such sequences, without sampling noise: C(r, length) / C(n, length) for r right ones among n,
    about share ** length for many videos. The bounds of an interval needn't be whole numbers of videos.
    """
    if videos < length:
        return float("nan")
    right = share * videos
    return float(np.prod([max(right - i, 0.0) / (videos - i) for i in range(length)]))


def guessed(predictions: Predictions) -> dict[str, float]:
    """The scores of guessing on these videos, of all classes: with several labels the best single answer to all."""
    if not predictions.several:
        one = [name for name in SCORES if name in (*PER_VIDEO, *EXACT)]
        return {name: SCORES[name].chance(len(predictions.classes)) for name in one}
    found = predictions.baseline
    return {each.name: found[each.name] / (100 if each.unit == "percent" else 1) for each in OF_SEVERAL}


def described(chance: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The scores for study.json, by those of guessing."""
    found = {name: each for name, each in SCORES.items() if name in chance}
    return {
        name: {"name": each.words, "better": each.better, "thresholded": each.thresholded, "chance": chance[name]}
        for name, each in found.items()
    }
