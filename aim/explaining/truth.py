"""Whether a map finds what a video shows, where that is known: the shape in the demo's videos, and only it, moves."""

from pathlib import Path

import torch
from torch import Tensor

from aim.data.sources.moving_shapes import MovingShapes


def shape_in(source: MovingShapes, path: str) -> Tensor:
    """Where the shape is seen in a video of the demo, named as in its lists: bool "t h w"."""
    split, name, file = Path(path).parts[-3:]
    pair, backwards = divmod(source.classes.index(name), 2)
    mask = torch.from_numpy(source.film(split, pair, int(Path(file).stem)).mask())
    return mask.flip(0) if backwards else mask


def share_inside(relevance: Tensor, mask: Tensor) -> float:
    """The share of what speaks for the class, of a map "t h w", that lies inside a bool mask of the same shape."""
    positive = relevance.clamp_min(0)
    return float((positive * mask).sum() / positive.sum().clamp_min(torch.finfo(positive.dtype).tiny))


def points_inside(relevance: Tensor, mask: Tensor) -> bool:
    """The pointing game: whether the largest value of a map "t h w" lies inside a bool mask of the same shape.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 4.2, without its margin.
    """
    return bool(mask.flatten()[relevance.flatten().argmax()])
