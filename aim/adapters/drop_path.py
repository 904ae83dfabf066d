"""Stochastic depth over clips, frames or token positions."""

import torch
from torch import Tensor, nn

from aim.adapters.interface import Axis
from aim.ground.errors import UserError


class DropPath(nn.Module):
    """Stochastic depth with one draw per clip, frame or token position: "(b t) ... d" -> the same.

    The public code means to drop samples but drops entries of its tensors' first axis, of any meaning; `axis` names it.
    """

    kept: Tensor

    def __init__(self, rate: float, axis: Axis, num_frames: int) -> None:
        super().__init__()
        if axis not in ("clip", "frame", "position", "clip_position"):
            raise UserError(f"drop_path_axis={axis!r}; use published, clip, frame, position or clip_position")
        if not 0 <= rate < 1:
            raise UserError(f"adapter.drop_path gives a block the rate {rate:g}; use 0 or more, and less than 1")
        self.rate, self.axis, self.num_frames = rate, axis, num_frames
        self.drops = rate > 0
        # A tensor, so that blocks of different rates share a compilation.
        self.register_buffer("kept", torch.tensor(1 - rate), persistent=False)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}, axis={self.axis}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.drops:
            return x
        y = x.reshape(-1, self.num_frames, *x.shape[1:])
        clips, frames, *positions, _ = y.shape
        shape = (
            clips if self.axis != "position" else 1,
            frames if self.axis == "frame" else 1,
            *(n if "position" in self.axis else 1 for n in positions),
            1,
        )
        mask = torch.bernoulli(self.kept.expand(shape)) / self.kept
        return (y * mask.to(y.dtype)).reshape(x.shape)
