"""Weight files on disk -> a frozen timm trunk.

A trunk's file may be OpenAI's CLIP (TorchScript archive or state dict), open_clip, Hugging Face's CLIP, timm,
DINO, DINOv2, DINOv3, Swin's or any other that timm itself can read; released AIM checkpoints: see official.py.
"""

import argparse
import contextlib
import hashlib
import logging
import math
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.activations import QuickGELU
from timm.models import eva, swin_transformer, vision_transformer
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from aim.ground.errors import UserError, nearest
from aim.weights.torchscript import is_torchscript, read_torchscript

# How timm renames the tensors of a family's public files.
FAMILIES: dict[type[nn.Module], Callable[..., dict[str, Tensor]]] = {
    VisionTransformer: partial(vision_transformer.checkpoint_filter_fn, adapt_layer_scale=True),
    Eva: eva.checkpoint_filter_fn,
    SwinTransformer: swin_transformer.checkpoint_filter_fn,
}
WAY_OUT = "set backbone.weights to pretrained (timm's hub), to a file, or to random"
PER_FRAME = ("temporal_embedding.weight", "temporal_bias", "readout.time")  # endings of names: one entry per frame
SCALAR: Any = np.float64(0).__reduce__()[0]  # the function that rebuilds a NumPy scalar from a pickle
NUMPY = [
    (SCALAR, "numpy.core.multiarray.scalar"),  # its name until NumPy 2
    SCALAR,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")),
]


@dataclass(frozen=True)
class Trunk:
    """A plain timm model with its weights, and the fingerprint of those weights as they were loaded."""

    module: nn.Module
    fingerprint: str  # "random" where nothing was loaded


def load_trunk(name: str, weights: str, size: int, options: Mapping[str, Any]) -> Trunk:
    """Build the timm model `name` without its head, for `size` pixels, with weights: "pretrained", "random" or a file.

    Position embeddings are resampled as timm does. Raises UserError for an unknown name, weights that are missing,
    and weights whose names or shapes don't fit.
    """
    check_weights(weights)
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise UserError(f"backbone.name={name!r} is no timm model{nearest(architecture, timm.list_models())}")
    with torch.device("meta") if weights == "pretrained" else contextlib.nullcontext():
        module = of_known_family(name, options)
    if weights == "pretrained":
        module = from_hub(name, options)
    if weights not in ("pretrained", "random"):
        load_trunk_file(module, weights_file(weights))
    sha256 = "random" if weights == "random" else fingerprint(module.state_dict())
    patch = module.patch_embed.patch_size[0]
    if size % patch:
        raise UserError(f"clip.size={size} is not a multiple of the {patch} pixels of a patch of {name}")
    if tuple(module.patch_embed.img_size) != (size, size):
        # Swin keeps its windows, and with them its position biases, as they were trained.
        windows = {"window_size": module.layers[0].blocks[0].window_size} if hasattr(module, "layers") else {}
        module.set_input_size(img_size=(size, size), **windows)
    return Trunk(module, sha256)


def of_known_family(name: str, options: Mapping[str, Any]) -> Any:
    """The timm model with random weights and no head. Raises UserError for a family that can't be adapted."""
    try:
        module: Any = timm.create_model(name, num_classes=0, drop_path_rate=0.0, **options)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UserError(f"{name} can't be built with backbone.options={dict(options)}: {error}") from error
    if not any(isinstance(module, family) for family in FAMILIES):
        families = ", ".join(family.__name__ for family in FAMILIES)
        raise UserError(f"backbone.name={name!r} is of the unknown family {type(module).__name__}; use a {families}")
    return module


def from_hub(name: str, options: Mapping[str, Any]) -> Any:
    """timm's own download. Its head is removed only afterwards: asked for none, timm would load without strictness."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a line for every try; the last error is told below
    try:
        module: Any = timm.create_model(name, pretrained=True, drop_path_rate=0.0, **options)
    except Exception as error:  # whatever the network, the hub or the disk raise; the cause stays attached
        raise UserError(f"can't load {name} from timm's hub ({type(error).__name__}: {error}); {WAY_OUT}") from error
    module.reset_classifier(0)
    return module


def check_weights(weights: str) -> None:
    """Raise UserError if `weights` is a file that doesn't exist."""
    if weights not in ("pretrained", "random") and not weights_file(weights).is_file():
        raise UserError(f"no trunk weights at {weights or 'an empty path'}; {WAY_OUT}")


def weights_file(weights: str) -> Path:
    """The file named by `weights`; one that begins with `aim:` is in this package."""
    if weights.startswith("aim:"):
        return Path(__file__).parents[1] / weights.removeprefix("aim:")
    return Path(weights).expanduser()


def load_trunk_file(module: Any, path: Path) -> None:
    """Load a trunk's file into the plain timm `module`, strictly.

    What belongs to a head, to text or to a decoder is left out; position embeddings are resampled as timm does.
    """
    tensors = read_tensors(path)
    if is_torchscript(path) and not isinstance(getattr(module.blocks[0].mlp, "act", None), QuickGELU):
        raise UserError(f"{path} is an archive of OpenAI's CLIP, whose activation is QuickGELU; use a backbone.name "
                        "with clip_quickgelu in it")  # fmt: skip
    tensors = without_zero_biases(dino_teacher(hugging_face_clip(tensors, path)), module)
    check_geometry(module, tensors, path)
    family = next(family for family in FAMILIES if isinstance(module, family))
    tensors = FAMILIES[family](tensors, module)
    foreign = ("head.", "decoder_", "mask_token")
    load_tensors(module, {name: x for name, x in tensors.items() if not name.startswith(foreign)}, str(path))


