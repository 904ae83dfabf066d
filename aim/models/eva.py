"""The family of timm's Eva (EVA-02, DINOv3, Perception Encoder): a ViT with rotary positions.

Shapes: b clips, t frames, n tokens, d channels.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models import eva
from torch import Tensor, nn

from aim.ground.errors import UserError
from aim.models.family import Family, image_size, single_frames
from aim.models.vit import ViT, ViTBlockView
from aim.weights.renaming import check_patches, public_names


class EvaBlockView(ViTBlockView):
    """A timm Eva block, whose layer scales are vectors, or None."""

    def scaled(self, which: int, x: Tensor) -> Tensor:
        gamma = getattr(self.block, f"gamma_{which}")
        return x if gamma is None else gamma * x


class EvaViT(ViT):
    """A timm Eva read as a video model; a frame's rotary positions go to each of its blocks."""

    block: type[nn.Module] = eva.EvaBlock
    view: type[ViTBlockView] = EvaBlockView

    def embedded(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        found: tuple[Tensor, Tensor | None] = self.trunk._pos_embed(self.trunk.patch_embed(x))
        return found


def renamed(tensors: dict[str, Tensor], trunk: Any, path: Path) -> dict[str, Tensor]:
    """The trunk's tensors from those of a public file; position embeddings are resampled as timm does."""
    tensors = without_zero_biases(public_names(tensors, path), trunk)
    check_patches(tensors, trunk, path)
    found: dict[str, Tensor] = eva.checkpoint_filter_fn(tensors, trunk)
    return found


def without_zero_biases(tensors: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Leave out attention's biases where they are zero and the model has none, as in DINOv3's public files."""
    if "storage_tokens" not in tensors:
        return dict(tensors)
    own = {name for name, _ in trunk.named_parameters()}

    def is_idle(name: str) -> bool:
        return name.endswith("attn.qkv.bias") and name.replace("qkv.bias", "q_bias") not in own

    for name in filter(is_idle, tensors):
        if tensors[name].any():
            raise UserError(f"{name} isn't zero, the model has no such bias; use the backbone.name with _qkvb in it")
    return {name: tensor for name, tensor in tensors.items() if not is_idle(name)}


FAMILY = Family(eva.Eva, EvaViT, renamed, single_frames, image_size)
