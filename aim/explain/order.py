"""The effect of the order of frames: a model's answers on the same frames in another order.

A model that reads frames one by one gives the same answer to all orders; any difference comes from time in its
adapters. Shapes: b clips, t frames, v views, k classes; r orders.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch import Tensor

from aim.data.loading.loader import Loader
from aim.engine.scores.tasks import SINGLE_LABEL, Task
from aim.explain.occlusion import Predict

ORDERS = ("as it is", "reversed", "shuffled", "first frame only")


def indices(num_frames: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The frames that each of ORDERS shows, "r t"."""
    frames = np.arange(num_frames)
    return np.stack([frames, frames[::-1], shuffled(num_frames, rng), 0 * frames])


def shuffled(num_frames: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A random order "t" that is neither the true one nor its reversal, if there is another."""
    frames = np.arange(num_frames)
    while True:
        found = rng.permutation(num_frames)
        if num_frames < 3 or not any(np.array_equal(found, known) for known in (frames, frames[::-1])):
            return found


def of_clip(predict: Predict, clip: Tensor, shuffles: int) -> Tensor:
    """Probabilities "r k" of a clip, uint8 "t c h w", in each of ORDERS; the mean over several shuffles."""
    rng = np.random.default_rng(0)
    orders = indices(len(clip), rng)
    mixed = np.stack([shuffled(len(clip), rng) for _ in range(shuffles)])
    found, mean = predict(clip[torch.from_numpy(orders)]), predict(clip[torch.from_numpy(mixed)]).mean(0)
    return torch.stack([mean if name == "shuffled" else p for name, p in zip(ORDERS, found, strict=True)])


@dataclass(frozen=True)
class Sensitivity:
    """The answers on a data set's videos in each of ORDERS."""

    label: Tensor  # int64 "b", or as the task has it
    probability: Tensor  # float32 "b r k", the mean over views
    task: Task = SINGLE_LABEL

    @property
    def answer(self) -> Tensor:
        """The most probable class, int64 "b r"."""
        return self.task.best(self.probability)

    @property
    def top1(self) -> list[float]:
        """Of each order, in percent."""
        return percent(self.task.hits(self.probability, self.label[:, None]))

    @property
    def of_label(self) -> list[float]:
        """The mean probability of the true class, or of a video's true classes, in each order, in percent."""
        if not self.task.several:
            return percent(self.probability[torch.arange(len(self.label)), :, self.label])
        own = self.label[self.label.any(1)].to(self.probability)  # a video without a label has no such probability
        return percent(torch.einsum("brk,bk->br", self.probability[self.label.any(1)], own / own.sum(1, keepdim=True)))

    @property
    def changed(self) -> list[float]:
        """The share of answers changed by another order, in percent."""
        return percent(self.answer != self.answer[:, :1])

    def reversals(self, most: int) -> list[tuple[int, int, int, int]]:
        """The most common changes by playing backwards: from class, to class, count, of how many."""
        before, after = self.answer[:, 0], self.answer[:, ORDERS.index("reversed")]
        pairs = Counter((i, j) for i, j in zip(before.tolist(), after.tolist(), strict=True) if i != j)
        seen = before.bincount(minlength=self.probability.shape[2]).tolist()
        return [(i, j, count, seen[i]) for (i, j), count in pairs.most_common(most)]

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """As plain values: percentages of each order, and the changes by playing backwards."""
        columns = zip(ORDERS, self.top1, self.of_label, self.changed, strict=True)
        return {
            "videos": len(self.label),
            "order": {
                order: {"top1": round(top1, 3), "probability": round(p, 3), "changed": round(changed, 3)}
                for order, top1, p, changed in columns
            },
            "reversed": [
                {"label": classes[i], "becomes": classes[j], "videos": count, "of": seen}
                for i, j, count, seen in self.reversals(10)
            ],
        }


def percent(values: Tensor) -> list[float]:
    """The mean of each column of "b r", times 100."""
    found: list[float] = (100 * values.double().mean(0)).tolist()
    return found


def of_videos(
    predict: Predict, loader: Loader, done: Callable[[int], object], task: Task = SINGLE_LABEL
) -> Sensitivity:
    """The answers on every readable video of a loader; `done` gets their number so far."""
    labels, answers = [], []
    for batch in loader.epoch(0):
        b, v, t = batch.video.shape[:3]
        picks = [indices(t, np.random.default_rng(index)) for index in batch.index.tolist()]
        frames = torch.from_numpy(np.stack(picks))  # "b r t"
        found = []
        for r in range(len(ORDERS)):
            clips = torch.stack([video[:, order] for video, order in zip(batch.video, frames[:, r], strict=True)])
            probability = predict(rearrange(clips, "b v t c h w -> (b v) t c h w"))
            found.append(reduce(probability, "(b v) k -> b k", "mean", b=b, v=v))
        read = batch.weight > 0
        labels.append(batch.label[read])
        answers.append(torch.stack(found, 1)[read])
        done(sum(map(len, labels)))
    return Sensitivity(torch.cat(labels), torch.cat(answers), task)
