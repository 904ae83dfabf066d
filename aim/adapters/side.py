"""A side network: a narrow video model that reads every block of the frozen trunk and gives nothing back to it.

In the spirit of Yao et al., "Side4Video: Spatial-Temporal Side Network for Memory-Efficient Image-to-Video Transfer
Learning", 2023, section 3.2, and Qing et al., "Disentangling Spatial and Temporal Learning for Efficient Image-to-Video
Transfer Learning" (DiST), ICCV 2023, section 3; it is neither to the letter. The difference of neighbouring frames as a
further input is that of Wang et al., "TDS-CLIP: Temporal Difference Side Network for Efficient Video Action
Recognition", 2024, its temporal difference adapter, in its simplest form. No gradient enters the trunk, so that none of
the trunk's activations is kept, except the features that a layer reads.
Shapes: b clips, t frames, n tokens, h w grid, d channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from aim.adapters.attentive_probe import num_heads
from aim.adapters.interface import AdapterBase, Readout, Tokens, at_least_one
from aim.adapters.temporal import convolved
from aim.ground.errors import UserError
from aim.ground.marks import Before


@dataclass(frozen=True)
class Side(AdapterBase):
    """The values of configs/adapter/side.yaml."""

    ratio: float
    kernel: int  # frames
    mlp_ratio: float
    difference: Annotated[bool, Before(False)]  # to the frame before, as a further input

    def readout(self, dims: Sequence[int], tokens: Tokens) -> Readout:
        if self.kernel % 2 == 0 or self.kernel < 1:
            raise UserError(f"adapter.kernel={self.kernel} has no middle; use an odd number of frames, as 3")
        return SideNetwork(dims, tokens.num_prefix_tokens, self)


class SideNetwork(Readout):
    """A layer for each block of the trunk (each stage of a Swin), in turn; then the mean over tokens: -> "b t d"."""

    def __init__(self, dims: Sequence[int], num_prefix_tokens: int, cfg: Side) -> None:
        super().__init__()
        self.dim = at_least_one(round(dims[-1] * cfg.ratio), cfg.ratio)
        self.layers = nn.ModuleList(SideLayer(dim, self.dim, num_prefix_tokens, cfg) for dim in dims)
        self.norm = nn.LayerNorm(self.dim)

    def forward(self, blocks: Sequence[Tensor], last: Tensor) -> Tensor:
        x: Tensor | None = None
        for layer, features in zip(self.layers, blocks, strict=True):
            x = layer(x, features)
        assert x is not None
        y: Tensor = self.norm(x).mean(2)
        return y


class SideLayer(nn.Module):
    """Takes in a block's features, convolves each token over time, then attends within the frame: -> "b t n d".

    The convolution starts at random, for there is no image model to equal: from zero the demo learns far slower.
    """

    def __init__(self, dim: int, width: int, num_prefix_tokens: int, cfg: Side) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)  # weights would keep another copy of the features
        self.project = nn.Linear(dim, width)
        self.change = Change(width, num_prefix_tokens) if cfg.difference else nn.Identity()
        self.temporal = nn.Conv1d(width, width, cfg.kernel, padding=cfg.kernel // 2, groups=width)
        self.spatial = Block(width, num_heads(width), mlp_ratio=cfg.mlp_ratio, qkv_bias=True)

    def forward(self, x: Tensor | None, features: Tensor) -> Tensor:
        y: Tensor = self.change(self.project(self.norm(features)))
        x = y if x is None else shrink(x, y.shape[2]) + y
        t = x.shape[1]
        x = self.spatial(rearrange(x + convolved(self.temporal, x), "b t n d -> (b t) n d"))
        return rearrange(x, "(b t) n d -> b t n d", t=t)


class Change(nn.Module):
    """Adds each patch's change since the frame before, convolved with those around it: "b t n d" -> the same.

    A gate for each channel is closed at the start. The first frame and class and register tokens are unchanged.
    """

    def __init__(self, width: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.num_prefix_tokens = num_prefix_tokens
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        patches = x[:, :, self.num_prefix_tokens :]
        b, side = x.shape[0], math.isqrt(patches.shape[2])  # clips are square
        y = self.conv(rearrange(patches[:, 1:] - patches[:, :-1], "b t (h w) d -> (b t) d h w", h=side))
        y = self.gate * rearrange(y, "(b t) d h w -> b t (h w) d", b=b)
        return x + F.pad(y, (0, 0, self.num_prefix_tokens, 0, 1, 0))


def shrink(x: Tensor, n: int) -> Tensor:
    """Average "b t n d" over cells to n tokens, where a Swin's stage has done so with its square grid."""
    if x.shape[2] == n:
        return x
    t, side = x.shape[1], math.isqrt(x.shape[2])
    y = F.adaptive_avg_pool2d(rearrange(x, "b t (h w) d -> (b t) d h w", h=side, w=side), math.isqrt(n))
    return rearrange(y, "(b t) d h w -> b t (h w) d", t=t)
