"""A timm ViT read as a video model, and the view of its blocks. Shapes: b clips, t frames, n tokens, d channels."""

from typing import Any

import torch
from einops import rearrange
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from aim.adapters.interface import AdapterConfig, Axis, Place
from aim.errors import UserError


class ViTBlockView(nn.Module):
    """A timm ViT block, its attention also run along time: every token attends to itself in other frames."""

    def __init__(self, block: Any, dim: int, num_frames: int, num_prefix_tokens: int) -> None:
        super().__init__()
        self.block, self.dim = block, dim
        self.num_frames, self.num_prefix_tokens = num_frames, num_prefix_tokens

    def norm1(self, x: Tensor) -> Tensor:
        y: Tensor = self.block.norm1(x)
        return y

    def norm2(self, x: Tensor) -> Tensor:
        y: Tensor = self.block.norm2(x)
        return y

    def mlp(self, x: Tensor) -> Tensor:
        return scaled(self.block, 2, self.block.mlp(x))

    def attend_space(self, x: Tensor, rope: Tensor | None = None) -> Tensor:
        y = self.block.attn(x) if rope is None else self.block.attn(x, rope=rope)
        return scaled(self.block, 1, y)

    def attend_time(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        x = rearrange(x, "(b t) n d -> (b n) t d", t=self.num_frames)
        return rearrange(self.attend_space(x), "(b n) t d -> (b t) n d", n=n)


def scaled(block: nn.Module, which: int, x: Tensor) -> Tensor:
    """Apply the block's first or second layer scale: a module in a ViT block, a vector or None in an Eva block."""
    if isinstance(block, EvaBlock):
        gamma = getattr(block, f"gamma_{which}")
        return x if gamma is None else gamma * x
    y: Tensor = getattr(block, f"ls{which}")(x)
    return y


class TemporalEmbedding(nn.Module):
    """Adds a learned vector per frame, zero at the start: "(b t) n d" -> the same."""

    def __init__(self, num_frames: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_frames, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(x, "(b t) n d -> b t n d", t=len(self.weight)) + rearrange(self.weight, "t d -> t 1 d")
        return rearrange(x, "b t n d -> (b t) n d")


class Entry(nn.Module):
    """What stands between the position embedding and the first block: the trunk's own norm, after time is added."""

    def __init__(self, norm: nn.Module, num_frames: int, dim: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict({"temporal_embedding": TemporalEmbedding(num_frames, dim)})
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.adapters["temporal_embedding"](x))
        return y


class ViT(nn.Module):
    """A timm ViT (CLIP, ImageNet, DINO, ...) read as a video model: "b c t h w" -> "b t d".

    A frame's features are what timm pools for its own head: class token, mean or attention pooling.
    """

    def __init__(
        self, trunk: VisionTransformer | Eva, adapter: AdapterConfig, num_frames: int, drop_path_axes: tuple[Axis, Axis]
    ) -> None:
        super().__init__()
        dim, depth = trunk.embed_dim, len(trunk.blocks)
        if adapter.temporal:
            trunk.norm_pre = Entry(trunk.norm_pre, num_frames, dim)
        for i, block in enumerate(trunk.blocks):
            if type(block) not in (Block, EvaBlock):
                raise UserError(f"a block of the unknown family {type(block).__name__}; use a trunk of pre-norm blocks")
            place = Place(i, depth, range(depth), drop_path_axes)
            trunk.blocks[i] = adapter(ViTBlockView(block, dim, num_frames, trunk.num_prefix_tokens), place)
        readout = adapter.readout([dim] * depth, num_frames)
        self.adapters = nn.ModuleDict({} if readout is None else {"readout": readout})
        self.trunk, self.num_frames = trunk, num_frames
        self.dim = dim if readout is None else readout.dim

    def forward(self, video: Tensor) -> Tensor:
        t = self.num_frames
        x = rearrange(video, "b c t h w -> (b t) c h w", t=t)
        if "readout" in self.adapters:
            last, blocks = self.trunk.forward_intermediates(x, output_fmt="NLC", return_prefix_tokens=True)
            tokens = [torch.cat([y[1], y[0]], 1) if isinstance(y, tuple) else y for y in blocks]
            unfolded = [rearrange(y, "(b t) n d -> b t n d", t=t) for y in (*tokens, last)]
            y: Tensor = self.adapters["readout"](unfolded[:-1], unfolded[-1])
            return y
        x = self.trunk.forward_head(self.trunk.forward_features(x), pre_logits=True)
        return rearrange(x, "(b t) d -> b t d", t=t)
