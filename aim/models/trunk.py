"""A trunk by its name and weights: built, recognised by its family, loaded and resampled."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.activations import QuickGELU
from torch import nn

from aim.ground.errors import UserError, nearest
from aim.models.family import Family
from aim.weights.torchscript import is_torchscript
from aim.weights.trunk import check_weights, fingerprint, load_tensors, read_tensors, weights_file


@dataclass(frozen=True)
class Trunk:
    """A plain trunk with its weights, and the fingerprint of those weights as they were loaded."""

    module: nn.Module
    family: Family
    fingerprint: str  # "random" where nothing was loaded


def load_trunk(name: str, weights: str, size: int, options: Mapping[str, Any], families: Sequence[Family]) -> Trunk:
    """Build the trunk `name` without a head, for `size` pixels, with weights: "pretrained", "random" or a file.

    Position embeddings are resampled as timm does. Raises UserError for an unknown name, weights that are missing,
    and weights whose names or shapes don't fit.
    """
    check_weights(weights)
    with torch.device("meta") if weights == "pretrained" else contextlib.nullcontext():
        module = create(name, options, families)
    family = family_of(module, name, families)
    if weights == "pretrained":
        module = family.download(name, options)
    if weights not in ("pretrained", "random"):
        load_trunk_file(module, weights_file(weights), family)
    sha256 = "random" if weights == "random" else fingerprint(module.state_dict())
    patch = module.patch_embed.patch_size[0]
    if size % patch:
        raise UserError(f"clip.size={size} is not a multiple of the {patch} pixels of a patch of {name}")
    family.set_size(module, size)
    return Trunk(module, family, sha256)


def create(name: str, options: Mapping[str, Any], families: Sequence[Family]) -> Any:
    """A trunk with random weights and no head: a family's own, or timm's. Raises UserError for a name of neither."""
    architecture = name.partition(".")[0]
    own = {known: model for family in families for known, model in family.models.items()}
    if architecture not in own and not timm.is_model(architecture):
        names = [*own, *timm.list_models()]
        raise UserError(f"backbone.name={name!r} is no timm model{nearest(architecture, names)}")
    try:
        if architecture in own:
            return own[architecture](**options)
        return timm.create_model(name, num_classes=0, drop_path_rate=0.0, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(f"{name} can't be built with backbone.options={dict(options)}: {error}") from error


def family_of(module: nn.Module, name: str, families: Sequence[Family]) -> Family:
    """The family of a trunk. Raises UserError if it has none, and so can't be adapted."""
    for family in families:
        if isinstance(module, family.trunk):
            return family
    known = ", ".join(family.trunk.__name__ for family in families)
    raise UserError(f"backbone.name={name!r} is of the unknown family {type(module).__name__}; use a {known}")


def load_trunk_file(module: nn.Module, path: Path, family: Family) -> None:
    """Load a trunk's file into the plain `module`, strictly.

    Tensors of a head, of text or of a decoder are left out; position embeddings are resampled as timm does.
    """
    tensors = read_tensors(path, family.keys)
    if is_torchscript(path) and not any(isinstance(part, QuickGELU) for part in module.modules()):
        raise UserError(f"{path} is an archive of OpenAI's CLIP, whose activation is QuickGELU; use a backbone.name "
                        "with clip_quickgelu in it")  # fmt: skip
    tensors = family.renamed(tensors, module, path)
    foreign = ("head.", "decoder_", "mask_token")
    load_tensors(module, {name: x for name, x in tensors.items() if not name.startswith(foreign)}, str(path))
