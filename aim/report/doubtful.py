"""`doubtful.csv`: labels that are probably wrong, by confident learning (Northcutt, Jiang, Chuang, JAIR 2021).

Shapes: n videos, k classes. The probabilities must be of a model that hasn't learnt from these videos: of a validation
or a test, or of all folds together.
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
NOBODY = -1  # the video counts for no class


@dataclass(frozen=True)
class Doubt:
    """A probably wrong label; with several labels a video, one to add (no `given`) or to remove (no `proposed`)."""

    path: str
    span: tuple[float, float]  # of the file, in seconds; NaN: all of it
    given: str
    proposed: str
    confidence: float  # the probability of the proposal
    for_given: float  # and of the replaced label

    @property
    def row(self) -> list[str]:
        """Its line of the file."""
        span = ["" if np.isnan(seconds) else f"{seconds:g}" for seconds in self.span]
        return [self.path, self.given, self.proposed, f"{self.confidence:.4f}", *span]


class Doubts(NamedTuple):
    """The doubtful labels of a test, the surest first, and the number of excluded doubts."""

    labels: list[Doubt]
    left_out: int

    @property
    def text(self) -> str:
        """The numbers of doubtful labels, and of excluded ones."""
        weak = (
            f"; {self.left_out} more are left out, as the model knows too few videos of their classes, and doubts of a "
            "weak model are its own mistakes"
        )
        return f"{len(self.labels)} doubtful labels{weak if self.left_out else ''}"


class Asked(NamedTuple):
    """A question that labels answer: a video's class or, with several labels, whether it has one."""

    probability: NDArray[np.floating]  # "n k"
    label: NDArray[np.int64]  # "n"
    names: Sequence[str]  # "k"


def questions(found: Predictions) -> Iterator[Asked]:
    """All questions of a test's labels."""
    names = found.classes.tolist()
    if not found.several:
        yield Asked(found.probability, found.label, names)
        return
    for i, name in enumerate(names):
        has = found.probability[:, i]
        yield Asked(np.stack([1 - has, has], 1), found.label[:, i], ["", name])


def confident(probability: NDArray[np.floating], label: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class for which a video counts, "n", NOBODY for none (section 3.1, equation 2).

    Its probability is at least the mean over the class's own videos; ties go to the most probable.
    """
    n, k = probability.shape
    videos = np.bincount(label, minlength=k)
    own = probability[np.arange(n), label].astype(np.float64)
    threshold = np.bincount(label, own, minlength=k) / np.maximum(1, videos)
    passes = (probability >= threshold) & (videos > 0)
    return np.where(passes.any(1), np.where(passes, probability, -1.0).argmax(1), NOBODY)


def known(likely: NDArray[np.int64], label: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """The classes "k" confirmed more often than doubted, and more often than proposed.

    So the diagonal of the confident joint has more than half of their row and of their column. The paper's theorems
    (section 4) require that it's the largest of both; otherwise a doubt is as likely the model's mistake.
    """
    counted = likely != NOBODY
    joint = confusion(likely[counted], label[counted], k)
    diagonal = 2 * joint.diagonal()
    found: NDArray[np.bool_] = (diagonal > joint.sum(0)) & (diagonal > joint.sum(1))
    return found


def doubtful(found: Predictions) -> Doubts:
    """The doubtful labels of a test; none by a model no better than one answer to all videos."""
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
