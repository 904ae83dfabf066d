"""AIM's adapters (Yang et al., "Adapting Image Models for Efficient Video Action Recognition", ICLR 2023, section 3).

Shapes: b clips, t frames (after tubelets), n tokens of a frame or its h w grid, d channels. Frames are folded
into the batch: blocks see "(b t) n d" (ViT) or "(b t) h w d" (Swin); "..." stands for n or h w.

An adapter family is a frozen dataclass with the methods of `AdapterConfig`. It has three seams:
- `BlockView`: the parts of a frozen block as functions, for what stands beside or around them (AIM);
- `view.block`: the timm block itself, whose linear layers `linears` lists, for what goes inside them (LoRA);
- `readout`: a module over the frozen features of all blocks, for what only reads them (probes, side networks).
Every module it adds sits under a name `adapters`, so that the one pattern `*.adapters.*` says what is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from aim.errors import UserError

Axis = Literal["clip", "frame", "position", "clip_position"]


class BlockView(Protocol):
    """What an adapter may ask of a frozen transformer block, whatever its family.

    `rope` is what the trunk hands to its blocks beside the tokens (rotary positions of a frame), or None.
    """

    @property
    def block(self) -> nn.Module: ...  # of timm; an adapter may change it in place and return it
    @property
    def dim(self) -> int: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def num_prefix_tokens(self) -> int: ...  # class and register tokens, which come before the patches

    def norm1(self, x: Tensor) -> Tensor: ...
    def norm2(self, x: Tensor) -> Tensor: ...
    def mlp(self, x: Tensor) -> Tensor: ...
    def attend_space(self, x: Tensor, rope: Tensor | None = None) -> Tensor: ...
    def attend_time(self, x: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Place:
    """Where a block stands: the `index`-th of `depth`, and in which blocks its family adapts time."""

    index: int
    depth: int
    temporal_blocks: Sequence[int]
    drop_path_axes: tuple[Axis, Axis]  # the published ones of the temporal and the joint branch

    @property
    def height(self) -> float:
        """0 for the first block, 1 for the last."""
        return self.index / max(1, self.depth - 1)

    @property
    def temporal(self) -> bool:
        """Whether time is adapted here."""
        return self.index in self.temporal_blocks


class AdapterConfig(Protocol):
    """An adapter family: a frozen dataclass that maps a view to a block."""

    @property
    def trainable(self) -> Sequence[str]: ...  # glob patterns of names
    @property
    def train_norm(self) -> bool: ...  # also what the backbone's own `trainable` patterns name: the trunk's last norm
    @property
    def temporal(self) -> bool: ...  # the model has a temporal embedding

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        """The block that stands in the frozen one's place."""
        ...

    def readout(self, dims: Sequence[int], num_frames: int) -> "Readout | None":
        """What reads the features of blocks of these widths; None where the trunk's own pooling does."""
        ...


class Readout(nn.Module):
    """Base of a module `(blocks: list["b t n d"], last: "b t n d") -> "b t dim"`.

    `blocks` are the features after each block (after each stage of a Swin), class and register tokens included and
    first; `last` are those of the last one after the trunk's norm.
    """

    dim: int


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
        y: Tensor = self.up(F.gelu(self.down(x)))
        return x + y if self.skip else y


def at_least_one(width: int, ratio: float) -> int:
    """The width of a bottleneck. Raises UserError where `adapter.ratio` leaves nothing of it."""
    if width < 1:
        raise UserError(f"adapter.ratio={ratio:g} leaves a bottleneck no channel; use more, as 0.25")
    return width


class DropPath(nn.Module):
    """Stochastic depth with one draw per clip, frame or token position: "(b t) ... d" -> the same.

    The public code means to drop samples and drops whatever its tensors' first axis is; `axis` names it.
    """

    def __init__(self, rate: float, axis: Axis, num_frames: int) -> None:
        super().__init__()
        if axis not in ("clip", "frame", "position", "clip_position"):
            raise UserError(f"drop_path_axis={axis!r}; use published, clip, frame, position or clip_position")
        if not 0 <= rate < 1:
            raise UserError(f"adapter.drop_path gives a block the rate {rate:g}; use 0 or more, and less than 1")
        self.rate, self.axis, self.num_frames = rate, axis, num_frames

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}, axis={self.axis}"

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        y = x.reshape(-1, self.num_frames, *x.shape[1:])
        clips, frames, *positions, _ = y.shape
        mask = y.new_empty(
            clips if self.axis != "position" else 1,
            frames if self.axis == "frame" else 1,
            *(n if "position" in self.axis else 1 for n in positions),
            1,
        )
        kept = mask.bernoulli_(1 - self.rate).div_(1 - self.rate)
        return (y * kept).reshape(x.shape)


@dataclass(frozen=True)
class Plain:
    """Leaves every block as it is: a linear probe, or full fine-tuning where `trainable` says so."""

    trainable: Sequence[str] = ()
    train_norm: bool = False
    temporal: bool = False

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        return view.block

    def readout(self, dims: Sequence[int], num_frames: int) -> None:
        return None


@dataclass(frozen=True)
class AIM:
    """How AIM adapts a block; the values of configs/adapter/aim.yaml."""

    ratio: float
    scale: float  # of the joint adapter: 0.5, and 1.0 on Something-Something
    drop_path: float
    drop_path_axis: Literal["published"] | Axis
    temporal: bool
    temporal_in: bool  # a second temporal adapter, before the attention (Something-Something)
    spatial: bool
    joint: bool
    blocks: str  # "all", "first 6", "last 6" or "every 2"
    trainable: Sequence[str]
    train_norm: bool

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        blocks = chosen(self.blocks, place.depth)
        if self.temporal and not set(blocks).intersection(place.temporal_blocks):
            raise UserError(
                f"adapter.blocks={self.blocks!r} names none of the blocks where this trunk adapts time (of a Swin, the "
                "unshifted ones); use all, or adapter.temporal=false"
            )
        return AIMBlock(view, self, place) if place.index in blocks else view.block

    def readout(self, dims: Sequence[int], num_frames: int) -> None:
        return None


def linears(block: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside a timm block by name: attn.qkv, attn.proj, mlp.fc1, mlp.fc2, ...

    Some of timm's attentions read `qkv.weight` without calling the layer, so change it by a parametrization of the
    weight (torch.nn.utils.parametrize) where a replaced layer would be passed over.
    """
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}


def chosen(blocks: str, depth: int) -> range:
    """The indices that "all", "first n", "last n" or "every n" (the n-th, 2n-th, ...) name among `depth` blocks."""
    word, _, count = blocks.partition(" ")
    if word == "all" and not count:
        return range(depth)
    if word in ("first", "last", "every") and count.isdecimal() and 1 <= int(count) <= depth:
        n = int(count)
        return {"first": range(n), "last": range(depth - n, depth), "every": range(n - 1, depth, n)}[word]
    raise UserError(f"adapter.blocks={blocks!r}; use all, 'first n', 'last n' or 'every n' with n from 1 to {depth}")


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
            x = x + self.drop_temporal(adapters["temporal"](view.attend_time(y)))
        y = view.attend_space(view.norm1(x), rope)
        x = x + (adapters["spatial"](y) if "spatial" in adapters else y)
        y = view.norm2(x)
        x = x + view.mlp(y)
        if "joint" in adapters:
            x = x + self.drop_joint(self.scale * adapters["joint"](y))
        return x
