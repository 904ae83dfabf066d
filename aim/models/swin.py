"""The family of timm's Swin: the trunk read as a video model, and the view of its blocks.

Shapes: b clips, t frames after tubelets, h w grid, d channels, i j frames of an attention matrix.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from timm.models.swin_transformer import SwinTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from aim.adapters.interface import AdapterConfig, Axis, Place, Tokens
from aim.ground.errors import UserError
from aim.models.family import Family, VideoTrunk
from aim.models.norm import norm
from aim.weights.renaming import check_patches


class SwinBlockView(nn.Module):
    """A timm Swin block; along time it reuses qkv and proj, with a relative position bias of its own.

    The public implementation never trains that bias: it stays at its random start.
    """

    offset: Tensor
    num_prefix_tokens = 0
    joint = False
    plain = False  # True: norms keep their inputs, as timm's do

    def __init__(self, block: Any, num_frames: int, *, temporal: bool) -> None:
        super().__init__()
        self.block, self.num_frames, self.dim = block, num_frames, block.dim
        if temporal:
            self.temporal_bias = nn.Parameter(torch.empty(2 * num_frames - 1, block.attn.num_heads))
            nn.init.trunc_normal_(self.temporal_bias, std=0.02)
            frame = torch.arange(num_frames)
            self.register_buffer("offset", frame[:, None] - frame[None, :] + num_frames - 1, persistent=False)

    def norm1(self, x: Tensor) -> Tensor:
        return norm(self.block.norm1, x, plain=self.plain)

    def norm2(self, x: Tensor) -> Tensor:
        return norm(self.block.norm2, x, plain=self.plain)

    def mlp(self, x: Tensor) -> Tensor:
        y: Tensor = self.block.mlp(x)
        return y

    def wanted(self, x: Tensor) -> Tensor:
        return x  # their mean

    def attend_space(self, x: Tensor, rope: Tensor | None = None, *, wanted: bool = False) -> Tensor:
        y: Tensor = self.block._attn(x)  # shifts, windows, attends, and undoes both
        return y

    def attend_time(self, x: Tensor, into: nn.Linear | None = None) -> Tensor:
        attn, (h, w) = self.block.attn, x.shape[1:3]
        q, k, v = rearrange(
            attn.qkv(x), "(b t) h w (qkv head d) -> qkv (b h w) head t d", t=self.num_frames, qkv=3, head=attn.num_heads
        )
        bias = rearrange(self.temporal_bias[self.offset], "i j head -> 1 head i j").to(q.dtype)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        y: Tensor = attn.proj(rearrange(x, "(b h w) head t d -> (b t) h w (head d)", h=h, w=w))
        return y if into is None else into(y)


class TubeletEmbed(nn.Module):
    """A 2D patch embedding inflated over `tubelet` frames: "b c t*tubelet h w" -> "(b t) h w d"."""

    def __init__(self, embed: Any, tubelet: int) -> None:
        super().__init__()
        conv = embed.proj
        self.norm = embed.norm
        kernel = (tubelet, *conv.kernel_size)
        self.proj = nn.Conv3d(conv.in_channels, conv.out_channels, kernel, stride=kernel)
        weight = repeat(conv.weight, "o i h w -> o i t h w", t=tubelet) / tubelet
        self.proj.load_state_dict({"weight": weight, "bias": conv.bias})

    def forward(self, video: Tensor) -> Tensor:
        y: Tensor = self.norm(rearrange(self.proj(video), "b d t h w -> (b t) h w d"))
        return y


class Swin(VideoTrunk):
    """A timm Swin whose patches are tubelets, read as a video model: "b c t*tubelet h w" -> "b t d", means in space."""

    num_prefix_tokens = 0

    def __init__(self, trunk: Any, adapter: AdapterConfig, num_frames: int, drop_path_axes: tuple[Axis, Axis]) -> None:
        super().__init__()
        blocks = [(stage.blocks, i) for stage in trunk.layers for i in range(len(stage.blocks))]
        even = [index for index, (_, i) in enumerate(blocks) if i % 2 == 0]  # time only where windows are not shifted
        views = []
        for index, (stage, i) in enumerate(blocks):
            place = Place(index, len(blocks), even, drop_path_axes)
            view = SwinBlockView(stage[i], num_frames, temporal=adapter.temporal and place.temporal)
            stage[i] = adapter(view, place)
            views.append(view)
        self.views = self.parts = tuple(views)
        rows, columns = trunk.layers[-1].output_resolution
        tokens = Tokens(num_frames, rows, columns, self.num_prefix_tokens)
        readout = adapter.readout([info["num_chs"] for info in trunk.feature_info], tokens)
        self.adapters = nn.ModuleDict({} if readout is None else {"readout": readout})
        self.trunk, self.num_frames = trunk, num_frames
        self.dim = trunk.num_features if readout is None else readout.dim

    @property
    def blocks(self) -> list[nn.Module]:
        return [block for stage in self.trunk.layers for block in stage.blocks]

    @property
    def grid(self) -> tuple[int, int, int]:
        h, w = self.trunk.layers[-1].output_resolution
        return self.num_frames, h, w

    def frozen(self, video: Tensor) -> list[Tensor]:
        t = self.num_frames
        if "readout" in self.adapters:
            last, stages = self.trunk.forward_intermediates(video)
            read = stages if self.adapters["readout"].reads_blocks else []
            tokens = [rearrange(y, "(b t) d h w -> b t (h w) d", t=t) for y in read]
            return [*tokens, rearrange(last, "(b t) h w d -> b t (h w) d", t=t)]
        x = self.trunk.patch_embed(video)
        for stage in self.trunk.layers:
            x = stage.downsample(x)
            for block in stage.blocks:
                x = self.run(block, x, self.memory)
        pooled: Tensor = self.trunk.forward_head(self.trunk.norm(x), pre_logits=True)
        return [rearrange(pooled, "(b t) d -> b t d", t=t)]


def inflate(trunk: SwinTransformer, tubelet: int) -> None:
    """Make a timm Swin's patches tubelets: the mean of `tubelet` frames at the start (Conv3d, as the public code)."""
    trunk.patch_embed = TubeletEmbed(trunk.patch_embed, tubelet)


def set_size(trunk: Any, size: int) -> None:
    """Take frames of other pixels; windows, and with them position biases, stay as they were trained."""
    if tuple(trunk.patch_embed.img_size) != (size, size):
        trunk.set_input_size(img_size=(size, size), window_size=trunk.layers[0].blocks[0].window_size)


def renamed(tensors: dict[str, Tensor], trunk: SwinTransformer, path: Path) -> dict[str, Tensor]:
    """The trunk's tensors from those of a public file."""
    check_patches(tensors, trunk, path)
    check_windows(tensors, trunk, path)
    found: dict[str, Tensor] = checkpoint_filter_fn(tensors, trunk)
    return found


def check_windows(tensors: Mapping[str, Tensor], trunk: nn.Module, path: Path) -> None:
    """Raise UserError for a file of other windows, whose position biases timm would resample silently."""
    for name, own in trunk.state_dict().items():
        if name.endswith("relative_position_bias_table") and name in tensors and len(tensors[name]) != len(own):
            theirs, ours = ((math.isqrt(len(table)) + 1) // 2 for table in (tensors[name], own))
            raise UserError(f"{path} is of windows of {theirs} patches, the model's have {ours}; "
                            "choose another backbone.name, or the file that belongs to it")  # fmt: skip


FAMILY = Family(SwinTransformer, Swin, renamed, inflate, set_size)
