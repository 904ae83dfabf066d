"""Counts that add up over batches and ranks, and are divided once, at the end."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Counts:
    """What a test saw: `confusion` int64 "k k" (true class, predicted), and how often the five best held the truth."""

    confusion: Tensor
    top5_hits: int = 0

    @classmethod
    def of(cls, scores: Tensor, label: Tensor) -> "Counts":
        """Count one batch: scores "b k", label int64 "b". Ties go to the lower class."""
        k = scores.shape[1]
        best = scores.argsort(dim=1, descending=True, stable=True)[:, :5]
        confusion = torch.bincount(label * k + best[:, 0], minlength=k * k).view(k, k)
        return cls(confusion.cpu(), int((best == label[:, None]).sum()))

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.confusion + other.confusion, self.top5_hits + other.top5_hits)

    @property
    def num_videos(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Percent."""
        return 100 * int(self.confusion.trace()) / max(1, self.num_videos)

    @property
    def top5(self) -> float:
        """Percent."""
        return 100 * self.top5_hits / max(1, self.num_videos)

    @property
    def mean_class(self) -> float:
        """The mean recall of the classes that have videos, in percent."""
        videos = self.confusion.sum(1)
        recall = self.confusion.diagonal()[videos > 0] / videos[videos > 0]
        return 100 * float(recall.double().mean()) if len(recall) else 0.0
