"""The seam between a family of trunks and everything else.

A family is one file here: a `Family`, and the `VideoTrunk` and block view that it makes of a trunk. families.py lists
them. Shapes: b clips, t frames (after tubelets), n tokens of a frame, h w grid, d channels.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from aim.adapters.interface import AdapterConfig, Axis
from aim.ground.errors import UserError
from aim.models.memory import Memory, remembering
from aim.weights.trunk import USUAL_KEYS, from_hub


class VideoTrunk(nn.Module):
    """Base of a trunk read as a video model, its blocks adapted: "b c t*tubelet h w" -> "b t d"."""

    trunk: Any
    views: tuple[Any, ...]  # a `BlockView` of each block; a tuple, for the blocks hold their parameters
    parts: tuple[Any, ...]  # the views and all else with an attribute `plain`: True computes each token, as timm does
    adapters: nn.ModuleDict  # of the whole trunk: "readout" or nothing
    dim: int
    num_frames: int  # after tubelets
    num_prefix_tokens: int
    memory: Memory = "fast"
    run: Callable[..., Tensor] = staticmethod(remembering)  # runs a block; or the same, compiled

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """All blocks from the lowest to the highest, adapted or not; each gives tokens of the shape it takes."""

    @property
    @abstractmethod
    def grid(self) -> tuple[int, int, int]:
        """The tokens of the last block without the prefix: frames after tubelets, and tokens down and across."""

    @property
    def order_aware(self) -> bool:
        """Whether the trunk itself sees the order of frames, and so does the model with any adapter."""
        return any(view.joint for view in self.views)

    @abstractmethod
    def frozen(self, video: Tensor) -> list[Tensor]:
        """The features that are read of the trunk: for a readout tokens, each "b t n d", else pooled frames, "b t d".

        A readout that `reads_blocks` gets those of each block (stage) and those after the last norm, else these alone.
        """

    def read(self, features: Sequence[Tensor]) -> Tensor:
        """The clip's features, "b t d", of those that `frozen` gives."""
        if "readout" not in self.adapters:
            return features[-1]
        y: Tensor = self.adapters["readout"](features[:-1], features[-1])
        return y

    def forward(self, video: Tensor) -> Tensor:
        return self.read(self.frozen(video))

    def plain_blocks(self) -> list[nn.Module]:
        """The trunk's own blocks inside the adapted ones, and an adapter's copies of them."""
        kinds = tuple({type(view.block) for view in self.views})
        return [module for module in self.modules() if isinstance(module, kinds)]


@dataclass(frozen=True)
class Family:
    """A family of trunks: how one is recognised, built, loaded and read as a video model.

    A trunk has its patches' size in pixels as `patch_embed.patch_size`, as timm's have.
    """

    trunk: type[nn.Module]  # the class by which a trunk is recognised
    as_video: Callable[[Any, AdapterConfig, int, tuple[Axis, Axis]], VideoTrunk]
    """Of a trunk, an adapter, the frames of a clip after tubelets, and the published axes of drop path."""
    renamed: Callable[[dict[str, Tensor], Any, Path], dict[str, Tensor]]
    """The trunk's tensors from those of a public file, whose path is for messages. Raises UserError for other files."""
    set_tubelet: Callable[[Any, int], None]  # make patches span as many frames. Raises UserError if they can't
    set_size: Callable[[Any, int], None]  # take square frames of other pixels, a multiple of the patch
    models: Mapping[str, Callable[..., nn.Module]] = field(default_factory=dict)  # those that timm lacks, by name
    download: Callable[[str, Mapping[str, Any]], nn.Module] = from_hub  # with published weights. Raises UserError
    keys: Sequence[str] = USUAL_KEYS  # below which a file may hold the tensors; the first one found counts


def image_size(trunk: Any, size: int) -> None:
    """Resample a timm trunk's position embedding for square frames of `size` pixels."""
    if tuple(trunk.patch_embed.img_size) != (size, size):
        trunk.set_input_size(img_size=(size, size))


def single_frames(trunk: nn.Module, tubelet: int) -> None:
    """Raise UserError for tubelets, which an image trunk's patches are not."""
    if tubelet != 1:
        raise UserError(f"backbone.tubelet={tubelet}, but a patch of a {type(trunk).__name__} is of one frame; use 1")


def check_frames(num_frames: int, tubelet: int) -> None:
    """Raise UserError for a clip whose frames don't fill its tubelets."""
    if num_frames % tubelet:
        near = num_frames // tubelet * tubelet
        fits = f"{near} or {near + tubelet}" if near else tubelet
        raise UserError(f"num_frames={num_frames} is not a multiple of tubelet={tubelet}; use {fits}")
