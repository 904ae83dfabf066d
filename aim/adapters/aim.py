"""AIM's adapters (Yang et al., "Adapting Image Models for Efficient Video Action Recognition", ICLR 2023, section 3).

Shapes: b clips, t frames (after tubelets), n tokens of a frame or its h w grid, d channels. Frames are folded
into the batch: blocks see "(b t) n d" (ViT) or "(b t) h w d" (Swin); "..." stands for n or h w.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from aim.adapters.drop_path import DropPath
from aim.adapters.interface import AdapterBase, Axis, BlockView, Place, at_least_one, check_image_trunk
from aim.ground.errors import UserError


class Adapter(nn.Module):
    """Bottleneck MLP, zero at the start, so that the adapted model begins as the image model."""

    def __init__(self, dim: int, ratio: float, *, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        width = at_least_one(int(dim * ratio), ratio)
        self.down = nn.Linear(dim, width)
        self.up = nn.Linear(width, dim)
        # The public code's values: truncated normal 0.02 as the rest of a ViT, zero for the way up.
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rise(self.down(x))
        return x + y if self.skip else y

    def rise(self, hidden: Tensor) -> Tensor:
        y: Tensor = self.up(F.gelu(hidden))
        return y


@dataclass(frozen=True, kw_only=True)
class AIM(AdapterBase):
    """How AIM adapts a block; the values of configs/adapter/aim.yaml."""

    ratio: float
    scale: float  # of the joint adapter: 0.5, and 1.0 on Something-Something
    drop_path: float
    drop_path_axis: Literal["published"] | Axis
    temporal: bool = field()  # in the YAML, without a default
    temporal_in: bool  # a second temporal adapter, before the attention (Something-Something)
    spatial: bool
    joint: bool
    blocks: str  # "all", "first 6", "last 6" or "every 2"
    train_norm: bool = field()  # likewise

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        blocks = chosen(self.blocks, place.depth)
        if self.temporal:
            check_image_trunk(view)
        if self.temporal and not set(blocks).intersection(place.temporal_blocks):
            raise UserError(
                f"adapter.blocks={self.blocks!r} names none of the blocks where this trunk adapts time (of a Swin, the "
                "unshifted ones); use all, or adapter.temporal=false"
            )
        return AIMBlock(view, self, place) if place.index in blocks else view.block


class AIMBlock(nn.Module):
    """Temporal, spatial and joint adaptation of one frozen block: equations 3 to 5 of the paper."""

    def __init__(self, view: BlockView, cfg: AIM, place: Place) -> None:
        super().__init__()
        self.view, self.scale = view, cfg.scale
        temporal = cfg.temporal and place.temporal
        wanted = {
            "temporal_in": temporal and cfg.temporal_in,
            "temporal": temporal,
            "spatial": cfg.spatial,
            "joint": cfg.joint,
        }
        self.adapters = nn.ModuleDict(
            {
                name: Adapter(view.dim, cfg.ratio, skip=name in ("temporal_in", "spatial"))
                for name, there in wanted.items()
                if there
            }
        )
        axes = place.drop_path_axes if cfg.drop_path_axis == "published" else (cfg.drop_path_axis,) * 2
        self.drop_temporal, self.drop_joint = (
            DropPath(cfg.drop_path * place.height, axis, view.num_frames) for axis in axes
        )

    def forward(self, x: Tensor, rope: Tensor | None = None, **unused: None) -> Tensor:
        """timm's Eva also passes attn_mask and is_causal, which stay unset."""
        view, adapters = self.view, self.adapters
        if "temporal" in adapters:
            y = view.norm1(x)
            if "temporal_in" in adapters:
                y = adapters["temporal_in"](y)
            temporal: Any = adapters["temporal"]
            x = x + self.drop_temporal(temporal.rise(view.attend_time(y, into=temporal.down)))
        y = view.attend_space(view.norm1(x), rope, wanted=True)
        x = view.wanted(x) + (adapters["spatial"](y) if "spatial" in adapters else y)
        y = view.norm2(x)
        x = x + view.mlp(y)
        if "joint" in adapters:
            x = x + self.drop_joint(self.scale * adapters["joint"](y))
        return x


def chosen(blocks: str, depth: int) -> range:
    """The indices that "all", "first n", "last n" or "every n" (the n-th, 2n-th, ...) name among `depth` blocks."""
    word, _, count = blocks.partition(" ")
    if word == "all" and not count:
        return range(depth)
    if word in ("first", "last", "every") and count.isdecimal() and 1 <= int(count) <= depth:
        n = int(count)
        return {"first": range(n), "last": range(depth - n, depth), "every": range(n - 1, depth, n)}[word]
    raise UserError(f"adapter.blocks={blocks!r}; use all, 'first n', 'last n' or 'every n' with n from 1 to {depth}")
