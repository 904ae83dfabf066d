"""Quality of probabilities of several labels a video, each judged separately: NumPy arrays in, numbers out.

Shapes: n videos, k classes. A label is 0 or 1 for each class. A class without a video in the list has no average
precision and no F1, and is left out of means.
"""

import numpy as np
from numpy.typing import NDArray

from aim.engine.scores.quality import LEAST, Probability, calibration_error, reliability_of

Labels = NDArray[np.integer]  # "n k", 0 or 1
Floats = NDArray[np.float64]

UNKNOWN = 0.5  # the threshold of a class without data


def average_precision(score: Probability, label: Labels) -> float:
    """The average precision of one class, from "n" scores and labels; NaN without a video that has it.

    The mean of the precision over the steps of recall, without interpolation and with ties merged, like scikit-learn's
    `average_precision_score`. One score for all videos gives the share with the label.
    """
    if not label.any():
        return float("nan")
    precision, recall = curve(score, label)[1:]
    return float(np.diff(recall, prepend=0.0) @ precision)


def curve(score: Probability, label: Labels) -> tuple[Floats, Floats, Floats]:
    """The distinct scores of a class, the highest first, and precision and recall with each as the threshold."""
    order = np.argsort(-score, kind="stable")
    falling, hits = score[order].astype(np.float64), label[order].astype(np.float64).cumsum()
    last = np.flatnonzero(np.append(np.diff(falling) < 0, [True]))  # of videos with the same score
    return falling[last], hits[last] / (last + 1), hits[last] / max(1.0, hits[-1])


def average_precisions(probability: Probability, label: Labels) -> Floats:
    """Of each class, "k"."""
    return np.array([average_precision(p, y) for p, y in zip(probability.T, label.T, strict=True)], np.float64)


def mean_average_precision(probability: Probability, label: Labels) -> float:
    """The mean over the classes that have videos: mAP."""
    return mean_of_known(average_precisions(probability, label), label)


def mean_of_known(values: Floats, label: Labels) -> float:
    """The mean of "k" values over the classes that have videos; 0 where none has."""
    known = label.max(0, initial=0) > 0
    return float(values[known].mean()) if known.any() else 0.0


def f1_of(hits: Floats, given: Floats, true: Floats) -> Floats:
    """F1 from numbers of right answers, of answers, and of true labels; 0 where all of them are."""
    found: Floats = 2 * hits / np.maximum(given + true, 1)
    return found


def f1s(given: NDArray[np.bool_], label: Labels) -> Floats:
    """Of each class, "k", for the answered labels `given` "n k"."""
    return f1_of((given & (label > 0)).sum(0).astype(float), given.sum(0).astype(float), label.sum(0).astype(float))


def macro_f1(probability: Probability, label: Labels) -> float:
    """The mean F1 of the classes that have videos, with labels answered from a probability of a half on."""
    return mean_of_known(f1s(probability >= UNKNOWN, label), label)


def micro_f1(probability: Probability, label: Labels) -> float:
    """F1 of all answers of all classes together."""
    return float(drawn_micro_f1s(probability, label, np.ones((1, len(label)), np.int64))[0])


def always_macro_f1(label: Labels) -> float:
    """The macro F1 of giving every label to every video, the best of one answer to all."""
    return mean_of_known(f1s(np.ones(label.shape, np.bool_), label), label)


def always_micro_f1(label: Labels) -> float:
    """The best micro F1 of one answer to all videos: some number of the commonest labels."""
    counts = np.sort(label.sum(0))[::-1].astype(np.float64)
    given = len(label) * np.arange(1, len(counts) + 1, dtype=np.float64)
    return float(f1_of(counts.cumsum(), given, counts.sum()).max(initial=0.0))


def drawn_precisions(probability: Probability, label: Labels, times: NDArray[np.int64]) -> Floats:
    """The mAP of each of "r" draws of the videos; `times` "r n" each is drawn."""
    found = []
    for score, own in zip(probability.T, label.T, strict=True):
        order = np.argsort(-score, kind="stable")
        last = np.flatnonzero(np.append(np.diff(score[order]) < 0, [True]))
        drawn = times[:, order]
        hits, answers = ((drawn * part).cumsum(1)[:, last].astype(np.float64) for part in (own[order] > 0, 1))
        recall = hits / np.maximum(hits[:, -1:], 1)
        precision = (np.diff(recall, prepend=0.0) * hits / np.maximum(answers, 1)).sum(1)
        found.append(np.where(hits[:, -1] > 0, precision, np.nan))
    return mean_of_drawn(np.stack(found, 1))


def drawn_macro_f1s(probability: Probability, label: Labels, times: NDArray[np.int64]) -> Floats:
    """The macro F1 of each draw, in the same way."""
    hits, given, true = drawn_counts(probability, label, times)
    return mean_of_drawn(np.where(true > 0, f1_of(hits, given, true), np.nan))


def drawn_micro_f1s(probability: Probability, label: Labels, times: NDArray[np.int64]) -> Floats:
    """The micro F1 of each draw, in the same way."""
    return f1_of(*(part.sum(1) for part in drawn_counts(probability, label, times)))


def drawn_counts(probability: Probability, label: Labels, times: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """For each draw and class the right answers, the answers, and the true labels, "r k"."""
    given, true = probability >= UNKNOWN, label > 0
    hits, answers, own = (times.astype(np.float64) @ part for part in (given & true, given, true))
    return hits, answers, own


def mean_of_drawn(values: Floats) -> Floats:
    """The mean of "r k" values over the classes with a video in the draw; 0 without any."""
    known = ~np.isnan(values)
    found: Floats = np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1)
    return found


def cross_entropies(probability: Probability, label: Labels) -> Floats:
    """The binary cross-entropy of each video, "n", the mean over classes."""
    right = np.where(label > 0, probability, 1 - probability.astype(np.float64))
    found: Floats = -np.log(np.maximum(right, LEAST)).mean(1)
    return found


def class_calibration_error(probability: Probability, label: Labels) -> float:
    """The mean over classes of the distance between a label's probability and its frequency, 0 to 1."""
    return mean_of_known(
        np.array(
            [
                calibration_error(reliability_of(p.astype(np.float64), y > 0))
                for p, y in zip(probability.T, label.T, strict=True)
            ]
        ),
        label,
    )


def thresholds(probability: Probability, label: Labels) -> list[float]:
    """The probability from which on each class's label is answered: that with the best F1 on these videos.

    It is halfway to the next lower probability; ties go to the highest. UNKNOWN for a class that no video has, or all
    have.
    """
    return [threshold(p, y) for p, y in zip(probability.T, label.T, strict=True)]


def threshold(score: Probability, label: Labels) -> float:
    """That of one class, from "n" probabilities and labels."""
    if not label.any() or label.all():
        return UNKNOWN
    falling, precision, recall = curve(score, label)
    both = precision + recall
    best = int(np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both > 0).argmax())
    lower = falling[best + 1] if best + 1 < len(falling) else 0.0
    return max(float(falling[best] + lower) / 2, LEAST)
