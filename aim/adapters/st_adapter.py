"""ST-Adapter: a bottleneck whose middle is a depthwise convolution over time and space.

Pan et al., "ST-Adapter: Parameter-Efficient Image-to-Video Transfer Learning", NeurIPS 2022, section 3.3; and the form
of Liu et al., "End-to-End Temporal Action Detection with 1B Parameters Across 1000 Frames" (AdaTAD), CVPR 2024, for
trunks that read clips.
Shapes: b clips, t frames, n tokens, h w grid, d channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from aim.adapters.interface import AdapterBase, BlockView, Place, at_least_one
from aim.adapters.temporal import convolved
from aim.ground.errors import UserError


@dataclass(frozen=True)
class STAdapter(AdapterBase):
    """The values of configs/adapter/st_adapter.yaml."""

    ratio: float
    kernel: Sequence[int]  # frames, rows, columns
    before: Sequence[str]
    form: Literal["st", "adatad"] = "st"

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        if not self.before or set(self.before) - {"attention", "mlp", "next"}:
            raise UserError(
                f"adapter.before={list(self.before)}; use [attention], [mlp], [next] (block), or several of them"
            )
        if len(self.kernel) != 3 or any(size % 2 == 0 or size < 1 for size in self.kernel):
            raise UserError(f"adapter.kernel={list(self.kernel)}; use three odd sizes, as [3, 1, 1]")
        # The class token hears no neighbours, and of the last block often it alone is read.
        unread = {"next"} if place.index == place.depth - 1 and view.num_prefix_tokens else set()
        before = [name for name in self.before if name not in unread]
        return STBlock(view, self, before) if before else view.block


class STBlock(nn.Module):
    """A frozen block with ST-Adapters before its attention, its MLP or the next block."""

    def __init__(self, view: BlockView, cfg: STAdapter, before: Sequence[str]) -> None:
        super().__init__()
        self.view = view
        form = SpaceTime if cfg.form == "st" else Informative
        self.adapters = nn.ModuleDict({name: form(view, cfg.ratio, cfg.kernel) for name in before})

    def forward(self, x: Tensor, rope: Tensor | None = None, **unused: None) -> Tensor:
        view, adapters = self.view, self.adapters
        if "attention" in adapters:
            x = adapters["attention"](x)
        if "mlp" in adapters:
            x = adapters["mlp"](x + view.attend_space(view.norm1(x), rope))
        elif "next" in adapters:
            x = x + view.attend_space(view.norm1(x), rope)
        else:
            x = view.wanted(x) + view.attend_space(view.norm1(x), rope, wanted=True)
        x = x + view.mlp(view.norm2(x))
        y: Tensor = adapters["next"](x) if "next" in adapters else x
        return y


class SpaceTime(nn.Module):
    """Adds information of neighbours in time and space to the patches; class and register tokens are unchanged.

    "(b t) n d" or "(b t) h w d" -> the same. Linear throughout, and zero at the start by its convolution, as the
    public code has it.
    """

    def __init__(self, view: BlockView, ratio: float, kernel: Sequence[int]) -> None:
        super().__init__()
        self.num_frames, self.num_prefix_tokens = view.num_frames, view.num_prefix_tokens
        width = at_least_one(round(view.dim * ratio), ratio)
        self.down = nn.Linear(view.dim, width)
        time, rows, columns = kernel
        padding = (time // 2, rows // 2, columns // 2)
        self.conv = nn.Conv3d(width, width, (time, rows, columns), padding=padding, groups=width)
        self.up = nn.Linear(width, view.dim)
        for zero in (self.down.bias, self.conv.weight, self.conv.bias, self.up.bias):
            assert zero is not None
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return x + self.neighbours(x)
        patches = x[:, self.num_prefix_tokens :]
        side = math.isqrt(patches.shape[1])  # clips are square
        y = self.neighbours(rearrange(patches, "bt (h w) d -> bt h w d", h=side, w=side))
        return x + F.pad(rearrange(y, "bt h w d -> bt (h w) d"), (0, 0, self.num_prefix_tokens, 0))

    def neighbours(self, x: Tensor) -> Tensor:
        """The term added to a grid: "(b t) h w d" -> the same."""
        y = self.down(x)
        if self.conv.kernel_size[1:] == (1, 1):
            y = convolved(self.conv, rearrange(y, "(b t) h w d -> b t h w d", t=self.num_frames))
            y = rearrange(y, "b t h w d -> (b t) h w d")
        else:
            y = self.conv(rearrange(y, "(b t) h w d -> b d t h w", t=self.num_frames))
            y = rearrange(y, "b d t h w -> (b t) h w d")
        z: Tensor = self.up(y)
        return z


class Informative(SpaceTime):
    """AdaTAD's temporal-informative adapter: the neighbours are added to the bottleneck by a pointwise layer.

    It isn't linear, its output is scaled by a learned number, and it is zero at the start by its way up.
    """

    def __init__(self, view: BlockView, ratio: float, kernel: Sequence[int]) -> None:
        super().__init__(view, ratio, kernel)
        self.conv.reset_parameters()
        nn.init.zeros_(self.up.weight)
        self.point = nn.Linear(self.up.in_features, self.up.in_features)
        self.scale = nn.Parameter(torch.ones(1))

    def neighbours(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.down(x))
        y = self.conv(rearrange(hidden, "(b t) h w d -> b d t h w", t=self.num_frames))
        hidden = hidden + self.point(rearrange(y, "b d t h w -> (b t) h w d"))
        z: Tensor = self.scale * self.up(hidden)
        return z
