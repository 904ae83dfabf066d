"""Calibration of probabilities, fitted on a validation set: one temperature for all logits.

C. Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 4.2. It changes no view's best label.
With several labels a video, each class has its own temperature and a threshold of calibrated probability.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from aim.engine.scores import several
from aim.engine.scores.tasks import Task, Temperature

LOWEST, HIGHEST = 0.1, 10.0
PRIOR = 2.0  # weight of (log temperature)^2, or a few videos, all right, would make it overconfident
STEPS = 24  # of the search, which leaves 5e-5 of the logarithm
PART = 1024  # videos evaluated together
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Calibration:
    """Temperature and thresholds, which turn the probabilities of a test into answers."""

    temperature: Temperature | None = None
    thresholds: list[float] | None = None  # of calibrated probabilities, for any number of labels a video

    def as_text(self) -> dict[str, str]:
        """Its parts as metadata of a file."""
        return {"temperature": json.dumps(self.temperature), "thresholds": json.dumps(self.thresholds)}

    def about(self, task: Task) -> dict[str, object]:
        """Its entries in the metadata of `predictions.npz`."""
        return {"temperature": self.temperature, "thresholds": self.thresholds} if task.several else {}

    @classmethod
    def of_text(cls, text: Mapping[str, str], num_classes: int) -> "Calibration":
        """The inverse; older files lack parts. Raises ValueError and TypeError for invalid ones."""
        found = {name: json.loads(text.get(name, "null")) for name in ("temperature", "thresholds")}
        for name, value in found.items():
            alone = name == "temperature" and isinstance(value, int | float)
            numbers = [value] if alone else value or []
            if not (alone or value is None or isinstance(value, list)):
                raise TypeError(f"{name} {value!r}")
            if not all(0 < float(each) < math.inf for each in numbers):
                raise ValueError(f"{name} {value!r}")
            if not alone and value is not None and len(value) != num_classes:
                raise ValueError(f"{len(value)} {name} of {num_classes} classes")
        return cls(**found)


UNCALIBRATED = Calibration()


def fitted(task: Task, log_probability: Tensor, label: Tensor) -> Calibration:
    """The calibration on these videos: log-probabilities "n v k" of v views, labels in the task's form."""
    if not task.several:
        return Calibration(fit_temperature(task, log_probability, label))
    each = range(log_probability.shape[2])
    temperature = [fit_temperature(task, log_probability[:, :, i : i + 1], label[:, i : i + 1]) for i in each]
    probability = task.tempered(log_probability.float(), temperature).mean(1)
    return Calibration(temperature, several.thresholds(probability.numpy(), label.numpy()))


def fit_temperature(task: Task, log_probability: Tensor, label: Tensor) -> float:
    """The temperature that makes the labels most likely: log-probabilities "n v k" of v views, int64 "n".

    Views are averaged as probabilities, as in a test. No videos have temperature 1.
    """
    low, high = math.log(LOWEST), math.log(HIGHEST)
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]  # golden section search
    costs = [_cost(task, log_probability, label, x) for x in inner]
    for _ in range(STEPS):
        if costs[0] < costs[1]:
            high, inner[1], costs[1] = inner[1], inner[0], costs[0]
            inner[0] = high - GOLDEN * (high - low)
            costs[0] = _cost(task, log_probability, label, inner[0])
        else:
            low, inner[0], costs[0] = inner[0], inner[1], costs[1]
            inner[1] = low + GOLDEN * (high - low)
            costs[1] = _cost(task, log_probability, label, inner[1])
    return round(math.exp((low + high) / 2), 4)


def _cost(task: Task, log_probability: Tensor, label: Tensor, log_temperature: float) -> float:
    """The negative log-likelihood of all videos, and the prior's share."""
    total = PRIOR * log_temperature**2
    # In parts: a data set's views in float32 would take GBs.
    for views, truth in zip(torch.split(log_probability, PART), torch.split(label, PART), strict=True):
        probability = task.tempered(views.float(), math.exp(log_temperature)).mean(1)
        total -= float(task.log_likelihood(probability, truth).double().sum())
    return total
