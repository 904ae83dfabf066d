"""Public files of image trunks -> the names that timm reads."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aim.ground.errors import UserError
from aim.weights.trunk import shortened


def public_names(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors under the names of the first publisher's file."""
    return dino_teacher(hugging_face_clip(tensors, path))


def hugging_face_clip(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename a CLIP vision tower of transformers to OpenAI's names, which timm reads; other files pass unchanged.

    Raises UserError if a layer has queries without keys and values.
    """
    start = next((name for name in tensors if name.endswith("embeddings.class_embedding")), None)
    if start is None:
        return tensors
    return of_tower(tensors, start.removesuffix("embeddings.class_embedding"), "visual.", path)


def hugging_face_texts(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename both towers of a CLIP of transformers to OpenAI's names; other files pass unchanged.

    Raises UserError as above.
    """
    if "text_model.embeddings.token_embedding.weight" not in tensors:
        return tensors
    both = of_tower(tensors, "vision_model.", "visual.", path) | of_tower(tensors, "text_model.", "", path)
    for ours, theirs in (("visual.proj", "visual_projection"), ("text_projection", "text_projection")):
        both[ours] = tensors[f"{theirs}.weight"].T.contiguous()
    return both | {"logit_scale": tensors["logit_scale"]}


def of_tower(tensors: dict[str, Tensor], prefix: str, ours: str, path: Path) -> dict[str, Tensor]:
    """The tensors of a tower, below `prefix` in a file of transformers, by OpenAI's names below `ours`."""
    swaps = {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding": "conv1",
        "embeddings.token_embedding": "token_embedding",
        "embeddings.position_embedding.weight": "positional_embedding",
        "pre_layrnorm": "ln_pre",
        "post_layernorm": "ln_post",
        "final_layer_norm": "ln_final",
        "encoder.layers": "transformer.resblocks",
        "self_attn.out_proj": "attn.out_proj",
        "self_attn.q_proj.": "attn.in_proj_",
        "layer_norm": "ln_",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    renamed = {}
    for name, tensor in tensors.items():
        if not name.startswith(prefix) or re.search(r"position_ids$|\.[kv]_proj\.", name):
            continue  # keys and values are joined to the queries
        if ".q_proj." in name:
            parts = [name.replace(".q_proj.", f".{x}_proj.") for x in "qkv"]
            if lacking := [part for part in parts if part not in tensors]:
                raise UserError(f"{path} doesn't fit: it lacks {shortened(lacking)}")
            tensor = torch.cat([tensors[part] for part in parts])
        name = name.removeprefix(prefix)
        for theirs, own in swaps.items():
            name = name.replace(theirs, own)
        renamed[f"{ours}{name}"] = tensor
    return renamed


def dino_teacher(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone of a DINO training checkpoint, without its projection head; other files pass unchanged."""
    inner = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    return inner if "cls_token" in inner else tensors


def check_patches(tensors: Mapping[str, Tensor], trunk: Any, path: Path) -> None:
    """Raise UserError for a file of other patches, which timm would resample silently."""
    patch = tuple(trunk.patch_embed.proj.weight.shape[-2:])
    kernels = {tuple(tensor.shape[-2:]) for tensor in tensors.values() if tensor.ndim == 4 and tensor.shape[1] == 3}
    if kernels and patch not in kernels:
        raise UserError(f"{path} is of patches of {sorted(kernels)[0]} pixels, the model's are {patch}; "
                        "choose another backbone.name, or the file that belongs to it")  # fmt: skip
