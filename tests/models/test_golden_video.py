"""Outputs and gradients recorded from Meta's V-JEPA 2 and 2.1, for every file of shared/golden_video.

The folder that AIM_GOLDEN_VIDEO names is read, too; a model is built from a file's metadata alone. A file without a
state names the one beside it that has it.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from aim.adapters.interface import BlockView, Place, Readout, Tokens
from aim.models.families import FAMILIES
from aim.models.trunk import load_trunk
from aim.models.video_vit import TUBELET, JointViT
from aim.weights.trunk import load_tensors
from scripts.convert_official import probe_names
from tests.conftest import shared_folder
from tests.models.toys import adapter

TOLERANCE = 1e-5  # relative, of the 2-norm
NAMES = {"vjepa20": "vjepa2_large", "vjepa21": "vjepa21_base"}
LAYERS = {12: (2, 5, 8, 11), 24: (5, 11, 17, 23), 40: (9, 19, 29, 39), 48: (11, 23, 37, 47)}  # with a norm, by depth


def folders() -> list[Path]:
    """The shared one, and AIM_GOLDEN_VIDEO where that is another."""
    more = os.environ.get("AIM_GOLDEN_VIDEO")
    found = (shared_folder() / "golden_video", *([Path(more)] if more else []))
    return list(dict.fromkeys(path.resolve() for path in found))


def recorded(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("config", "{}"))


FILES = [path for folder in folders() for path in sorted(folder.glob("*.safetensors")) if "model" in recorded(path)]
ENCODERS = [path for path in FILES if recorded(path)["model"] in NAMES]


def unique_stem(path: Path) -> str:
    again = path.parent == folders()[0] and [other.stem for other in FILES].count(path.stem) > 1
    return f"shared-{path.stem}" if again else path.stem


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The public state dict, and all others."""
    tensors = load_file(path)
    source = recorded(path).get("state_from")
    stored = load_file(path.parent / source) if source else tensors
    state = {name.removeprefix("state/"): t for name, t in stored.items() if name.startswith("state/")}
    return state, {name: t for name, t in tensors.items() if not name.startswith("state/")}


class Everything(Readout):
    """Reads the tokens of all blocks."""

    dim = 1

    def forward(self, blocks: Sequence[Tensor], last: Tensor) -> Tensor:
        return last


class Reading:
    """An adapter that changes nothing."""

    trainable = ()
    train_norm = temporal = False

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        return view.block

    def readout(self, dims: Sequence[int], tokens: Tokens) -> Readout:
        return Everything()


