"""AdaptFormer: a bottleneck beside the MLP.

Chen et al., "AdaptFormer: Adapting Vision Transformers for Scalable Visual Recognition", NeurIPS 2022, section 3.2.
On an image trunk it works frame by frame and is blind to their order; on a video trunk, as the paper's, it isn't.
"""

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from aim.adapters.interface import AdapterBase, BlockView, Place, at_least_one


@dataclass(frozen=True)
class AdaptFormer(AdapterBase):
    """The values of configs/adapter/adaptformer.yaml."""

    ratio: float
    scale: float

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        return AdaptMLPBlock(view, self)


class AdaptMLPBlock(nn.Module):
    """A frozen block with a bottleneck beside its MLP: the paper's equations for its AdaptMLP.

    Both read the normed tokens, as the paper writes it; the public code's bottleneck reads them without the norm, and
    has a dropout of 0.1 inside.
    """

    def __init__(self, view: BlockView, cfg: AdaptFormer) -> None:
        super().__init__()
        self.view, self.scale = view, cfg.scale
        self.adapters = nn.ModuleDict(
            {"mlp": Bottleneck(view.dim, at_least_one(round(view.dim * cfg.ratio), cfg.ratio))}
        )

    def forward(self, x: Tensor, rope: Tensor | None = None, **unused: None) -> Tensor:
        view = self.view
        x = view.wanted(x) + view.attend_space(view.norm1(x), rope, wanted=True)
        y = view.norm2(x)
        adapted: Tensor = self.adapters["mlp"](y)
        return x + view.mlp(y) + self.scale * adapted


class Bottleneck(nn.Module):
    """Down, ReLU, up; zero at the start."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, width), nn.Linear(width, dim)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(F.relu(self.down(x)))
        return y
