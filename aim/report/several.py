"""A test with several labels a video: each class, co-occurring labels, and the surest wrong answers.

Shapes: n videos, k classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aim.engine.scores import quality, several
from aim.engine.scores.predictions import Predictions
from aim.report.charts import Matrix, matrix_of


@dataclass(frozen=True)
class ClassAnswers:
    """A class of a test; percentages, None if no video has it, or none is given it."""

    name: str
    videos: int
    share: float  # of the videos: the average precision of one answer to all
    average_precision: float | None
    threshold: float  # of calibrated probability
    precision: float | None  # of the answers from the threshold on
    recall: float | None
    f1: float | None
    calibration_error: float  # of the calibrated probability


def calibrated(found: Predictions) -> NDArray[np.floating]:
    """Probabilities "n k", like aim.predict's."""
    temperature = found.about.get("temperature")
    return found.probability if temperature is None else found.tempered(temperature)


def given(found: Predictions) -> NDArray[np.bool_]:
    """The labels of aim.predict, "n k"."""
    return found.given(found.about.get("temperature"))


def by_class(found: Predictions) -> list[ClassAnswers]:
    """All classes, those with the highest average precision first, those without videos last."""
    probability, answers, n = calibrated(found), given(found), max(1, len(found.label))
    precision = several.average_precisions(found.probability, found.label)
    least = found.thresholds or [several.UNKNOWN] * len(found.classes)
    rows = []
    for i, name in enumerate(found.classes.tolist()):
        true = found.label[:, i] > 0
        videos, told, right = (int(part.sum()) for part in (true, answers[:, i], true & answers[:, i]))
        bins = quality.reliability_of(probability[:, i].astype(np.float64), true)
        rows.append(
            ClassAnswers(
                name=name,
                videos=videos,
                share=100 * videos / n,
                average_precision=100 * float(precision[i]) if videos else None,
                threshold=least[i],
                precision=100 * right / told if told else None,
                recall=100 * right / videos if videos else None,
                f1=200 * right / (told + videos) if videos else None,
                calibration_error=100 * quality.calibration_error(bins),
            )
        )
    return sorted(rows, key=lambda row: -1.0 if row.average_precision is None else row.average_precision, reverse=True)


def together(found: Predictions) -> Matrix:
    """The number of videos with each pair of labels, on the diagonal with each label: (listed, given)."""
    return matrix_of(*(part.T @ part for part in ((found.label > 0).astype(int), given(found).astype(int))))


def worst_misses(found: Predictions, most: int) -> list[tuple[int, int]]:
    """Places (video, class) of missed labels, the least probable first."""
    return _surest((found.label > 0) & ~given(found), -calibrated(found), most)


def worst_alarms(found: Predictions, most: int) -> list[tuple[int, int]]:
    """Places (video, class) of wrongly given labels, the most probable first."""
    return _surest((found.label == 0) & given(found), calibrated(found), most)


def _surest(wrong: NDArray[np.bool_], sure: NDArray[np.floating], most: int) -> list[tuple[int, int]]:
    places = np.argwhere(wrong)
    order = (-sure[wrong]).argsort(kind="stable")[:most]
    return [(int(row), int(column)) for row, column in places[order]]
