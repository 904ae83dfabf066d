"""The one table of metrics, METRICS: a validation, `train.best_by`, `results.json`, reports and studies read it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aim.engine.scores import several
from aim.engine.scores.quality import (
    Label,
    Probability,
    best,
    brier,
    calibration_error,
    cross_entropies,
    reliability,
    right,
)
from aim.ground.errors import UserError, nearest


@dataclass(frozen=True)
class Metric:
    """A metric of probabilities "n k" and labels: "n", or of several labels a video "n k"."""

    name: str  # in results.json
    words: str
    better: Literal["high", "low"]
    unit: Literal["percent", "share", "number"]  # in results.json; its function returns shares for percentages
    validated: str | None  # its name in log.jsonl, after val_, and for train.best_by; None: only in a test
    per_video: Callable[[Probability, Label], NDArray[np.float64]] | None = None  # "n", whose mean it is
    of_all: Callable[[Probability, Label], float] | None = None  # if it's no mean over videos
    of_draws: Callable[[Probability, Label, Label], NDArray[np.float64]] | None = (
        None  # "r" of these, with counts of videos "r n"
    )
    chance: Callable[[int], float] | None = None  # of guessing, by the number of classes; studies have these metrics
    least_classes: int = 1  # meaningless with fewer
    main: bool = False  # shown for every validation and test, at equal rank
    labels: Literal["one", "several"] = "one"  # of a video
    constant: Callable[[Label], float] | None = None  # the best of one answer to all; None: that of the prior
    constant_words: str = "one answer to all"

    def __post_init__(self) -> None:
        assert (self.per_video is None) != (self.of_all is None), f"{self.name} is per video or of all"

    def value(self, probability: Probability, label: Label) -> float:
        """Of all videos, in its unit; 0 without any."""
        if not len(label):
            return 0.0
        factor = 100 if self.unit == "percent" else 1
        if self.of_all is not None:
            return factor * self.of_all(probability, label)
        import torch  # late, as it takes seconds, which a report saves; its sum equals the logs'

        assert self.per_video is not None
        return factor * float(torch.from_numpy(self.per_video(probability, label)).sum()) / len(label)

    def baseline(self, prior: Probability, label: Label) -> float:
        """Of one answer to all videos, in its unit; the `prior` is that answer, for each of them."""
        if self.constant is None or not len(label):
            return self.value(prior, label)
        return (100 if self.unit == "percent" else 1) * self.constant(label)

    def validation(self, probability: Probability, label: Label) -> float:
        """The same for a validation: without videos a loss is NaN, which is never the best."""
        return self.value(probability, label) if len(label) or self.better == "high" else float("nan")

    def improves(self, new: float, old: float) -> bool:
        """Whether a value is better than another, and not the same."""
        return new < old if self.better == "low" else new > old

    @property
    def digits(self) -> int:
        """Behind the point, in results.json."""
        return 4 if self.unit == "percent" else 5

    def in_percent(self, value: float) -> float:
        """A percentage or share as a percentage."""
        return 100 * value if self.unit == "share" else value

    def text(self, value: float) -> str:
        """A value of it for a person."""
        return f"{value:.3f}" if self.unit == "number" else f"{self.in_percent(value):.2f} %"

    def beside(self, value: float, baseline: Mapping[str, float]) -> str:
        """A value of it for a person, and that of one answer to all videos."""
        if self.unit != "percent" or self.name not in baseline:
            return self.text(value)
        return f"{self.text(value)} ({self.constant_words} {self.text(baseline[self.name])})"

    def above(self, value: float, baseline: Mapping[str, float]) -> bool:
        """Whether it's better than one answer to all videos, if known."""
        return self.name not in baseline or self.improves(round(value, self.digits), baseline[self.name])

    @property
    def head(self) -> dict[str, str]:
        """Its description in `results.json`, for readers without this table."""
        names = ("name", "words", "better", "unit", "constant_words")
        return {name: getattr(self, name) for name in names}

    @property
    def validated_words(self) -> str:
        """Its name in a validation: cross-entropy is the loss there."""
        return self.words if self.validated == self.name else str(self.validated)


