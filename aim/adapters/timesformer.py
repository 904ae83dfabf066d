"""Divided space-time attention on an image trunk: time, then space, each with weights of its own.

Bertasius et al., "Is Space-Time Attention All You Need for Video Understanding?", ICML 2021, as the public
implementation of AIM has it for its baseline.
"""

import copy
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from aim.adapters.drop_path import DropPath
from aim.adapters.interface import AdapterBase, Axis, BlockView, Place, check_image_trunk
from aim.ground.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TimeSformer(AdapterBase):
    """The values of configs/adapter/timesformer.yaml."""

    drop_path: float
    drop_path_axis: Literal["published"] | Axis
    train_norm: bool = field()  # in the YAML, without a default
    temporal: bool = True

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        check_image_trunk(view)
        if not place.temporal:
            raise UserError("adapter=timesformer attends over time in every block, which a Swin can't; use a ViT trunk")
        return DividedBlock(view, self, place)


class DividedBlock(nn.Module):
    """Attention over time, then the image model's own block."""

    def __init__(self, view: BlockView, cfg: TimeSformer, place: Place) -> None:
        super().__init__()
        self.view = view
        self.adapters = nn.ModuleDict({"time": DividedTime(view)})
        rate = cfg.drop_path * place.height
        axes = place.drop_path_axes if cfg.drop_path_axis == "published" else (cfg.drop_path_axis,) * 2
        self.drop_time, self.drop_space = (DropPath(rate, axis, view.num_frames) for axis in axes)

    def forward(self, x: Tensor, rope: Tensor | None = None, **unused: None) -> Tensor:
        view = self.view
        x = x + self.drop_time(self.adapters["time"](x))
        x = view.wanted(x) + self.drop_space(view.attend_space(view.norm1(x), rope, wanted=True))
        y: Tensor = self.drop_space(view.mlp(view.norm2(x)))
        return x + y


class DividedTime(nn.Module):
    """Attention over time with a copy of the block's own attention and norm, then a linear layer, zero at the start."""

    def __init__(self, view: BlockView) -> None:
        super().__init__()
        self.view = copy.deepcopy(view)
        for part in ("norm2", "mlp", "ls2", "gamma_2"):
            if hasattr(self.view.block, part):
                setattr(self.view.block, part, None)
        self.linear = nn.Linear(view.dim, view.dim)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(self.view.attend_time(self.view.norm1(x)))
        return y