def rebuilt(cfg: dict[str, Any], state: dict[str, Tensor], video: Tensor, folder: Path) -> JointViT:
    """The model that the metadata describe for clips of this shape, its weights through a file in Meta's format."""
    frames, *size = video.shape[2:]
    path = folder / "public.pt"
    torch.save({"ema_encoder": {f"module.backbone.{name}": x for name, x in state.items()}, "epoch": 1}, path)
    options = {
        "embed_dim": cfg["embed_dim"],
        "depth": cfg["depth"],
        "num_heads": cfg["num_heads"],
        "mlp_ratio": cfg["mlp_ratio"],
        "patch_size": cfg["patch_size"],
    }
    trunk = load_trunk(NAMES[cfg["model"]], str(path), 16 * cfg["patch_size"], options, FAMILIES)
    trunk.module.img_size = tuple(size)  # load_trunk takes squares, as clips are
    image = frames == 1 and cfg["model"] == "vjepa21"
    tubelet = 1 if image else TUBELET
    trunk.family.set_tubelet(trunk.module, tubelet)
    model = trunk.family.as_video(trunk.module, Reading(), frames // tubelet, ("clip", "clip"))
    assert isinstance(model, JointViT)
    return model.eval()


def computed(model: JointViT, cfg: dict[str, Any], state: dict[str, Tensor], rest: dict[str, Tensor], prefix: str):
    """The recorded quantities of an input, "" for the clip and "image_" for the image, from our model."""
    video = rest[f"{prefix}input"].clone().requires_grad_()
    *blocks, last = model.frozen(video)
    blocks = [rearrange(x, "b t n d -> b (t n) d") for x in blocks]
    output = rearrange(last, "b t n d -> b (t n) d")
    (output * rest[f"{prefix}upstream"]).sum().backward()
    found = {
        f"{prefix}output": output,
        f"grad/{prefix}input": video.grad,
        f"grad/{prefix}blocks.0.attn.qkv.weight": model.trunk.blocks[0].attn.qkv.weight.grad,
    }
    found |= {f"{prefix}tokens_block{i}": x for i, x in enumerate(blocks)}
    norms = [f"norms_block.{i}" for i in range(4) if f"norms_block.{i}.weight" in state]
    layers = LAYERS.get(len(blocks), ())[-len(norms) :] if norms else ()
    joint = [
        F.layer_norm(blocks[i], output.shape[-1:], state[f"{norm}.weight"], state[f"{norm}.bias"], 1e-6)
        for i, norm in zip(layers, norms, strict=False)
    ]
    return found | ({f"{prefix}output_hierarchical": torch.cat(joint, -1)} if joint else {})


def both(path: Path, folder: Path, *, perturb: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Our quantities and the recorded ones."""
    cfg = recorded(path)
    state, rest = load(path)
    if perturb:
        state = state | {"blocks.0.attn.qkv.weight": state["blocks.0.attn.qkv.weight"] + 0.001}
    theirs = {name: x for name, x in rest.items() if not name.endswith(("upstream", "input")) or "/" in name}
    ours = {}
    for prefix in ("", "image_"):
        if f"{prefix}input" in rest:
            model = rebuilt(cfg, state, rest[f"{prefix}input"], folder)
            ours |= computed(model, cfg, state, rest, prefix)
    return ours, theirs


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return max(((ours[name] - x).norm() / x.norm()).item() for name, x in theirs.items())


def test_the_recorded_files_are_there(shared: Path) -> None:
    assert all(folder.is_dir() for folder in folders())
    assert folders()[0] in {path.parent for path in FILES}
    known = {*NAMES, "attentive_classifier"}
    assert {recorded(path)["model"] for path in FILES} <= known


@pytest.mark.parametrize("path", ENCODERS, ids=unique_stem)
def test_outputs_and_gradients_are_the_public_ones(path: Path, tmp_path: Path) -> None:
    assert worst(*both(path, tmp_path)) < TOLERANCE


@pytest.mark.parametrize("path", ENCODERS, ids=unique_stem)
def test_a_perturbed_weight_is_noticed(path: Path, tmp_path: Path) -> None:
    assert worst(*both(path, tmp_path, perturb=True)) > TOLERANCE


CLASSIFIERS = [path for path in FILES if recorded(path)["model"] == "attentive_classifier"]


class Classifier(nn.Module):
    """Our probe under a head, for tokens "b n d", with the names of a whole model's."""

    def __init__(self, cfg: dict[str, Any], n: int) -> None:
        super().__init__()
        settings = adapter("vjepa_probe", depth=cfg["depth"], heads=cfg["num_heads"], mlp_ratio=cfg["mlp_ratio"])
        readout = settings.readout([cfg["embed_dim"]], Tokens(1, 1, n, 0))
        assert readout is not None
        self.backbone = nn.ModuleDict({"adapters": nn.ModuleDict({"readout": readout})})
        self.head = nn.Linear(cfg["embed_dim"], cfg["num_classes"])

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.backbone["adapters"]["readout"]([], rearrange(tokens, "b n d -> b 1 n d"))
        return pooled, self.head(pooled.mean(1))


def probed(path: Path, *, perturb: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Pooled tokens, logits and gradients of our classifier, and the recorded ones."""
    state, rest = load(path)
    tokens = rest["input"].clone().requires_grad_()
    model = Classifier(recorded(path), tokens.shape[1]).eval()
    load_tensors(model, probe_names({f"module.{name}": x for name, x in state.items()}, path), path.name)
    readout: Any = model.backbone["adapters"]["readout"]  # type: ignore[index]
    if perturb:
        with torch.no_grad():
            readout.out.attend.q.bias += 0.01
    pooled, logits = model(tokens)
    (logits * rest["upstream"]).sum().backward()
    ours = {
        "pooled": pooled,
        "logits": logits,
        "grad/input": tokens.grad,
        "grad/pooler.query_tokens": readout.out.attend.latent.grad,
        "grad/linear.weight": model.head.weight.grad,
    }
    return ours, {name: x for name, x in rest.items() if name not in ("input", "upstream")}


@pytest.mark.parametrize("path", CLASSIFIERS, ids=unique_stem)
def test_the_probe_is_that_of_vjepa(path: Path) -> None:
    assert worst(*probed(path)) < TOLERANCE
    assert worst(*probed(path, perturb=True)) > TOLERANCE
