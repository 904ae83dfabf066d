"""Outputs and gradients recorded from the public implementation, for every file of shared/golden.

The folder that AIM_GOLDEN names is read, too; a model is built from a file's metadata alone.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from safetensors import safe_open
from torch import Tensor

from aim.adapters.aim import AIM
from aim.adapters.interface import AdapterConfig
from aim.adapters.timesformer import TimeSformer
from aim.models.classifier import Backbone, VideoClassifier, build
from aim.weights.trunk import load_tensors
from scripts.convert_official import from_official, under_public_names
from tests.conftest import shared_folder

TOLERANCE = 1e-4  # of the largest absolute difference, over the largest absolute value
AXES = {
    "vit_clip": ("position", "position"),
    "timesformer": ("position", "position"),
    "vit_imagenet": ("frame", "frame"),
    "swin2d_adapter": ("clip_position", "frame"),
}


def folders() -> list[Path]:
    """The shared one, and AIM_GOLDEN where that is another."""
    more = os.environ.get("AIM_GOLDEN")
    return list(dict.fromkeys(path.resolve() for path in (shared_folder() / "golden", *([Path(more)] if more else []))))


def recorded(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("config", "{}"))


FILES = [path for folder in folders() for path in sorted(folder.glob("*.safetensors")) if "model" in recorded(path)]


def unique_stem(path: Path) -> str:
    """The test's id: the stem, and for a shared file the folder before it where AIM_GOLDEN has one of that name."""
    again = path.parent == folders()[0] and [other.stem for other in FILES].count(path.stem) > 1
    return f"shared-{path.stem}" if again else path.stem


def rebuilt(cfg: dict[str, Any]) -> VideoClassifier:
    """The model that the metadata describe, with random weights."""
    if cfg["model"] == "swin2d_adapter":
        tubelet, patch, _ = cfg["patch_size"]
        name = "swin_tiny_patch4_window7_224"
        options = {
            "patch_size": patch,
            "embed_dim": cfg["embed_dim"],
            "depths": cfg["depths"],
            "num_heads": cfg["heads"],
            "window_size": cfg["window_size"],
        }
    else:
        tubelet = 1
        name = "vit_base_patch16_224" if cfg["model"] == "vit_imagenet" else "vit_base_patch16_clip_quickgelu_224"
        options = {
            "patch_size": cfg["patch_size"],
            "embed_dim": cfg["width"],
            "depth": cfg["layers"],
            "num_heads": cfg["heads"],
        }
    backbone = Backbone(
        name=name,
        weights="random",
        mean=[0.5] * 3,
        std=[0.5] * 3,
        trainable=[] if tubelet > 1 else ["backbone.trunk.norm.*"],
        drop_path_axes=AXES[cfg["model"]],
        tubelet=tubelet,
        options=options | {"img_size": cfg["resolution"]},
    )
    adapter: AdapterConfig
    if cfg["model"] == "timesformer":
        # The public script trains by name, so it trains no other addition of this baseline.
        trainable = ["*.adapters.time.linear.*", "*.temporal_embedding.*"]
        adapter = TimeSformer(drop_path=0.1, drop_path_axis="published", trainable=trainable, train_norm=True)
    else:
        adapter = AIM(
            ratio=0.25,
            scale=cfg["adapter_scale"],
            drop_path=0.2,
            drop_path_axis="published",
            temporal=True,
            temporal_in=cfg.get("num_tadapter") == 2,
            spatial=True,
            joint=True,
            blocks="all",
            trainable=["*.adapters.*"],
            train_norm=tubelet == 1,
        )
    return build(
        backbone,
        adapter,
        num_classes=cfg["num_classes"],
        num_frames=cfg["input_frames"],
        size=cfg["resolution"],
        dropout=0.0,
    )


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The recordings: the public state dict, the gradients, and all others."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    state = {name.removeprefix("state/"): t for name, t in tensors.items() if name.startswith("state/")}
    grad = {name.removeprefix("grad/"): t for name, t in tensors.items() if name.startswith("grad/")}
    return state, grad, {name: t for name, t in tensors.items() if "/" not in name}


def computed(model: VideoClassifier, kind: str, rest: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same quantities from our model, the gradients under their public names."""
    seen: list[Tensor] = []
    with model.backbone.trunk.norm.register_forward_hook(lambda module, args, out: seen.append(out)):
        logits = model.eval()(rest["input"])
    loss = F.cross_entropy(logits, rest["label"])
    loss.backward()
    views = len(logits) // len(rest["prob_mean"])
    if kind == "swin2d_adapter":
        features = rearrange(seen[0], "(b t) h w d -> b d t h w", b=len(logits))
    else:
        features = rearrange(seen[0][:, 0], "(b t) d -> b d t 1 1", b=len(logits))
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    public = under_public_names(kind, gradients)
    return {
        "features": features,
        "logits": logits,
        "prob_mean": reduce(logits.softmax(-1), "(b v) k -> b k", "mean", v=views),
        "loss": loss.reshape(1),
    } | {f"grad/{name}": tensor for name, tensor in public.items()}


def both(path: Path, *, perturb: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Our quantities and the recorded ones."""
    cfg = recorded(path)
    state, grad, rest = load(path)
    model = rebuilt(cfg)
    kind, tensors = from_official(state)
    assert kind == cfg["model"]
    load_tensors(model, tensors, path.name)
    if perturb:
        with torch.no_grad():
            next(p for name, p in model.named_parameters() if name.endswith("attn.qkv.weight"))[0, 0] += 1
    theirs = {name: rest[name] for name in ("features", "logits", "prob_mean", "loss")}
    return computed(model, kind, rest), theirs | {f"grad/{name}": tensor for name, tensor in grad.items()}


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return max(relative(ours[name], theirs[name]) for name in theirs)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def test_the_recorded_files_are_there(shared: Path) -> None:
    assert all(folder.is_dir() for folder in folders())
    assert folders()[0] in {path.parent for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=unique_stem)
def test_outputs_and_gradients_are_the_public_ones(path: Path) -> None:
    ours, theirs = both(path)
    assert ours.keys() == theirs.keys()  # the same tensors are trained
    assert worst(ours, theirs) < TOLERANCE


@pytest.mark.parametrize("path", FILES, ids=unique_stem)
def test_one_perturbed_weight_is_noticed(path: Path) -> None:
    ours, theirs = both(path, perturb=True)
    assert worst(ours, theirs) > TOLERANCE
