"""A timm ViT read as a video model, and the view of its blocks. Shapes: b clips, t frames, n tokens, d channels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from aim.adapters.interface import AdapterConfig, Axis, BlockView, Place
from aim.ground.errors import UserError
from aim.models.attention import feed_forward, over_space, over_time
from aim.models.memory import Memory, remembering
from aim.models.norm import norm


class ViTBlockView(nn.Module):
    """A timm ViT block, its attention also run along time: every token attends to itself in other frames."""

    plain = False  # True: every token through every product, as timm does and papers count

    def __init__(self, block: Any, dim: int, num_frames: int, num_prefix_tokens: int, *, class_token: bool) -> None:
        super().__init__()
        self.block, self.dim = block, dim
        self.num_frames, self.num_prefix_tokens = num_frames, num_prefix_tokens
        self.class_token = class_token  # alone is read of what this block gives

    def norm1(self, x: Tensor) -> Tensor:
        return norm(self.block.norm1, x, plain=self.plain)

    def norm2(self, x: Tensor) -> Tensor:
        return norm(self.block.norm2, x, plain=self.plain)

    def mlp(self, x: Tensor) -> Tensor:
        return scaled(self.block, 2, self.block.mlp(x) if self.plain else feed_forward(self.block.mlp, x))

    def wanted(self, x: Tensor) -> Tensor:
        return x[:, :1] if self.class_token and not self.plain else x

    def attend_space(self, x: Tensor, rope: Tensor | None = None, *, wanted: bool = False) -> Tensor:
        attn = self.block.attn
        if self.plain:
            y: Tensor = attn(x) if rope is None else attn(x, rope=rope)
        else:
            asking = 1 if wanted and self.class_token else None
            y = attn.proj_drop(attn.proj(over_space(attn, x, rope, asking)))
        return scaled(self.block, 1, y)

    def attend_time(self, x: Tensor, into: nn.Linear | None = None) -> Tensor:
        attn = self.block.attn
        x = over_time(attn, x, self.num_frames)
        if into is None or self.plain:
            y = scaled(self.block, 1, attn.proj_drop(attn.proj(x)))
            return y if into is None else into(y)
        # The two products are one by a smaller matrix, that of the projection, the layer scale and the layer.
        weight = scaled(self.block, 1, attn.proj.weight.T).T
        bias: Tensor = into.bias
        if attn.proj.bias is not None:
            bias = F.linear(scaled(self.block, 1, attn.proj.bias), into.weight, bias)
        return F.linear(x, into.weight @ weight, bias)


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

    plain = False

    def __init__(self, norm: nn.Module, num_frames: int, dim: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict({"temporal_embedding": TemporalEmbedding(num_frames, dim)})
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return norm(self.norm, self.adapters["temporal_embedding"](x), plain=self.plain)


class ViT(nn.Module):
    """A timm ViT (CLIP, ImageNet, DINO, ...) read as a video model: "b c t h w" -> "b t d".

    A frame's features are what timm pools for its own head: class token, mean or attention pooling.
    """

    memory: Memory = "fast"
    run: Callable[..., Tensor] = staticmethod(remembering)  # or the same, compiled

    def __init__(
        self, trunk: VisionTransformer | Eva, adapter: AdapterConfig, num_frames: int, drop_path_axes: tuple[Axis, Axis]
    ) -> None:
        super().__init__()
        dim, depth = trunk.embed_dim, len(trunk.blocks)
        readout = adapter.readout([dim] * depth, num_frames)
        pools_class_token = readout is None and trunk.global_pool == "token" and trunk.attn_pool is None
        if adapter.temporal:
            trunk.norm_pre = Entry(trunk.norm_pre, num_frames, dim)
        entry = [trunk.norm_pre] if adapter.temporal else []
        views = []
        for i, block in enumerate(trunk.blocks):
            if type(block) not in (Block, EvaBlock) or getattr(block.attn, "gate", None) is not None:
                raise UserError(f"a block of the unknown family {type(block).__name__}; use a trunk of pre-norm blocks")
            last = i == depth - 1
            view = ViTBlockView(block, dim, num_frames, trunk.num_prefix_tokens, class_token=last and pools_class_token)
            trunk.blocks[i] = adapter(view, Place(i, depth, range(depth), drop_path_axes))
            views.append(view)
        self.views = tuple(views)  # a tuple, for the blocks hold their parameters
        self.parts = (*views, *entry)  # that can be `plain`
        self.adapters = nn.ModuleDict({} if readout is None else {"readout": readout})
        self.trunk, self.num_frames = trunk, num_frames
        self.dim = dim if readout is None else readout.dim
        self.num_prefix_tokens = trunk.num_prefix_tokens

    @property
    def last_block(self) -> nn.Module:
        """The highest block, adapted or not."""
        return self.trunk.blocks[-1]

    @property
    def grid(self) -> tuple[int, int, int]:
        """The tokens of the last block but for the prefix: frames, and patches down and across."""
        h, w = self.trunk.patch_embed.grid_size
        return self.num_frames, h, w

    def forward(self, video: Tensor) -> Tensor:
        t = self.num_frames
        x = rearrange(video, "b c t h w -> (b t) c h w", t=t)
        if "readout" in self.adapters:
            last, blocks = self.trunk.forward_intermediates(x, output_fmt="NLC", return_prefix_tokens=True)
            tokens = [torch.cat([y[1], y[0]], 1) if isinstance(y, tuple) else y for y in blocks]
            unfolded = [rearrange(y, "(b t) n d -> b t n d", t=t) for y in (*tokens, last)]
            y: Tensor = self.adapters["readout"](unfolded[:-1], unfolded[-1])
            return y
        x = self.trunk.forward_head(self.trunk.norm(self.through_blocks(x)), pre_logits=True)
        return rearrange(x, "(b t) d -> b t d", t=t)

    def through_blocks(self, x: Tensor) -> Tensor:
        """timm's `forward_features` to the last norm, block by block; of the last one, the tokens that are pooled."""
        trunk: Any = self.trunk
        x, rope = trunk.patch_embed(x), None
        if isinstance(trunk, Eva):
            x, rope = trunk._pos_embed(x)
        else:
            x = trunk.patch_drop(trunk._pos_embed(x))
        x = trunk.norm_pre(x)
        extra = {} if rope is None else {"rope": rope}
        for block, view in zip(trunk.blocks, self.views, strict=True):
            unadapted = block is view.block and not view.plain
            x = self.run(partial(by_view, view) if unadapted else block, x, self.memory, **extra)
        return x


def by_view(view: BlockView, x: Tensor, rope: Tensor | None = None) -> Tensor:
    """A block of timm by its view, which knows what is wanted of it."""
    block: Any = view.block
    x = view.wanted(x) + block.drop_path1(view.attend_space(view.norm1(x), rope, wanted=True))
    y: Tensor = x + block.drop_path2(view.mlp(view.norm2(x)))
    return y
