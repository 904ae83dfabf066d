"""Statistics of a test with their uncertainty, from a fixed seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aim.engine.scores import metrics
from aim.engine.scores.predictions import Predictions
from aim.engine.scores.quality import LEVEL

DRAWS = 10_000  # of a bootstrap
DOUBT = 0.05  # a test's error of the first kind


def interval(right: int, videos: int) -> tuple[float, float]:
    """The 95 % bootstrap interval over videos of an accuracy, in percent.

    Drawing n of n videos with replacement draws the number of right ones from a binomial distribution.
    """
    if not videos:
        return 0.0, 100.0
    drawn = np.random.default_rng(0).binomial(videos, right / videos, DRAWS)
    low, high = np.percentile(100 * drawn / videos, LEVEL)
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """Two models on the same videos: the difference of a score, second minus first, and its significance."""

    score: str
    difference: float  # in percent
    low: float  # of its 95 % interval; both ends are on one side of zero exactly if p is below `DOUBT`
    high: float
    p: float  # two-sided
    only_first: int  # videos that only it has right
    only_second: int
    videos: int

    @property
    def verdict(self) -> str:
        """Whether there is a difference, in words."""
        return "more than chance" if self.p < DOUBT else "may be chance"


def paired(first: Predictions, second: Predictions) -> list[Paired]:
    """Comparisons of two models by top-1 and mean per class, on common videos; none with several labels a video."""
    if first.several or second.several:
        return []
    ours, theirs = (dict(zip(keys(each), range(len(each.index)), strict=True)) for each in (first, second))
    both = np.array([(place, theirs[key]) for key, place in ours.items() if key in theirs], np.int64).reshape(-1, 2)
    gain = second.right[both[:, 1]].astype(np.int64) - first.right[both[:, 0]]
    label = first.label[both[:, 0]]
    videos = np.bincount(label, minlength=len(first.classes))
    even, by_class = np.full(len(label), 1 / max(1, len(label))), 1 / (videos[label] * (videos > 0).sum())
    weights = {"top1": even, "mean_class": by_class} if len(label) else {}
    return [sign_test(each.words, gain, weights[each.name]) for each in metrics.METRICS if each.name in weights]


def sign_test(score: str, gain: NDArray[np.int64], weight: NDArray[np.float64]) -> Paired:
    """A sign test of the weighted sum of gains "n", each -1, 0 or 1; with equal weights McNemar's exact test.

    Under equal models, each video that only one has right could as likely be the other's. Such a sum reaches the
    interval's half-width with probability `DOUBT`.
    """
    difference = float(gain @ weight)
    sums, probability = by_chance(weight[gain != 0], difference)
    size = np.abs(sums)
    largest = np.argsort(-size)
    margin = size[largest][np.cumsum(probability[largest]) >= DOUBT][0]
    p = float(probability[size >= abs(difference) - 1e-12].sum())
    low, high = (round(100 * float(difference + side * margin), 9) for side in (-1, 1))
    only_first, only_second = (int((gain == side).sum()) for side in (-1, 1))
    return Paired(score, 100 * difference, low, high, min(p, 1.0), only_first, only_second, len(gain))


def by_chance(weight: NDArray[np.float64], seen: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sums of these weights with random signs, and the probability of each.

    All of them for equal weights; else the `seen` one and `DRAWS` drawn ones: p is never too small.
    """
    from scipy import stats  # late, as a report of one run doesn't need it

    sizes, counts = np.unique(weight, return_counts=True)
    if len(sizes) < 2:
        n = len(weight)
        positive = np.arange(n + 1)
        return sizes.sum() * (2.0 * positive - n), stats.binom.pmf(positive, n, 0.5)
    rng = np.random.default_rng(0)
    draws = [size * (2 * rng.binomial(count, 0.5, DRAWS) - count) for size, count in zip(sizes, counts, strict=True)]
    return np.append(sum(draws), seen), np.full(DRAWS + 1, 1 / (DRAWS + 1))


def keys(found: Predictions) -> list[tuple[str, str, int]]:
    """The key of each video in any list: file, part of it, label."""
    parts = [str(span) for span in found.span.tolist()]
    return list(zip(found.path.tolist(), parts, found.label.tolist(), strict=True))


@dataclass(frozen=True)
class ClassScore:
    """A class of a test."""

    name: str
    videos: int
    right: int

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100 * self.right / max(1, self.videos)


def confusion(found: Predictions) -> NDArray[np.int64]:
    """Videos by class, "k k": the true one, the predicted one."""
    return metrics.confusion(found.predicted, found.label, len(found.classes))


def by_class(found: Predictions) -> list[ClassScore]:
    """The classes with videos, the most accurate first."""
    counts = confusion(found)
    columns = found.classes.tolist(), counts.sum(1).tolist(), counts.diagonal().tolist()
    scores = [ClassScore(*each) for each in zip(*columns, strict=True)]
    return sorted((each for each in scores if each.videos), key=lambda each: -each.accuracy)


@dataclass(frozen=True)
class Confused:
    """The frequency of confusing one class with another."""

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


def smoothed(values: Sequence[float], most: int) -> list[float]:
    """A limited number of values: the means of equal runs of them."""
    if len(values) <= most:
        return list(values)
    return [float(part.mean()) for part in np.array_split(np.asarray(values, np.float64), most)]
