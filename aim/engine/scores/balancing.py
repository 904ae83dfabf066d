"""Long tails: weights of classes by their numbers of training videos, and losses that compensate for these numbers.

- inverse: 1 / n; root: 1 / sqrt(n) (Mahajan et al., ECCV 2018, section 2.2, for sampling);
- effective: (1 - b) / (1 - b ** n), the inverse of the effective number of videos (Cui et al., CVPR 2019, equation 2);
- logits: the logarithm of each class's share is added to its logit only in the loss (Menon et al., ICLR 2021, equation
  10, with their tau 1): plain logits answer as if all classes were equally common.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from aim.engine.scores.tasks import MultiLabel, SingleLabel, Task

Balance = Literal["none", "loss", "sample", "logits"]
By = Literal["inverse", "root", "effective"]
Floats = NDArray[np.float64]

MOST = 100.0  # times the smallest weight: a class of one video mustn't dominate
BETA = 0.999  # of the effective number; Cui et al. try 0.9 to 0.9999
UNBALANCED = 10  # ratio of videos of two classes from which on a message appears


def frequency_weights(count: Floats, by: By) -> Floats:
    """Of classes with these numbers of videos; 0 for one without any."""
    n = np.maximum(count, 1)
    weight: Floats = {"inverse": 1 / n, "root": n**-0.5, "effective": (1 - BETA) / (1 - BETA**n)}[by]
    found: Floats = weight * (count > 0)
    return found


def class_weights(label: NDArray[np.int64], num_classes: int, by: By) -> Floats:
    """Of each class, "k", for labels "n", with a mean of 1 over the videos."""
    count = np.bincount(label, minlength=num_classes).astype(np.float64)
    weight = capped(frequency_weights(count, by))
    return weight * float(count.sum() / max(1e-12, float(weight @ count)))


def positive_weights(label: NDArray[np.int64], by: By) -> Floats:
    """Of each class, "k", for labels "n k": of the videos with it against those without; 1 if none has it."""
    having = label.sum(0).astype(np.float64)
    ratio = frequency_weights(having, by) / np.maximum(frequency_weights(len(label) - having, by), 1e-12)
    return np.where((having > 0) & (having < len(label)), np.clip(ratio, 1 / MOST, MOST), 1.0)


def video_weights(label: NDArray[np.int64], by: By) -> Floats:
    """Of each video, "n", for the order of an epoch: its class's or, with several labels, the largest.

    So the rarest label decides (Gupta et al., CVPR 2019, appendix B); a video without any counts as the commonest.
    """
    count = np.bincount(label) if label.ndim == 1 else label.sum(0)
    weight = capped(frequency_weights(count.astype(np.float64), by))
    if label.ndim == 1:
        return weight[label]
    least = weight[weight > 0].min(initial=1.0)
    found: Floats = np.maximum((label * weight).max(1, initial=0.0), least)
    return found


def capped(weight: Floats) -> Floats:
    """No more than MOST times the smallest."""
    found: Floats = np.minimum(weight, MOST * weight[weight > 0].min(initial=np.inf))
    return found


@dataclass(frozen=True, eq=False)
class WeightedLoss(SingleLabel):
    """The loss of a clip times the weight of its class."""

    weight: Tensor  # "k"

    def loss(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        own = self.weight[target] if target.ndim == 1 else target @ self.weight
        return own * super().loss(logits, target, label_smoothing)


@dataclass(frozen=True, eq=False)
class AdjustedLogits(SingleLabel):
    """The loss with the logarithm of each class's share added to its logit."""

    shift: Tensor  # "k"

    def loss(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        return super().loss(logits + self.shift, target, label_smoothing)


@dataclass(frozen=True, eq=False)
class WeightedLabels(MultiLabel):
    """The loss with a weight for each class on a video's labels."""

    weight: Tensor  # "k"

    def loss(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        wanted = self.smoothed(target, label_smoothing)
        weight = self.weight * self.positive_weight
        return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight, reduction="none").mean(1)


def balanced(task: Task, balance: Balance, by: By, label: Tensor, num_classes: int) -> Task:
    """The task with a loss that compensates for the numbers of videos with these labels, on their device."""
    own = label.cpu().numpy()
    if balance == "loss" and isinstance(task, MultiLabel):
        return WeightedLabels(task.positive_weight, _on(label, positive_weights(own, by)))
    if balance == "loss":
        return WeightedLoss(_on(label, class_weights(own, num_classes, by)))
    if balance == "logits":
        share = np.maximum(np.bincount(own, minlength=num_classes), 1) / max(1, len(own))
        return AdjustedLogits(_on(label, np.log(share)))
    return task


def _on(like: Tensor, values: Floats) -> Tensor:
    return torch.from_numpy(values).float().to(like.device)