def recall(probability: Probability, label: Label) -> float:
    """The mean recall of the classes that have videos."""
    counts = confusion(best(probability), label, probability.shape[1])
    videos = counts.sum(1)
    found = counts.diagonal()[videos > 0].astype(np.float32) / videos[videos > 0].astype(np.float32)
    return float(found.astype(np.float64).mean())


def confusion(predicted: Label, label: Label, num_classes: int) -> NDArray[np.int64]:
    """Videos by class, "k k": the true one, the predicted one."""
    return np.bincount(label * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def among_five(probability: Probability, label: Label) -> NDArray[np.float64]:
    """Whether the class is among the five most probable ones, "n"; ties go to the lower class."""
    order = np.argsort(-probability, axis=1, kind="stable")[:, :5]
    found: NDArray[np.float64] = (order == label[:, None]).any(1).astype(np.float64)
    return found


def hits(probability: Probability, label: Label) -> NDArray[np.float64]:
    """Whether the most probable class is the true one, "n"."""
    return right(probability, label).astype(np.float64)


METRICS: tuple[Metric, ...] = (  # by rank
    Metric(
        "top1", "top-1", "high", "percent", "top1", per_video=hits, chance=lambda k: 1 / k, main=True,
        constant_words="largest class",
    ),
    Metric(
        "mean_class", "mean per class", "high", "percent", "mean_class", of_all=recall, main=True,
        constant_words="largest class",
    ),
    Metric(
        "top5", "top-5", "high", "percent", "top5", per_video=among_five, least_classes=6,
        constant_words="five largest classes",
    ),
    Metric(
        "cross_entropy", "cross-entropy", "low", "number", "loss", per_video=cross_entropies,
        chance=lambda k: float(np.log(k)),
    ),
    Metric("brier", "Brier score", "low", "number", None, per_video=brier, chance=lambda k: 1 - 1 / k),
    Metric(
        "calibration_error", "calibration error", "low", "share", None,
        of_all=lambda probability, label: calibration_error(reliability(probability, label)),
    ),
    Metric(
        "map", "mAP", "high", "percent", "map", of_all=several.mean_average_precision, main=True, labels="several",
        of_draws=several.drawn_precisions, constant_words="mean class share",
    ),
    Metric(
        "macro_f1", "macro F1", "high", "percent", "macro_f1", of_all=several.macro_f1, main=True, labels="several",
        of_draws=several.drawn_macro_f1s, constant=several.always_macro_f1, constant_words="every label to all",
    ),
    Metric(
        "micro_f1", "micro F1", "high", "percent", "micro_f1", of_all=several.micro_f1, labels="several",
        of_draws=several.drawn_micro_f1s, constant=several.always_micro_f1,
    ),
    Metric(
        "binary_cross_entropy", "binary cross-entropy", "low", "number", "loss", per_video=several.cross_entropies,
        chance=lambda k: float(np.log(2)), labels="several",
    ),
    Metric(
        "class_calibration_error", "calibration error per class", "low", "share", None,
        of_all=several.class_calibration_error, labels="several",
    ),
)  # fmt: skip


def of(labels: Literal["one", "several"]) -> list[Metric]:
    """The metrics of tasks with one or several labels a video."""
    return [metric for metric in METRICS if metric.labels == labels]


def main_of(found: Collection[str]) -> Metric:
    """The main metric by the names in a result, or in the lines of a log."""
    return next(
        (each for each in METRICS if each.main and (each.name in found or f"val_{each.validated}" in found)), METRICS[0]
    )


def told(found: Mapping[str, Any]) -> list[Metric]:
    """The metrics of a result that are meaningful with its number of classes."""
    most = found.get("num_classes", 1000)
    return [each for each in METRICS if each.name in found and most >= each.least_classes]


def of_validation(metrics: Sequence[Metric], name: str) -> Metric:
    """The metric of validations by this name. Raises UserError if there is none.

    The default, top-1, stands for the main metric if a task lacks it.
    """
    names = {str(metric.validated): metric for metric in metrics if metric.validated is not None}
    if name == METRICS[0].validated:
        return names.get(name, metrics[0])
    if name not in names:
        raise UserError(f"train.best_by={name!r} is not one of {', '.join(names)}{nearest(name, names)}")
    return names[name]
