"""A family of video trunks as small as one can be: joint attention over tubelets of two frames, no class token."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from aim.adapters.interface import AdapterConfig, Axis, Place, Tokens
from aim.ground.errors import UserError
from aim.models.attention import over_space
from aim.models.classifier import Backbone
from aim.models.family import Family, VideoTrunk

TUBELET = 2


class JointBlock(Block):
    """A block that takes and gives tokens frame by frame, "(b t) n d", and attends over those of the whole clip."""

    num_frames = 1

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm1(x))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def attend(self, x: Tensor) -> Tensor:
        y = over_space(self.attn, rearrange(x, "(b t) n d -> b (t n) d", t=self.num_frames), None)
        y = self.attn.proj(y)
        return rearrange(y, "b (t n) d -> (b t) n d", t=self.num_frames)


class ToyTrunk(nn.Module):
    """Tubelets, positions in time and space, blocks and a norm; a clip may have up to 8 tubelets."""

    def __init__(self, embed_dim: int, depth: int, patch_size: int = 8, img_size: int = 32) -> None:
        super().__init__()
        self.patch_embed = nn.Conv3d(3, embed_dim, (TUBELET, patch_size, patch_size), (TUBELET, patch_size, patch_size))
        self.patch_embed.patch_size = (patch_size, patch_size)  # type: ignore[assignment]
        side = img_size // patch_size
        self.pos_embed = nn.Parameter(torch.randn(8, side, side, embed_dim))
        self.blocks = nn.ModuleList(JointBlock(embed_dim, 2, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim)


class JointView(nn.Module):
    """The view of a block."""

    joint = True
    num_prefix_tokens = 0
    plain = False

    def __init__(self, block: Any, dim: int, num_frames: int) -> None:
        super().__init__()
        self.block, self.dim, self.num_frames = block, dim, num_frames

    def norm1(self, x: Tensor) -> Tensor:
        y: Tensor = self.block.norm1(x)
        return y

    def norm2(self, x: Tensor) -> Tensor:
        y: Tensor = self.block.norm2(x)
        return y

    def mlp(self, x: Tensor) -> Tensor:
        y: Tensor = self.block.mlp(x)
        return y

    def wanted(self, x: Tensor) -> Tensor:
        return x

    def attend_space(self, x: Tensor, rope: Tensor | None = None, *, wanted: bool = False) -> Tensor:
        y: Tensor = self.block.attend(x)
        return y

    def attend_time(self, x: Tensor, into: nn.Linear | None = None) -> Tensor:
        raise AssertionError("an adapter asked a joint view for attention over time")


class ToyVideo(VideoTrunk):
    """The trunk, adapted."""

    num_prefix_tokens = 0

    def __init__(self, trunk: Any, adapter: AdapterConfig, num_frames: int, drop_path_axes: tuple[Axis, Axis]) -> None:
        super().__init__()
        dim, depth = trunk.norm.weight.shape[0], len(trunk.blocks)
        views = []
        for i, block in enumerate(trunk.blocks):
            block.num_frames = num_frames
            views.append(JointView(block, dim, num_frames))
            trunk.blocks[i] = adapter(views[-1], Place(i, depth, (), drop_path_axes))
        self.views = self.parts = tuple(views)
        readout = adapter.readout(
            [dim] * depth, Tokens(num_frames, *trunk.pos_embed.shape[1:3], self.num_prefix_tokens)
        )
        self.adapters = nn.ModuleDict({} if readout is None else {"readout": readout})
        self.trunk, self.num_frames = trunk, num_frames
        self.dim = dim if readout is None else readout.dim

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.trunk.blocks)

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.num_frames, *self.trunk.pos_embed.shape[1:3]

    def frozen(self, video: Tensor) -> list[Tensor]:
        t, seen = self.num_frames, []
        x = rearrange(self.trunk.patch_embed(video), "b d t h w -> b t h w d") + self.trunk.pos_embed[:t]
        x = rearrange(x, "b t h w d -> (b t) (h w) d")
        for block in self.trunk.blocks:
            x = self.run(block, x, self.memory)
            seen.append(rearrange(x, "(b t) n d -> b t n d", t=t))
        last = rearrange(self.trunk.norm(x), "(b t) n d -> b t n d", t=t)
        if "readout" in self.adapters:
            return [*(seen if self.adapters["readout"].reads_blocks else []), last]
        return [last.mean(2)]


def renamed(tensors: dict[str, Tensor], trunk: ToyTrunk, path: Path) -> dict[str, Tensor]:
    """Its publisher's files call the blocks layers."""
    return {name.replace("layers.", "blocks."): tensor for name, tensor in tensors.items()}


def set_tubelet(trunk: ToyTrunk, tubelet: int) -> None:
    if tubelet != TUBELET:
        raise UserError(f"backbone.tubelet={tubelet}, but the toy's are of {TUBELET} frames")


def set_size(trunk: ToyTrunk, size: int) -> None:
    side = size // trunk.patch_embed.patch_size[0]  # type: ignore[index]
    positions = rearrange(trunk.pos_embed.detach(), "t h w d -> t d h w")
    trunk.pos_embed = nn.Parameter(rearrange(F.interpolate(positions, (side, side)), "t d h w -> t h w d"))


def download(name: str, options: Any) -> nn.Module:
    raise UserError(f"{name} is at https://toy.example; set backbone.weights to the file")


TOY = Family(
    ToyTrunk,
    ToyVideo,
    renamed,
    set_tubelet,
    set_size,
    models={"toy_tiny": partial(ToyTrunk, embed_dim=32, depth=3)},
    download=download,
    keys=("target_encoder", "encoder"),
)
BACKBONE = Backbone(
    name="toy_tiny",
    weights="random",
    mean=[0.5] * 3,
    std=[0.5] * 3,
    trainable=["backbone.trunk.norm.*"],
    drop_path_axes=("clip", "clip"),
    tubelet=TUBELET,
)
