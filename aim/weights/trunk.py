"""The tensors of a trunk's file: their place, reading and fit.

A trunk's file may be OpenAI's CLIP (TorchScript archive or state dict), open_clip, Hugging Face's CLIP, timm,
DINO, DINOv2, DINOv3, Swin's or any other that timm itself can read. scripts/convert_official.py converts released AIM
checkpoints.
"""

import argparse
import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from aim.ground.errors import UserError
from aim.ground.foreign import reading
from aim.weights.hub import downloaded, file_here, on_hub, parts_of
from aim.weights.torchscript import is_torchscript, read_torchscript

USUAL = "model.safetensors"  # of a repository on the hub
OFFLINE = "without a network, download it elsewhere and set backbone.weights=FILE"
WAY_OUT = "set backbone.weights to pretrained (timm's hub), to a file, or to random"
PER_FRAME = ("temporal_embedding.weight", "temporal_bias", "readout.time")  # endings of names: one entry per frame
SCALAR: Any = np.float64(0).__reduce__()[0]  # the function that rebuilds a NumPy scalar from a pickle
NUMPY = [
    (SCALAR, "numpy.core.multiarray.scalar"),  # its name until NumPy 2
    SCALAR,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f8", "f4", "i8", "i4", "?")),
]
USUAL_KEYS = ("state_dict", "model", "teacher")  # prefixes of a model's tensors in training checkpoints


def from_hub(name: str, options: Mapping[str, Any]) -> Any:
    """timm's own download. Its head is removed afterwards: without one, timm would load without strictness."""
    published = timm.get_pretrained_cfg(name)
    repository = str(published.hf_hub_id) if published and published.hf_hub_id else ""
    with downloaded(name, repository, "model.safetensors", "pytorch_model.bin", way_out=OFFLINE):
        module: Any = timm.create_model(name, pretrained=True, drop_path_rate=0.0, **options)
    module.reset_classifier(0)
    return module


def check_weights(weights: str) -> None:
    """Raise UserError if `weights` is a missing file, or an invalid address on Hugging Face."""
    if on_hub(weights):
        parts_of(weights, "backbone.weights", USUAL)
    elif weights not in ("pretrained", "random") and not weights_file(weights).is_file():
        raise UserError(f"no trunk weights at {weights or 'an empty path'}; {WAY_OUT}")


def weights_file(weights: str) -> Path:
    """The file named by `weights`; `aim:` is in this package, `hf://` is downloaded once.

    Raises UserError if it can't be downloaded.
    """
    if weights.startswith("aim:"):
        return Path(__file__).parents[1] / weights.removeprefix("aim:")
    return file_here(weights, "backbone.weights", USUAL, OFFLINE)


def read_tensors(path: Path, keys: Sequence[str] = USUAL_KEYS) -> dict[str, Tensor]:
    """The tensors of a safetensors file, a checkpoint of torch.save or a TorchScript archive; no code is run.

    A checkpoint may hold them below one of the `keys`. Raises UserError for any other file, or one with more than
    tensors and plain values.
    """
    with reading(path, "safetensors, torch.save or TorchScript", WAY_OUT):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("format", "").startswith("aim-video "):
                    raise UserError(
                        f"{path} is a checkpoint of aim.train, not a trunk; use checkpoint=FILE, or init=FILE"
                    )
            return load_file(path)
        if is_torchscript(path):
            content: Any = read_torchscript(path)
        else:
            # DINO and MAE keep their arguments as a Namespace, mmcv its best score as one of NumPy's numbers.
            with torch.serialization.safe_globals([argparse.Namespace, *NUMPY]):
                content = _loaded(path)
    for key in keys:
        inside = content.get(key) if isinstance(content, dict) else None
        if isinstance(inside, list) and inside:
            inside = inside[0]  # V-JEPA's probes are tuned side by side; published files hold one
        if isinstance(inside, dict):
            content = inside
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict")
    return {
        str(name).removeprefix("module.").removeprefix("_orig_mod."): tensor
        for name, tensor in content.items()
        if isinstance(tensor, Tensor)
    }


def _loaded(path: Path) -> Any:
    """The content of a file of torch.save; no code in it is run. Raises pickle.UnpicklingError in one line."""
    try:
        return torch.load(path, "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:  # of pages
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        why = f"it names {named[1]}, which isn't run" if named else "it is damaged, or something else"
        raise pickle.UnpicklingError(why) from None


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load all of the module's tensors by name. Raises UserError with both sides, shortened, if they don't fit."""
    check_fit(module.state_dict(), tensors, source)
    module.load_state_dict(tensors)


def check_fit(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str, way_out: str = "") -> None:
    """Raise UserError with both sides, shortened, if names or shapes are not a model's `own`."""
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
        raise UserError(f"{source} doesn't fit: {'; '.join(problems)}" + (f"; {way_out}" if way_out else ""))


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
