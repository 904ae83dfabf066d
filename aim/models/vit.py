"""The family of timm's ViT (CLIP, ImageNet, DINO, ...): the trunk read as a video model, and the view of its blocks.

Shapes: b clips, t frames, n tokens, d channels.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from aim.adapters.interface import AdapterConfig, Axis, BlockView, Place, Tokens
from aim.ground.errors import UserError
from aim.models.attention import feed_forward, over_space, over_time
from aim.models.family import Family, VideoTrunk, image_size, single_frames
from aim.models.norm import norm
from aim.weights.renaming import check_patches, public_names


class ViTBlockView(nn.Module):
    """A timm ViT block, its attention also run along time: every token attends to itself in other frames."""

    joint = False
    plain = False  # True: every token through every product, as timm does and papers count
    on_gpu = False  # True: few large kernels

    def __init__(self, block: Any, dim: int, num_frames: int, num_prefix_tokens: int, *, class_token: bool) -> None:
        super().__init__()
        self.block, self.dim = block, dim
        self.num_frames, self.num_prefix_tokens = num_frames, num_prefix_tokens
        self.class_token = class_token  # only the class token is read from this block

    def norm1(self, x: Tensor) -> Tensor:
        return norm(self.block.norm1, x, plain=self.plain)

    def norm2(self, x: Tensor) -> Tensor:
        return norm(self.block.norm2, x, plain=self.plain)

    def mlp(self, x: Tensor) -> Tensor:
        return self.scaled(2, self.block.mlp(x) if self.plain else feed_forward(self.block.mlp, x, on_gpu=self.on_gpu))

    def wanted(self, x: Tensor) -> Tensor:
        return x[:, :1] if self.class_token and not self.plain else x

    def attend_space(self, x: Tensor, rope: Tensor | None = None, *, wanted: bool = False) -> Tensor:
        attn = self.block.attn
        if self.plain:
            y: Tensor = attn(x) if rope is None else attn(x, rope=rope)
        else:
            asking = 1 if wanted and self.class_token else None
            y = attn.proj_drop(attn.proj(over_space(attn, x, rope, asking, on_gpu=self.on_gpu)))
        return self.scaled(1, y)

    def attend_time(self, x: Tensor, into: nn.Linear | None = None) -> Tensor:
        attn = self.block.attn
        x = over_time(attn, x, self.num_frames, on_gpu=self.on_gpu and not self.plain)
        if into is None or self.plain:
            y = self.scaled(1, attn.proj_drop(attn.proj(x)))
            return y if into is None else into(y)
        # The two products are one by a smaller matrix, that of the projection, the layer scale and the layer.
        weight = self.scaled(1, attn.proj.weight.T).T
        bias: Tensor = into.bias
        if attn.proj.bias is not None:
            bias = F.linear(self.scaled(1, attn.proj.bias), into.weight, bias)
        return F.linear(x, into.weight @ weight, bias)

    def scaled(self, which: int, x: Tensor) -> Tensor:
        """Apply the block's first or second layer scale."""
        y: Tensor = getattr(self.block, f"ls{which}")(x)
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
    """The step between position embedding and first block: the temporal embedding, then the trunk's own norm."""

    def __init__(self, norm: nn.Module, num_frames: int, dim: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleDict({"temporal_embedding": TemporalEmbedding(num_frames, dim)})
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.adapters["temporal_embedding"](x))
        return y


class ViT(VideoTrunk):
    """A timm ViT read as a video model: "b c t h w" -> "b t d".

    A frame's features are those that timm pools for its own head: class token, mean or attention pooling.
    """

    block: type[nn.Module] = Block
    view: type[ViTBlockView] = ViTBlockView

    def __init__(self, trunk: Any, adapter: AdapterConfig, num_frames: int, drop_path_axes: tuple[Axis, Axis]) -> None:
        super().__init__()
        dim, depth = trunk.embed_dim, len(trunk.blocks)
        rows, columns = trunk.patch_embed.grid_size
        readout = adapter.readout([dim] * depth, Tokens(num_frames, rows, columns, trunk.num_prefix_tokens))
        pools_class_token = readout is None and trunk.global_pool == "token" and trunk.attn_pool is None
        if adapter.temporal:
            trunk.norm_pre = Entry(trunk.norm_pre, num_frames, dim)
        views = []
        for i, block in enumerate(trunk.blocks):
            if type(block) is not self.block or getattr(block.attn, "gate", None) is not None:
                raise UserError(f"a block of the unknown family {type(block).__name__}; use a trunk of pre-norm blocks")
            last = i == depth - 1
            view = self.view(block, dim, num_frames, trunk.num_prefix_tokens, class_token=last and pools_class_token)
            trunk.blocks[i] = adapter(view, Place(i, depth, range(depth), drop_path_axes))
            views.append(view)
        self.views = self.parts = tuple(views)
        self.adapters = nn.ModuleDict({} if readout is None else {"readout": readout})
        self.trunk, self.num_frames = trunk, num_frames
        self.dim = dim if readout is None else readout.dim
        self.num_prefix_tokens = trunk.num_prefix_tokens

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.trunk.blocks)

    @property
    def grid(self) -> tuple[int, int, int]:
        h, w = self.trunk.patch_embed.grid_size
        return self.num_frames, h, w

    def frozen(self, video: Tensor) -> list[Tensor]:
        t = self.num_frames
        x = rearrange(video, "b c t h w -> (b t) c h w", t=t)
        if "readout" in self.adapters:
            last, blocks = self.trunk.forward_intermediates(x, output_fmt="NLC", return_prefix_tokens=True)
            read = blocks if self.adapters["readout"].reads_blocks else []
            tokens = [torch.cat([y[1], y[0]], 1) if isinstance(y, tuple) else y for y in read]
            return [rearrange(y, "(b t) n d -> b t n d", t=t) for y in (*tokens, last)]
        pooled: Tensor = self.trunk.forward_head(self.trunk.norm(self.through_blocks(x)), pre_logits=True)
        return [rearrange(pooled, "(b t) d -> b t d", t=t)]

    def through_blocks(self, x: Tensor) -> Tensor:
        """timm's `forward_features` to the last norm, block by block; of the last one, the tokens that are pooled."""
        x, rope = self.embedded(x)
        x = self.trunk.norm_pre(x)
        extra = {} if rope is None else {"rope": rope}
        for block, view in zip(self.trunk.blocks, self.views, strict=True):
            unadapted = block is view.block and not view.plain
            x = self.run(partial(by_view, view) if unadapted else block, x, self.memory, **extra)
        return x

    def embedded(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The tokens of frames with their positions, and rotary positions for the blocks where there are any."""
        trunk = self.trunk
        y: Tensor = trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(x)))
        return y, None


def by_view(view: BlockView, x: Tensor, rope: Tensor | None = None) -> Tensor:
    """A timm block by its view, which computes only the tokens that are read."""
    block: Any = view.block
    x = view.wanted(x) + block.drop_path1(view.attend_space(view.norm1(x), rope, wanted=True))
    y: Tensor = x + block.drop_path2(view.mlp(view.norm2(x)))
    return y


def renamed(tensors: dict[str, Tensor], trunk: VisionTransformer, path: Path) -> dict[str, Tensor]:
    """The trunk's tensors from those of a public file; position embeddings are resampled as timm does."""
    tensors = public_names(tensors, path)
    check_patches(tensors, trunk, path)
    return checkpoint_filter_fn(tensors, trunk, adapt_layer_scale=True)


FAMILY = Family(VisionTransformer, ViT, renamed, single_frames, image_size)
