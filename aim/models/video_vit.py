"""The family of video ViTs: trunks of tubelets whose attention is over space and time at once.

V-JEPA 2 (Assran et al. 2025, section 2), V-JEPA 2.1 (Mur-Labadia et al. 2026), VideoMAE (Tong et al. 2022) and VideoMAE
V2 (Wang et al. 2023). They have no class token, and their tokens are in the order of time, rows, columns.
Shapes: b clips, t frames after tubelets, n tokens of a frame or its h w grid, d channels, e those of a head.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange, repeat
from timm.models.vision_transformer import Block, init_weights_vit_timm
from torch import Tensor, nn

from aim.adapters.interface import AdapterConfig, Axis, Place, Tokens, check_image_trunk
from aim.ground.errors import UserError, say
from aim.models.attention import over_space
from aim.models.family import Family, VideoTrunk
from aim.models.vit import ViTBlockView, by_view
from aim.weights.trunk import shortened
from aim.weights.video import KEYS, public_names, published_as

TUBELET = 2  # frames
TRAINED = 256  # pixels of the grid to whose positions V-JEPA 2.1 scales those of any other
BASE = 10_000  # of the frequencies of positions
OTHER = "choose another backbone, or the file that belongs to it"


@dataclass(frozen=True)
class Kind:
    """The differences between published models, beside their sizes."""

    name: str
    positions: Literal["rope", "rope_tiled", "sincos"]
    images: bool = False  # a clip of one frame has patches of its own, and a vector tells the two apart
    pooled_norm: bool = False  # the last norm is of a clip's mean token, not of each token


VJEPA21 = Kind("V-JEPA 2.1", "rope", images=True)
VJEPA2 = Kind("V-JEPA 2", "rope_tiled")
VIDEOMAE = Kind("VideoMAE", "sincos", pooled_norm=True)


class JointBlock(Block):
    """timm's block; takes and gives tokens frame by frame, "(b t) n d", and attends over those of the whole clip."""

    attn: Any
    num_frames: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.attn.num_prefix_tokens = 0  # rotary positions are of all tokens

    def forward(self, x: Tensor, rope: Tensor | None = None, **unused: None) -> Tensor:  # type: ignore[override]
        x = x + self.attend(self.norm1(x), rope)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def attend(self, x: Tensor, rope: Tensor | None, *, on_gpu: bool = False) -> Tensor:
        y = over_space(self.attn, rearrange(x, "(b t) n d -> b (t n) d", t=self.num_frames), rope, on_gpu=on_gpu)
        z: Tensor = rearrange(self.attn.proj(y), "b (t n) d -> (b t) n d", t=self.num_frames)
        return z


