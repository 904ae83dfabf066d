"""The yardstick beside every score: the same answer to all videos, which looks at none of them.

Where one class has most of the videos, a model that has learnt nothing is right as often as that class is common.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from aim.engine.scores.tasks import SINGLE_LABEL, Task

NEARLY = 0.9  # of the videos


class Chance(NamedTuple):
    """The scores of a model that gives one answer to all clips."""

    hits: float  # the share of the clips
    loss: float
    several: bool = False  # labels a clip, of which one may be right of nearly all clips


class OneAnswer(NamedTuple):
    """The class that nearly all videos are taken for, and how many of them."""

    label: int
    taken: int
    videos: int

    def __str__(self) -> str:
        return f"{self.taken} of {self.videos} videos get one and the same answer"


def chance(task: Task, label: Tensor, num_classes: int) -> Chance:
    """Of the clips with these labels."""
    prior = task.prior(label, num_classes).expand(len(label), -1)
    loss = -task.log_likelihood(prior, label).mean()
    return Chance(float(task.hits(prior, label).float().mean()), float(loss), task.several)


def baseline(task: Task, label: Tensor, num_classes: int) -> dict[str, float]:
    """Of each metric its value, in its unit, where every video with these labels gets one answer."""
    prior = task.prior(label, num_classes).expand(len(label), -1).numpy()
    return {each.name: round(each.baseline(prior, label.numpy()), each.digits) for each in task.metrics}


def baseline_of(result: Mapping[str, Any]) -> Mapping[str, float]:
    """The same of the list of a result; by its classes, where it's older than this."""
    if "baseline" in result or "per_class" not in result:
        known: Mapping[str, float] = result.get("baseline", {})
        return known
    videos = [each["videos"] for each in result["per_class"].values()]
    return baseline(SINGLE_LABEL, torch.from_numpy(np.repeat(np.arange(len(videos)), videos)), len(videos))


def one_answer(task: Task, probability: Tensor, label: Tensor) -> OneAnswer | None:
    """Whether probabilities "n k" have (nearly) one answer to all videos, and to those for which it's wrong.

    Of several labels a video, the first is often the same, and mAP beside its baseline tells.
    """
    if not len(label) or task.several:
        return None
    answers = task.best(probability)
    most = int(answers.bincount().argmax())
    same = answers == most
    wrong = ~task.hits(torch.eye(probability.shape[1])[most].expand(probability.shape), label)
    if not wrong.any() or any(int(part.sum()) < NEARLY * len(part) for part in (same, same[wrong])):
        return None
    return OneAnswer(most, int(same.sum()), len(label))
