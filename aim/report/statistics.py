"""Statistics of a test with their uncertainty: NumPy alone, a fixed seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aim.engine.scores import metrics
from aim.engine.scores.predictions import Predictions
from aim.engine.scores.quality import LEVEL

DRAWS = 10_000  # of a bootstrap


def interval(right: int, videos: int) -> tuple[float, float]:
    """The 95 % bootstrap interval over videos of an accuracy, in percent.

    Drawing n of n videos with replacement draws their number of right ones from a binomial distribution.
    """
    if not videos:
        return 0.0, 100.0
    drawn = np.random.default_rng(0).binomial(videos, right / videos, DRAWS)
    low, high = np.percentile(100 * drawn / videos, LEVEL)
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """Two models on the same videos: how many each alone has right, and whether that may be chance."""

    videos: int
    only_first: int
    only_second: int
    p: float  # of McNemar's exact test, two-sided
    low: float  # of the difference, second minus first, in percent: 95 % bootstrap interval over videos
    high: float

    @property
    def difference(self) -> float:
        """Second minus first, in percent."""
        return 100 * (self.only_second - self.only_first) / max(1, self.videos)


def paired(first: Predictions, second: Predictions) -> Paired:
    """Compare two models on the videos that both could read."""
    ours, theirs = (dict(zip(keys(each), each.right.tolist(), strict=True)) for each in (first, second))
    both = [(ours[key], theirs[key]) for key in ours if key in theirs]
    only_first, only_second = (sum(a and not b for a, b in pairs) for pairs in (both, [(b, a) for a, b in both]))
    n = max(1, len(both))
    shares = np.array([only_first, only_second, n - only_first - only_second]) / n
    drawn = np.random.default_rng(0).multinomial(n, shares, DRAWS)
    low, high = np.percentile(100 * (drawn[:, 1] - drawn[:, 0]) / n, LEVEL)
    return Paired(len(both), only_first, only_second, mcnemar(only_first, only_second), float(low), float(high))


def keys(found: Predictions) -> list[tuple[str, str, int]]:
    """What tells a video from others in any list: file, part of it, label."""
    parts = [str(span) for span in found.span.tolist()]
    return list(zip(found.path.tolist(), parts, found.label.tolist(), strict=True))


def mcnemar(only_first: int, only_second: int) -> float:
    """The probability of a split at least as uneven if either model were as likely to be the right one.

    McNemar's test in its exact form: twice the tail of a binomial distribution of one half.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    term, tail = 1, 0
    for i in range(fewer + 1):
        tail += term
        term = term * (n - i) // (i + 1)
    return float(min(1.0, 2 * tail / 2**n))


@dataclass(frozen=True)
class ClassScore:
    """A class of a test."""

    name: str
    videos: int
    right: int
    taken_for: str  # the class that most of its videos are mistaken for; empty without mistakes

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.right / max(1, self.videos)


def confusion(found: Predictions) -> NDArray[np.int64]:
    """Videos by class, "k k": the true one, the predicted one."""
    return metrics.confusion(found.predicted, found.label, len(found.classes))


def by_class(found: Predictions) -> list[ClassScore]:
    """The classes that have videos, the most accurate first."""
    counts = confusion(found)
    scores = []
    for i, name in enumerate(found.classes.tolist()):
        wrong = counts[i].copy()
        wrong[i] = 0
        taken_for = str(found.classes[wrong.argmax()]) if wrong.any() else ""
        scores.append(ClassScore(name, int(counts[i].sum()), int(counts[i, i]), taken_for))
    return sorted((each for each in scores if each.videos), key=lambda each: -each.accuracy)


@dataclass(frozen=True)
class Confused:
    """How often videos of one class are taken for another."""

    true: str
    predicted: str
    count: int
    videos: int  # of the true class

    @property
    def share(self) -> float:
        """In percent of the true class's videos."""
        return 100 * self.count / self.videos


def most_confused(found: Predictions, most: int) -> list[Confused]:
    """The pairs of classes with the most mistakes."""
    counts = confusion(found)
    videos = counts.sum(1)
    np.fill_diagonal(counts, 0)
    order = counts.ravel().argsort(kind="stable")[::-1][:most]
    pairs = [divmod(int(at), len(counts)) for at in order if counts.flat[at]]
    names = found.classes.tolist()
    return [Confused(names[i], names[j], int(counts[i, j]), int(videos[i])) for i, j in pairs]


def worst_mistakes(found: Predictions, most: int) -> list[int]:
    """Places of the wrong videos, the surest first."""
    wrong = np.flatnonzero(~found.right)
    return [int(i) for i in wrong[found.confidence[wrong].argsort(kind="stable")[::-1][:most]]]


def least_sure(found: Predictions, most: int) -> list[int]:
    """Places of the right videos, the least sure first."""
    right = np.flatnonzero(found.right)
    return [int(i) for i in right[found.confidence[right].argsort(kind="stable")[:most]]]


@dataclass(frozen=True)
class Doubt:
    """A label that is probably wrong."""

    path: str
    label: str
    likely: str  # the class that it probably is
    for_likely: float  # the model's probability of that, in percent
    for_label: float


def doubted_labels(found: Predictions, most: int) -> list[Doubt]:
    """Labels that confident learning takes for errors (Northcutt et al., JAIR 2021, section 3.1), the surest first.

    A video counts for a class whose probability is at least the mean that the class's own videos give it; of several
    for the most probable. It's doubted where that isn't its label.
    """
    n, k = found.probability.shape
    own = found.probability[np.arange(n), found.label].astype(np.float64)
    videos = np.bincount(found.label, minlength=k)
    threshold = np.bincount(found.label, own, minlength=k) / np.maximum(1, videos)
    confident = (found.probability >= threshold) & (videos > 0)
    likely = np.where(confident, found.probability, -1.0).argmax(1)
    doubted = np.flatnonzero(confident.any(1) & (likely != found.label))
    other = found.probability[np.arange(n), likely]
    order = doubted[(other - own)[doubted].argsort(kind="stable")[::-1][:most]]
    return [
        Doubt(
            str(found.path[i]),
            str(found.classes[found.label[i]]),
            str(found.classes[likely[i]]),
            100 * float(other[i]),
            100 * float(own[i]),
        )
        for i in order
    ]


def smoothed(values: Sequence[float], most: int) -> list[float]:
    """At most so many values: the means of equal runs of them."""
    if len(values) <= most:
        return list(values)
    return [float(part.mean()) for part in np.array_split(np.asarray(values, np.float64), most)]