class Patches(nn.Module):
    """A linear map of each tubelet's pixels: "b c t*tubelet h*patch w*patch" -> "b d t h w"; a remainder is dropped."""

    def __init__(self, dim: int, tubelet: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = (patch_size, patch_size)
        size = (tubelet, patch_size, patch_size)
        self.proj = nn.Conv3d(3, dim, size, stride=size)

    def forward(self, video: Tensor) -> Tensor:
        y: Tensor = self.proj(video)
        return y


class VideoViT(nn.Module):
    """A plain trunk: its parameters, and the pixels of a frame, rows and columns."""

    def __init__(
        self,
        kind: Kind,
        embed_dim: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        patch_size: int = 16,
        img_size: int | tuple[int, int] = 224,
    ) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim={embed_dim} is not a multiple of num_heads={num_heads}")
        self.kind, self.embed_dim, self.num_heads = kind, embed_dim, num_heads
        self.img_size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        self.patch_embed = Patches(embed_dim, TUBELET, patch_size)
        if kind.images:
            self.patch_embed_img = Patches(embed_dim, 1, patch_size)
            self.modality, self.modality_img = (nn.Parameter(torch.zeros(1, 1, embed_dim)) for _ in range(2))
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            JointBlock(embed_dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=norm) for _ in range(depth)
        )
        self.norm = norm(embed_dim)
        self.apply(init_weights_vit_timm)

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens down and across."""
        patch = self.patch_embed.patch_size[0]
        return self.img_size[0] // patch, self.img_size[1] // patch


class JointView(ViTBlockView):
    """The view of a `JointBlock`."""

    joint = True

    def attend_space(self, x: Tensor, rope: Tensor | None = None, *, wanted: bool = False) -> Tensor:
        y: Tensor = self.block.attend(x, rope, on_gpu=self.on_gpu and not self.plain)
        return y

    def attend_time(self, x: Tensor, into: nn.Linear | None = None) -> Tensor:
        check_image_trunk(self)
        raise AssertionError


class JointViT(VideoTrunk):
    """A `VideoViT` whose blocks are adapted: "b c t*tubelet h w" -> "b t d".

    A frame's features are the mean of its tokens after the last norm. With a `pooled_norm` they are a clip's, "b 1 d":
    the norm of the mean of all its tokens.
    """

    num_prefix_tokens = 0
    positions: Tensor

    def __init__(self, trunk: Any, adapter: AdapterConfig, num_frames: int, drop_path_axes: tuple[Axis, Axis]) -> None:
        super().__init__()
        dim, depth = trunk.embed_dim, len(trunk.blocks)
        if trunk.patch_embed.proj.kernel_size[0] == 1 and num_frames > 1:
            raise UserError(f"backbone.tubelet=1 is for images: use clip.num_frames=1, or backbone.tubelet={TUBELET}")
        views = []
        for i, block in enumerate(trunk.blocks):
            block.num_frames = num_frames
            views.append(JointView(block, dim, num_frames, 0, class_token=False))
            trunk.blocks[i] = adapter(views[-1], Place(i, depth, (), drop_path_axes))
        self.views = self.parts = tuple(views)
        rows, columns = trunk.grid
        readout = adapter.readout([dim] * depth, Tokens(num_frames, rows, columns, self.num_prefix_tokens))
        self.adapters = nn.ModuleDict({} if readout is None else {"readout": readout})
        self.trunk, self.num_frames = trunk, num_frames
        self.dim = dim if readout is None else readout.dim
        self.register_buffer("positions", positions(trunk, num_frames), persistent=False)

    @property
    def blocks(self) -> list[nn.Module]:
        return list(self.trunk.blocks)

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.num_frames, *self.trunk.grid

    def frozen(self, video: Tensor) -> list[Tensor]:
        trunk, t = self.trunk, self.num_frames
        reads_blocks = "readout" in self.adapters and self.adapters["readout"].reads_blocks
        x = rearrange(trunk.patch_embed(video), "b d t h w -> b (t h w) d").to(trunk.norm.weight.dtype)
        if trunk.kind.images:
            x = x + trunk.modality
        extra = {"rope": self.positions}
        if trunk.kind.positions == "sincos":
            x, extra = x + self.positions, {}
        x = rearrange(x, "b (t n) d -> (b t) n d", t=t)
        tokens = []
        for block, view in zip(trunk.blocks, self.views, strict=True):
            unadapted = block is view.block and not view.plain
            x = self.run(partial(by_view, view) if unadapted else block, x, self.memory, **extra)
            if reads_blocks:
                tokens.append(x)
        if "readout" in self.adapters:
            return [rearrange(y, "(b t) n d -> b t n d", t=t) for y in (*tokens, trunk.norm(x))]
        if trunk.kind.pooled_norm:
            return [trunk.norm(rearrange(x, "(b t) n d -> b 1 (t n) d", t=t).mean(2))]
        return [rearrange(trunk.norm(x).mean(1), "(b t) d -> b t d", t=t)]


def positions(trunk: VideoViT, num_frames: int) -> Tensor:
    """The positions of a clip's tokens: a table that is added to them, or that of `rotations`."""
    grid = (num_frames, *trunk.grid)
    if trunk.kind.positions == "sincos":
        return sinusoids(grid, trunk.embed_dim)
    tiled = trunk.kind.positions == "rope_tiled"
    trained = None if tiled else TRAINED // trunk.patch_embed.patch_size[0]
    return rotations(grid, trunk.embed_dim // trunk.num_heads, trained, tiled=tiled)


def rotations(grid: tuple[int, int, int], channels: int, trained: int | None, *, tiled: bool) -> Tensor:
    """Sines and cosines of V-JEPA's rotary positions in a head of so many channels: -> "(t h w) (2 e)".

    Time, rows and columns each turn a third of the channels, rounded down to pairs of neighbours; the rest stays. Rows
    and columns are scaled to a grid of `trained` tokens; a single one is at 0. V-JEPA 2 was trained with tables that
    are `tiled`: the two channels of a pair turn by different angles.
    """
    width = 2 * (channels // 3 // 2)
    frequency = BASE ** -(torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    t, h, w = grid
    angles = []
    for size, axis in zip(grid, "thw", strict=True):
        place = torch.arange(size, dtype=torch.float64)
        if trained is not None and axis != "t":
            place = place * (trained - 1) / max(1, size - 1)
        angle = rearrange(place, f"{axis} -> {axis} 1") * frequency
        angle = repeat(angle, f"{axis} e -> {axis} ({'two e' if tiled else 'e two'})", two=2)
        others = {other: length for other, length in zip("thw", grid, strict=True) if other != axis}
        angles.append(repeat(angle, f"{axis} e -> (t h w) e", **others))
    angles.append(torch.zeros(t * h * w, channels - 3 * width, dtype=torch.float64))
    turned = torch.cat(angles, 1)
    return torch.cat([turned.sin(), turned.cos()], 1).float()


def sinusoids(grid: tuple[int, int, int], dim: int) -> Tensor:
    """Sines and cosines in turn of the number of each token of a clip, as in Vaswani et al. 2017, section 3.5."""
    t, h, w = grid
    number = torch.arange(t * h * w, dtype=torch.float64)
    angle = rearrange(number, "n -> n 1") / BASE ** (torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return rearrange([angle.sin(), angle.cos()], "two n d -> n (d two)")[:, :dim].float()


def renamed(tensors: dict[str, Tensor], trunk: VideoViT, path: Path) -> dict[str, Tensor]:
    """The trunk's tensors from those of a public file; the names of those that are left out are said.

    Raises UserError for a file of another kind or size of model: V-JEPA 2 and 2.1 have blocks of the same shapes, but
    turn queries and keys differently.
    """
    theirs, ours = published_as(tensors), trunk.kind.name
    if theirs != ours:
        raise UserError(f"{path} is of {theirs}, the model is a {ours}; {OTHER}")
    found, left_out = public_names(tensors, path)
    if (of_file := sizes(found)) != (of_model := sizes(trunk.state_dict())):
        raise UserError(f"{path} is of {of_file}, the model of {of_model}; {OTHER}")
    if left_out:
        say(f"{path.name}: left out, as no feature depends on them: {shortened(left_out)}")
    return found


def sizes(tensors: Mapping[str, Tensor]) -> str:
    """Blocks, channels and patches of a trunk by its tensors."""
    depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    patches = tensors.get("patch_embed.proj.weight")
    shape = "no patches" if patches is None else f"{len(patches)} channels, patches of {tuple(patches.shape[2:])}"
    return f"{depth} blocks, {shape}"


def set_tubelet(trunk: VideoViT, tubelet: int) -> None:
    """Keep the patches of clips; with `tubelet` 1 those of images, where the model has such."""
    images = trunk.kind.images
    if tubelet == 1 and images:
        trunk.patch_embed, trunk.modality = trunk.patch_embed_img, trunk.modality_img
    elif tubelet != TUBELET:
        also = ", or 1 for images" if images else ""
        raise UserError(
            f"backbone.tubelet={tubelet}, but a patch of this trunk is of {TUBELET} frames; use {TUBELET}{also}"
        )
    if images:
        del trunk.patch_embed_img, trunk.modality_img


def set_size(trunk: VideoViT, size: int) -> None:
    trunk.img_size = (size, size)


SIZES: dict[str, dict[str, Any]] = {
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "huge": {"embed_dim": 1280, "depth": 32, "num_heads": 16},
    "giant": {"embed_dim": 1408, "depth": 40, "num_heads": 22, "mlp_ratio": 48 / 11},
    "gigantic": {"embed_dim": 1664, "depth": 48, "num_heads": 26, "mlp_ratio": 64 / 13},
}
KINDS = {
    "vjepa21": (VJEPA21, ("base", "large", "giant", "gigantic")),
    "vjepa2": (VJEPA2, ("large", "huge", "giant")),
    "videomae": (VIDEOMAE, ("small", "base", "large")),
}


def models() -> dict[str, Callable[..., nn.Module]]:
    """The published models by our names, such as vjepa21_base."""
    return {
        f"{name}_{size}": partial(VideoViT, kind, **SIZES[size])
        for name, (kind, published) in KINDS.items()
        for size in published
    }


def download(name: str, options: Mapping[str, Any]) -> nn.Module:
    raise UserError(f"{name} is on no hub of timm's; set backbone.weights to its publisher's file, or to random")


FAMILY = Family(VideoViT, JointViT, renamed, set_tubelet, set_size, models=models(), download=download, keys=KEYS)
