"""The interface of adapter families: frozen dataclasses that map a view of a frozen block to its replacement.

Shapes: b clips, t frames (after tubelets), n tokens of a frame or its h w grid, d channels. Frames are folded
into the batch: blocks see "(b t) n d" (ViT) or "(b t) h w d" (Swin); "..." stands for n or h w.

An adapter family is a frozen dataclass with the methods of `AdapterConfig`, as `AdapterBase` has them. There are three
seams:
- `BlockView`: the parts of a frozen block as functions, for modules beside or around them (AIM);
- `view.block`: the timm block itself, whose linear layers `linears` lists, for changes inside them (LoRA);
- `readout`: a module over the frozen features of all blocks, for adapters that only read them (probes, side networks).
Image trunks attend within a frame, and a view's `attend_time` applies the same attention over time. Video trunks attend
over space and time jointly, and their views are `joint`: blocks still take and give tokens frame by frame, "(b t) n d",
but in `attend_space` each token attends to those of all frames of its clip, and there is no `attend_time`. There the
order of frames matters with every adapter, also with LoRA and AdaptFormer; one that attends over time is refused.
Every added module has a name below `adapters`, so that one pattern, `*.adapters.*`, matches all that is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from torch import Tensor, nn

from aim.ground.errors import UserError
from aim.ground.marks import Mark

Axis = Literal["clip", "frame", "position", "clip_position"]


class BlockView(Protocol):
    """The interface of a frozen transformer block to an adapter, independent of the block's family.

    `rope` is the trunk's second input to its blocks (rotary positions of a frame), or None.
    Where the trunk pools by the class token, nothing but it is wanted of the last block: `wanted(x)` picks it, and
    `attend_space(..., wanted=True)` gives its row alone; elsewhere they are all tokens.
    """

    @property
    def block(self) -> nn.Module: ...  # of the trunk; an adapter may change it in place and return it
    @property
    def dim(self) -> int: ...
    @property
    def num_frames(self) -> int: ...
    @property
    def num_prefix_tokens(self) -> int: ...  # class and register tokens, which come before the patches
    @property
    def joint(self) -> bool: ...  # attends over space and time at once

    def norm1(self, x: Tensor) -> Tensor: ...
    def norm2(self, x: Tensor) -> Tensor: ...
    def mlp(self, x: Tensor) -> Tensor: ...
    def wanted(self, x: Tensor) -> Tensor: ...
    def attend_space(self, x: Tensor, rope: Tensor | None = None, *, wanted: bool = False) -> Tensor: ...
    def attend_time(self, x: Tensor, into: nn.Linear | None = None) -> Tensor:
        """`into(attention)`, as one product; only of a view that isn't `joint`."""
        ...


@dataclass(frozen=True)
class Place:
    """Where a block stands: the `index`-th of `depth`, and in which blocks its family adapts time."""

    index: int
    depth: int
    temporal_blocks: Sequence[int]  # none where attention is joint
    drop_path_axes: tuple[Axis, Axis]  # the published ones of the temporal and the joint branch

    @property
    def height(self) -> float:
        """0 for the first block, 1 for the last."""
        return self.index / max(1, self.depth - 1)

    @property
    def temporal(self) -> bool:
        """Whether time is adapted here."""
        return self.index in self.temporal_blocks


@dataclass(frozen=True)
class Tokens:
    """The tokens that a readout gets of a clip's last block: those of each frame are a prefix, then its rows."""

    num_frames: int  # after tubelets
    rows: int
    columns: int
    num_prefix_tokens: int  # class and register tokens


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained where `optim` says auto; by default as the paper trains AIM (appendix)."""

    lr: float = 3e-4
    weight_decay: float = 0.05


class AdapterConfig(Protocol):
    """An adapter family: a frozen dataclass that maps a view to a block."""

    @property
    def trainable(self) -> Sequence[str]: ...  # glob patterns of names
    @property
    def train_norm(self) -> bool: ...  # also the backbone's `trainable` patterns: the trunk's last norm
    @property
    def temporal(self) -> bool: ...  # an image trunk gets a temporal embedding; one with joint attention has its own

    @property
    def recipe(self) -> Annotated[Recipe | None, Mark.MACHINE, Mark.SILENT]: ...  # what `optim` came to decides
    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        """The block that replaces the frozen one."""
        ...

    def readout(self, dims: Sequence[int], tokens: Tokens) -> "Readout | None":
        """The module that reads the features of blocks of these widths; None for the trunk's own pooling."""
        ...


@dataclass(frozen=True, kw_only=True)
class AdapterBase:
    """Base of our own families, with their common parts. They leave blocks and the trunk's pooling alone."""

    trainable: Sequence[str]
    train_norm: bool = False
    temporal: bool = False
    recipe: Recipe | None = None

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        return view.block

    def readout(self, dims: Sequence[int], tokens: Tokens) -> "Readout | None":
        return None


class Readout(nn.Module):
    """Base of a module `(blocks: list["b t n d"], last: "b t n d") -> "b t dim"`.

    `blocks` are the features after each block (after each stage of a Swin), class and register tokens included and
    first; `last` are those of the last one after the trunk's norm. One that doesn't read `blocks` gets none.
    """

    dim: int
    reads_blocks = True


def check_image_trunk(view: BlockView) -> None:
    """Raise UserError for a trunk whose attention is joint, and so can't be applied over time alone."""
    if view.joint:
        raise UserError(
            "this trunk attends over space and time jointly, so its attention can't be adapted to time alone; use "
            "adapter.temporal=false with adapter=aim, or an adapter that doesn't attend over time"
        )


def at_least_one(width: int, ratio: float) -> int:
    """The width of a bottleneck. Raises UserError if `adapter.ratio` makes it zero."""
    if width < 1:
        raise UserError(f"adapter.ratio={ratio:g} leaves a bottleneck no channel; use more, as 0.25")
    return width


def linears(block: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers inside a timm block by name: attn.qkv, attn.proj, mlp.fc1, mlp.fc2, ...

    Some of timm's attentions read `qkv.weight` without calling the layer, so change it by a parametrization of the
    weight (torch.nn.utils.parametrize) where a replaced layer would be passed over.
    """
    return {name: module for name, module in block.named_modules() if isinstance(module, nn.Linear)}
