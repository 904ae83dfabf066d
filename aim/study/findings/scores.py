"""Scores of a cell's predictions: thresholded and continuous ones, over all classes and over pairs.

Shapes: n videos, k classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

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


def margin(probability: Probability, label: Label) -> Floats:
    """The probability of each video's class minus that of the most probable other one, "n"."""
    rows = np.arange(len(label))
    others = probability.copy()
    others[rows, label] = -1
    found: Floats = probability[rows, label] - others.max(1)
    return found


TOP1, *OTHERS = [each for each in metrics.of("one") if each.per_video is not None and each.chance is not None]
OF_SEVERAL = [each for each in metrics.of("several") if each.per_video or each.of_draws]
PART = 10_000_000  # videos of draws scored together
LOSSES = ("cross_entropy", "binary_cross_entropy")
MAIN = TOP1.name  # the score of thresholds and comparisons
MARGIN = Metric("margin", "margin", "high", "number", None, per_video=margin, chance=lambda classes: 0.0)
OF_ONE = [
    TOP1,
    *(replace(TOP1, name=name, words=f"{n} in a row", chance=partial(pow, exp=-n)) for name, n in EXACT.items()),
    *OTHERS,
    MARGIN,
]
SCORES = {each.name: each for each in (*OF_ONE, *OF_SEVERAL)}
THRESHOLDED = (MAIN, *EXACT, "macro_f1", "micro_f1")  # they count right answers


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
    found = dict[str, Interval]()
    for each in OF_ONE:
        assert each.per_video is not None
        if each.name in EXACT:
            found[each.name] = Interval(*(in_a_row(share, len(label), EXACT[each.name]) for share in found[MAIN]))
        else:
            found[each.name] = bootstrap(each.per_video(probability, label))
    return found


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
        return {each.name: each.chance(len(predictions.classes)) for each in OF_ONE if each.chance}
    found = predictions.baseline
    return {each.name: found[each.name] / (100 if each.unit == "percent" else 1) for each in OF_SEVERAL}


def described(chance: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """The scores for study.json, by those of guessing."""
    return {
        name: {"name": each.words, "better": each.better, "thresholded": name in THRESHOLDED, "chance": chance[name]}
        for name, each in SCORES.items()
        if name in chance
    }
