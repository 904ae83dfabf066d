"""ST-Adapter: a bottleneck whose middle is a depthwise convolution over time and space.

Pan et al., "ST-Adapter: Parameter-Efficient Image-to-Video Transfer Learning", NeurIPS 2022, section 3.3.
Shapes: b clips, t frames, n tokens, h w grid, d channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from aim.adapters.interface import BlockView, Place, Tokens, at_least_one
from aim.adapters.temporal import convolved
from aim.ground.errors import UserError


@dataclass(frozen=True)
class STAdapter:
    """The values of configs/adapter/st_adapter.yaml."""

    ratio: float
    kernel: Sequence[int]  # frames, rows, columns
    before: Sequence[str]
    trainable: Sequence[str]
    train_norm: bool = False
    temporal: bool = False

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        if not self.before or set(self.before) - {"attention", "mlp"}:
            raise UserError(f"adapter.before={list(self.before)}; use [attention], [mlp] or [attention, mlp]")
        if len(self.kernel) != 3 or any(size % 2 == 0 or size < 1 for size in self.kernel):
            raise UserError(f"adapter.kernel={list(self.kernel)}; use three odd sizes, as [3, 1, 1]")
        return STBlock(view, self)

    def readout(self, dims: Sequence[int], tokens: Tokens) -> None:
        return None


class STBlock(nn.Module):
    """A frozen block with ST-Adapters before its attention, its MLP or both."""

    def __init__(self, view: BlockView, cfg: STAdapter) -> None:
        super().__init__()
        self.view = view
        self.adapters = nn.ModuleDict({name: SpaceTime(view, cfg.ratio, cfg.kernel) for name in cfg.before})

    def forward(self, x: Tensor, rope: Tensor | None = None, **unused: None) -> Tensor:
        view, adapters = self.view, self.adapters
        if "attention" in adapters:
            x = adapters["attention"](x)
        if "mlp" in adapters:
            x = adapters["mlp"](x + view.attend_space(view.norm1(x), rope))
        else:
            x = view.wanted(x) + view.attend_space(view.norm1(x), rope, wanted=True)
        return x + view.mlp(view.norm2(x))


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
