"""The chance level of every score: the same answer to all videos, without looking at them.

If one class has most of the videos, an untrained model can reach that class's share.
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
    several: bool = False  # labels a clip; one may be right for nearly all clips


class OneAnswer(NamedTuple):
    """The class predicted for nearly all videos, and its count."""

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
    """The value of each metric, in its unit, for one answer to all videos with these labels."""
    prior = task.prior(label, num_classes).expand(len(label), -1).numpy()
    return {each.name: round(each.baseline(prior, label.numpy()), each.digits) for each in task.metrics}


def baseline_of(result: Mapping[str, Any]) -> Mapping[str, float]:
    """The same for the list of a result; for older results by their classes."""
    if "baseline" in result or "per_class" not in result:
        known: Mapping[str, float] = result.get("baseline", {})
        return known
    videos = [each["videos"] for each in result["per_class"].values()]
    return baseline(SINGLE_LABEL, torch.from_numpy(np.repeat(np.arange(len(videos)), videos)), len(videos))


def one_answer(task: Task, probability: Tensor, label: Tensor) -> OneAnswer | None:
    """Whether probabilities "n k" have (nearly) one answer to all videos, and to those where it's wrong.

    With several labels a video, the first is often the same; then mAP and its baseline tell.
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
