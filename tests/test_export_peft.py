"""LoRA in PEFT's format, as the installed peft reads it onto timm's own trunk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import timm
import torch
from einops import rearrange
from safetensors.torch import load_file

from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.engine.scores.tasks import SINGLE_LABEL
from aim.engine.trained.recogniser import Trained
from aim.export import peft as ours
from aim.models.classifier import VideoClassifier
from tests.messages import refused
from tests.models.checks import toy_model
from tests.models.checks import video as clips
from tests.models.test_trunks import FAMILIES, plain
from tests.models.toys import FRAMES, SIZE, adapter, toy
from tests.test_export import write

CLASSES = list("abcde")


def tuned(trunk: str, folder: Path, **overrides: Any) -> tuple[VideoClassifier, Trained, Any]:
    """A toy with LoRA far from its start, its settings, and timm's model of the same trunk with an untrained head."""
    path = folder / "trunk.safetensors"
    weights = plain(trunk, path).state_dict()
    model = toy_model("lora", trunk, path, **overrides).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    clip, views = Clip(FRAMES, 1, SIZE, "uniform"), Views(temporal=1, spatial=1, resize=SIZE)
    trained = Trained(toy(trunk, str(path)), adapter("lora", **overrides), clip, views, SINGLE_LABEL)
    theirs = timm.create_model(trained.backbone.name, num_classes=len(CLASSES), **trained.backbone.options).eval()
    theirs.load_state_dict(weights, strict=False)
    return model, trained, theirs


@pytest.mark.parametrize("layers", [["attn.*", "mlp.*"], ["attn.q*", "attn.v*"], ["attn.k*", "mlp.fc2"]], ids=str)
@pytest.mark.parametrize("trunk", [trunk for trunk in FAMILIES if trunk != "swin_t"])
def test_peft_itself_gives_the_trunk_the_same_outputs(trunk: str, layers: list[str], tmp_path: Path) -> None:
    model, trained, theirs = tuned(trunk, tmp_path, layers=layers, rank=3, alpha=5)
    frames = rearrange(clips(), "b c t h w -> (b t) c h w")
    before = theirs(frames)
    said = ours.export(model, trained, CLASSES, tmp_path / "a.peft")
    assert f"timm.create_model({trained.backbone.name!r}, pretrained=True, num_classes=5, " in said
    loaded = peft.PeftModel.from_pretrained(theirs, tmp_path / "a.peft").eval()
    with torch.no_grad():
        logits = rearrange(loaded(frames), "(b t) k -> b t k", t=FRAMES).mean(1)
        expected = model(clips())
    assert expected.std() > 0.1
    assert (logits - rearrange(before, "(b t) k -> b t k", t=FRAMES).mean(1)).abs().max() > 0.1
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "a.peft" / "classes.txt").read_text().split() == CLASSES


def test_a_fused_qkv_has_one_pair_of_matrices(tmp_path: Path) -> None:
    model, trained, _ = tuned("clip_vit_b16", tmp_path, layers=["attn.q", "attn.v", "attn.proj"], rank=2, alpha=6)
    ours.export(model, trained, CLASSES, tmp_path / "a.peft")
    config = json.loads((tmp_path / "a.peft" / "adapter_config.json").read_text())
    fused = [f"blocks.{i}.attn.qkv" for i in range(3)]
    assert config["rank_pattern"] == dict.fromkeys(fused, 4)
    assert config["alpha_pattern"] == dict.fromkeys(fused, 12)
    assert (config["r"], config["lora_alpha"], config["modules_to_save"]) == (2, 6, ["head"])
    tensors = load_file(tmp_path / "a.peft" / "adapter_model.safetensors")
    down, up = (tensors[f"base_model.model.{fused[0]}.lora_{x}.weight"] for x in "AB")
    assert (down.shape, up.shape) == ((4, 32), (96, 4))
    layer = model.backbone.trunk.blocks[0].attn.qkv
    torch.testing.assert_close(3 * up @ down, layer.weight - layer.parametrizations.weight.original)
    assert not up[32:64].any()


@pytest.mark.parametrize(
    ("trunk", "changes", "expected"),
    [
        ("clip_vit_b16", {"adapter": adapter("adaptformer")}, ["adapter=lora", "out=FILE.onnx"]),
        ("swin_t", {}, ["backbone.name", "tubelet=2", "out=FILE.onnx"]),
        ("clip_vit_b16", {"weights": "random"}, ["weights=random", "out=FILE.onnx"]),
        ("clip_vit_b16", {"trainable": ["*.adapters.*", "*norm.weight"]}, ["backbone.trunk.norm.weight", "FILE.onnx"]),
    ],
    ids=["another adapter", "tubelets", "a trunk of its own", "more than LoRA"],
)
def test_what_peft_cant_say_is_one_clear_line(
    trunk: str, changes: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    weights, kind = changes.pop("weights", None), changes.pop("adapter", None)
    model, trained, _ = tuned(trunk, tmp_path, **changes)
    trained = replace(trained, adapter=kind or trained.adapter)
    trained = replace(trained, backbone=replace(trained.backbone, weights=weights or trained.backbone.weights))
    with refused("out=DIR.peft", *expected):
        ours.export(model, trained, CLASSES, tmp_path / "a.peft")
    assert [path.name for path in tmp_path.iterdir()] == ["trunk.safetensors"]


def test_a_layer_that_timm_reads_without_calling_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, trained, _ = tuned("clip_vit_b16", tmp_path, layers=["mlp.fc1"])
    mlp = model.backbone.trunk.blocks[1].mlp
    monkeypatch.setattr(
        mlp, "forward", lambda x: mlp.fc2(mlp.act(torch.nn.functional.linear(x, mlp.fc1.weight, mlp.fc1.bias)))
    )
    with refused("out=DIR.peft", "blocks.1.mlp.fc1", "out=FILE.onnx"):
        ours.export(model, trained, CLASSES, tmp_path / "a.peft")


def test_the_folder_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / "a.peft").mkdir()
    with refused("out=", "a.peft", "exists"):
        write(tmp_path / "nowhere", tmp_path / "a.peft")


def test_a_checkpoint_without_lora_is_refused(unbroken: Path, tmp_path: Path) -> None:
    with refused("out=DIR.peft", "adapter=lora", "out=FILE.onnx"):
        write(unbroken, tmp_path / "a.peft")
    assert not list(tmp_path.iterdir())