def check_geometry(module: Any, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError for a file with another patch or window size, which timm would resample silently."""
    patch = tuple(module.patch_embed.proj.weight.shape[-2:])
    kernels = {tuple(tensor.shape[-2:]) for tensor in tensors.values() if tensor.ndim == 4 and tensor.shape[1] == 3}
    if kernels and patch not in kernels:
        raise UserError(f"{path} is of patches of {sorted(kernels)[0]} pixels, the model's are {patch}; "
                        "choose another backbone.name, or the file that belongs to it")  # fmt: skip
    for name, own in module.state_dict().items():
        if name.endswith("relative_position_bias_table") and name in tensors and len(tensors[name]) != len(own):
            theirs, ours = ((math.isqrt(len(table)) + 1) // 2 for table in (tensors[name], own))
            raise UserError(f"{path} is of windows of {theirs} patches, the model's have {ours}; "
                            "choose another backbone.name, or the file that belongs to it")  # fmt: skip


def without_zero_biases(tensors: dict[str, Tensor], module: Any) -> dict[str, Tensor]:
    """Leave out attention's biases where they are zero and the model has none, as in DINOv3's public files."""
    if not isinstance(module, Eva) or "storage_tokens" not in tensors:
        return tensors
    own = {name for name, _ in module.named_parameters()}

    def is_idle(name: str) -> bool:
        return name.endswith("attn.qkv.bias") and name.replace("qkv.bias", "q_bias") not in own

    for name in filter(is_idle, tensors):
        if tensors[name].any():
            raise UserError(f"{name} isn't zero, the model has no such bias; use the backbone.name with _qkvb in it")
    return {name: tensor for name, tensor in tensors.items() if not is_idle(name)}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, a checkpoint of torch.save or a TorchScript archive; no code is run.

    Raises UserError where the file is none of these, or holds more than tensors and plain values.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if is_torchscript(path):
            content: Any = read_torchscript(path)
        else:
            # DINO and MAE keep their arguments as a Namespace, mmcv its best score as one of NumPy's numbers.
            with torch.serialization.safe_globals([argparse.Namespace, *NUMPY]):
                content = torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, LookupError, EOFError, TypeError) as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error)) or re.search(r"refuses ([\w.]+)", str(error))
        why = f"it names {foreign[1]}, which isn't run" if foreign else "it is damaged, or something else"
        raise UserError(f"{path} can't be read as safetensors, torch.save or TorchScript: {why}") from error
    for key in ("state_dict", "model", "teacher"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict")
    return {
        str(name).removeprefix("module.").removeprefix("_orig_mod."): tensor
        for name, tensor in content.items()
        if isinstance(tensor, Tensor)
    }


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load all of the module's tensors by name. Raises UserError with both sides, shortened, where they don't fit."""
    check_fit(module, tensors, source)
    module.load_state_dict(tensors)


def check_fit(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise UserError with both sides, shortened, where names or shapes are not the module's."""
    own = module.state_dict()
    problems = []
    if missing := sorted(own.keys() - tensors.keys()):
        problems.append(f"the model needs {shortened(missing)}")
    if foreign := sorted(tensors.keys() - own.keys()):
        problems.append(f"the file has {shortened(foreign)}")
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(own[name].shape)}"
        for name in own.keys() & tensors.keys()
        if tensors[name].shape != own[name].shape
    ]
    if shapes:
        problems.append(f"shapes (file for model) differ: {shortened(sorted(shapes))}")
    if problems:
        raise UserError(f"{source} doesn't fit: {'; '.join(problems)}")


def shortened(items: list[str]) -> str:
    """At most three of them, and the count."""
    return f"{', '.join(items[:3])}{', ...' if len(items) > 3 else ''} ({len(items)})"


def stretch_time(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same tensors for a model with another number of frames: tensors per frame are interpolated linearly."""
    own = model.state_dict()
    return {
        name: stretched(tensor, len(own[name])) if name in own and name.endswith(PER_FRAME) else tensor
        for name, tensor in tensors.items()
    }


def stretched(tensor: Tensor, length: int) -> Tensor:
    """Interpolate "t d" to another number of frames, its ends kept."""
    line = F.interpolate(rearrange(tensor, "t d -> 1 d t"), size=length, mode="linear", align_corners=True)
    return rearrange(line, "1 d t -> t d")


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """The sha256 of the sorted names, shapes and float32 bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def hugging_face_clip(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Rename a CLIP vision tower of transformers to OpenAI's names, which timm reads; other files pass unchanged.

    Raises UserError where a layer has queries without keys and values.
    """
    start = next((name for name in tensors if name.endswith("embeddings.class_embedding")), None)
    if start is None:
        return tensors
    prefix = start.removesuffix("embeddings.class_embedding")
    swaps = {
        "embeddings.class_embedding": "class_embedding",
        "embeddings.patch_embedding": "conv1",
        "embeddings.position_embedding.weight": "positional_embedding",
        "pre_layrnorm": "ln_pre",
        "post_layernorm": "ln_post",
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
        for theirs, ours in swaps.items():
            name = name.replace(theirs, ours)
        renamed[f"visual.{name}"] = tensor
    return renamed


def dino_teacher(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone of a DINO training checkpoint, without its projection head; other files pass unchanged."""
    inner = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    return inner if "cls_token" in inner else tensors
