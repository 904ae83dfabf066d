"""Occlusion: the evidence for a class that a clip loses with each part of it.

Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2, in time as well.
Shapes: a clip is uint8 "t c h w"; n m o count the cells of a grid along t, h and w, and b clips, or removals of one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from einops import rearrange
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from aim.engine.scores.tasks import SINGLE_LABEL, Task
from aim.ground.errors import UserError

Predict = Callable[[Tensor], Tensor]  # clips, uint8 "b t c h w" -> probabilities "b k"


@dataclass(frozen=True)
class Grid:
    """Cells that a clip falls into: the frames, and the pixels down and across, at which they begin, and the ends."""

    borders: tuple[Sequence[int], Sequence[int], Sequence[int]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The cells along time, down and across: n m o."""
        n, m, o = (len(borders) - 1 for borders in self.borders)
        return n, m, o

    def spread(self, cells: Tensor) -> Tensor:
        """Give each pixel the value of its cell: "... n m o" -> "... t h w"."""
        for axis, borders in zip((-3, -2, -1), self.borders, strict=True):
            sizes = torch.tensor(borders).diff()
            cells = cells.repeat_interleave(sizes, dim=axis)
        return cells

    def windows(self) -> Tensor:
        """Boxes of two cells along each axis, if it has two, each shifted by one cell: bool "b n m o"."""
        places = [range(max(1, count - 1)) for count in self.shape]
        found = torch.zeros(len(places[0]) * len(places[1]) * len(places[2]), *self.shape, dtype=torch.bool)
        for box, (i, j, k) in zip(found, product(*places), strict=True):
            box[i : i + 2, j : j + 2, k : k + 2] = True
        return found


def grid(pixels: tuple[int, int, int], tokens: tuple[int, int, int], cells: int | None = None) -> Grid:
    """About `cells` cells along each axis of a clip of `pixels` "t h w", of whole tokens if there are enough.

    Without `cells` every token is one. Along time a frame is the least.
    """
    if cells is not None and cells < 2:
        raise UserError(f"cells={cells} tells no part of a clip from another; use 2 or more")
    borders = []
    for axis, (size, count) in enumerate(zip(pixels, tokens, strict=True)):
        wanted = count if cells is None else min(cells, size if axis else count)
        unit = size // count if count >= wanted else 1
        borders.append([round(i * (size // unit) / wanted) * unit for i in range(wanted + 1)])
    return Grid((borders[0], borders[1], borders[2]))


def blurred(clip: Tensor) -> Tensor:
    """The replacement of removed cells: the frames without anything smaller than a quarter of them."""
    sigma = min(clip.shape[-2:]) / 8
    kernel = 2 * int(2 * sigma) + 1
    found: Tensor = gaussian_blur(clip, [kernel, kernel], [sigma, sigma])
    return found


@dataclass(frozen=True)
class Decision:
    """A model's decision for a class on one clip, and the parts of the clip for its explanation."""

    predict: Predict
    clip: Tensor  # uint8 "t c h w"
    label: int
    grid: Grid
    filling: Tensor  # uint8 "t c h w": the replacement of removed cells
    batch_size: int
    task: Task = SINGLE_LABEL

    def evidence(self, probability: Tensor) -> Tensor:
        """Log-odds "b" of the class: they stay sensitive for a confident model."""
        return self.task.evidence(probability, self.label)

    def without(self, where: Tensor) -> Tensor:
        """Probabilities "b k" of copies of the clip without the cells `where`, bool "b n m o"."""
        return torch.cat([self.predict(self.removed(some)) for some in torch.split(where, self.batch_size)])

    def removed(self, where: Tensor) -> Tensor:
        """Copies of the clip without the cells `where`, bool "b n m o": uint8 "b t c h w"."""
        mask = rearrange(self.grid.spread(where), "b t h w -> b t 1 h w")
        return torch.where(mask, self.filling, self.clip)

    def still(self) -> Tensor:
        """A copy of the clip for each cell of time, its frames replaced by the one before: uint8 "n t c h w".

        For the first cell it is the one after.
        """
        steps = self.grid.borders[0]
        copies = self.clip.repeat(len(steps) - 1, 1, 1, 1, 1)
        for copy, begin, end in zip(copies, steps[:-1], steps[1:], strict=True):
            copy[begin:end] = self.clip[begin - 1 if begin else min(end, len(self.clip) - 1)]
        return copies

    @property
    def whole(self) -> Tensor:
        """The evidence in the unchanged clip, "1"."""
        return self.evidence(self.predict(self.clip[None]))


def of_time(decision: Decision) -> Tensor:
    """The evidence lost when each cell of time in turn stands still: "n"."""
    found = torch.cat([decision.predict(some) for some in torch.split(decision.still(), decision.batch_size)])
    return decision.whole - decision.evidence(found)


def of_space_time(decision: Decision) -> Tensor:
    """The evidence of each cell, "n m o": the mean loss over the removed windows that contain it."""
    windows = decision.grid.windows()
    lost = decision.whole - decision.evidence(decision.without(windows))
    return torch.einsum("b, b n m o -> n m o", lost, windows.to(lost.dtype)) / windows.sum(0)
