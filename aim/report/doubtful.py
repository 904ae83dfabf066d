"""`doubtful.csv`: labels that are probably wrong, by confident learning (Northcutt, Jiang, Chuang, JAIR 2021).

Shapes: n videos, k classes. The probabilities must be of a model that hasn't learnt from these videos: those of a
validation or a test, or of all folds together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aim.engine.scores.metrics import confusion
from aim.engine.scores.predictions import Predictions

FILE = "doubtful.csv"
COLUMNS = ("video", "given", "proposed", "confidence", "start", "end")
NOBODY = -1  # no class is confident of the video


@dataclass(frozen=True)
class Doubt:
    """A label that is probably wrong. Of several labels a video, one is to be added where `given` is empty, or taken
    away where `proposed` is."""

    path: str
    span: tuple[float, float]  # of the file, in seconds; NaN: all of it
    given: str
    proposed: str
    confidence: float  # the probability of the proposal
    for_given: float  # and of what it replaces

    @property
    def row(self) -> list[str]:
        """Its line of the file."""
        span = ["" if np.isnan(seconds) else f"{seconds:g}" for seconds in self.span]
        return [self.path, self.given, self.proposed, f"{self.confidence:.4f}", *span]


class Doubts(NamedTuple):
    """The doubted labels of a test, the surest first, and how many more a model too weak for them would doubt."""

    labels: list[Doubt]
    left_out: int

    @property
    def text(self) -> str:
        """How many there are, and of how many the model knows too little."""
        weak = (
            f"; {self.left_out} more are left out, as the model knows too few videos of their classes, and doubts of a "
            "weak model are its own mistakes"
        )
        return f"{len(self.labels)} doubtful labels{weak if self.left_out else ''}"


class Asked(NamedTuple):
    """A question that labels answer: with one label a video its class, with several whether it has each."""

    probability: NDArray[np.floating]  # "n k"
    label: NDArray[np.int64]  # "n"
    names: Sequence[str]  # "k"


def questions(found: Predictions) -> Iterator[Asked]:
    """All that the labels of a test answer."""
    names = found.classes.tolist()
    if not found.several:
        yield Asked(found.probability, found.label, names)
        return
    for i, name in enumerate(names):
        has = found.probability[:, i]
        yield Asked(np.stack([1 - has, has], 1), found.label[:, i], ["", name])


def confident(probability: NDArray[np.floating], label: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class that a video counts for, "n", NOBODY for none (section 3.1, equation 2).

    It is one whose probability is at least the mean that its own videos give it; of several the most probable.
    """
    n, k = probability.shape
    videos = np.bincount(label, minlength=k)
    own = probability[np.arange(n), label].astype(np.float64)
    threshold = np.bincount(label, own, minlength=k) / np.maximum(1, videos)
    passes = (probability >= threshold) & (videos > 0)
    return np.where(passes.any(1), np.where(passes, probability, -1.0).argmax(1), NOBODY)


def known(likely: NDArray[np.int64], label: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """The classes "k" that are confirmed more often than they are doubted, and more often than they are proposed.

    So the diagonal of the confident joint has more than half of their row and of their column; the paper's theorems
    (section 4) ask that it's the largest of both, without which a doubt is as likely the model's mistake.
    """
    counted = likely != NOBODY
    joint = confusion(likely[counted], label[counted], k)
    diagonal = 2 * joint.diagonal()
    found: NDArray[np.bool_] = (diagonal > joint.sum(0)) & (diagonal > joint.sum(1))
    return found


def doubtful(found: Predictions) -> Doubts:
    """The doubtful labels of a test; none by a model that is right no more often than one answer to all videos."""
    labels, left_out = list[tuple[float, Doubt]](), 0
    for probability, label, names in questions(found):
        n, k = probability.shape
        if not n:
            continue
        likely = confident(probability, label)
        fit = known(likely, label, k)
        if (probability.argmax(1) == label).sum() <= np.bincount(label).max():
            fit[:] = False
        doubted = np.flatnonzero((likely != NOBODY) & (likely != label))
        for i in doubted[fit[label[doubted]] & fit[likely[doubted]]].tolist():
            own, other = float(probability[i, label[i]]), float(probability[i, likely[i]])
            span = (float(found.span[i, 0]), float(found.span[i, 1]))
            labels.append((own - other, Doubt(str(found.path[i]), span, names[label[i]], names[likely[i]], other, own)))
        left_out += len(doubted)
    surest = [doubt for _, doubt in sorted(labels, key=lambda pair: pair[0])]
    return Doubts(surest, left_out - len(surest))
