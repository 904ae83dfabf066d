"""Released checkpoints of the public implementation, to ours and back."""

import json
import runpy
import sys

import pytest
import torch
import transformers
from safetensors import safe_open

from aim.engine.trained import recogniser as trained
from scripts.convert_official import from_official, to_official
from tests.conftest import ROOT
from tests.messages import named, refused
from tests.models.test_golden import FILES, load, recorded
from tests.models.test_video_vit import vjepa2


@pytest.fixture
def convert(monkeypatch):
    def run(*arguments):
        script = str(ROOT / "scripts" / "convert_official.py")
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        runpy.run_path(script, run_name="__main__")

    return run


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_there_and_back_changes_no_number(path):
    state, _, _ = load(path)
    model, tensors = from_official(state)
    back = to_official(model, tensors, recorded(path)["resolution"])
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


def test_the_script_converts_both_ways(tmp_path, convert):
    path = next(path for path in FILES if recorded(path)["model"] == "swin2d_adapter")
    state, _, _ = load(path)
    torch.save({"meta": {"epoch": 30}, "state_dict": state, "optimizer": {"state": {}}}, tmp_path / "in.pth")
    names = [f"action {i}" for i in range(recorded(path)["num_classes"])]
    (tmp_path / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    convert(tmp_path / "in.pth", tmp_path / "ours.safetensors", f"--classes={tmp_path / 'classes.txt'}")
    convert(tmp_path / "ours.safetensors", tmp_path / "out.pth")
    back = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert set(file.keys()) == from_official(state)[1].keys()
        assert json.loads(file.metadata()["classes"]) == names


def test_a_converted_checkpoint_with_its_settings_is_a_recogniser(tmp_path, convert):
    path = next(path for path in FILES if recorded(path)["model"] == "vit_clip")
    state, _, rest = load(path)
    cfg = recorded(path)
    torch.save({"state_dict": state}, tmp_path / "in.pth")
    sizes = f"patch_size: {cfg['patch_size']}, embed_dim: {cfg['width']}, depth: {cfg['layers']}"
    overrides = [
        "+experiment=k400",
        f"+backbone.options={{img_size: {cfg['resolution']}, {sizes}, num_heads: {cfg['heads']}}}",
        f"adapter.temporal_in={str(cfg['num_tadapter'] == 2).lower()}",
        f"clip.num_frames={cfg['input_frames']}",
        f"clip.size={cfg['resolution']}",
    ]
    convert(tmp_path / "in.pth", tmp_path / "ours.safetensors", *overrides)
    recogniser = trained.load(tmp_path / "ours.safetensors")
    assert recogniser.classes == [f"class {i}" for i in range(cfg["num_classes"])]
    with torch.inference_mode():
        torch.testing.assert_close(recogniser.model(rest["input"]), rest["logits"], rtol=1e-4, atol=1e-5)
    convert(tmp_path / "in.pth", tmp_path / "bare.safetensors")
    with refused("+experiment=NAME"):
        trained.load(tmp_path / "bare.safetensors")


def test_a_checkpoint_of_another_experiment_is_refused(tmp_path, convert, capsys):
    torch.save({"state_dict": load(FILES[0])[0]}, tmp_path / "in.pth")
    with pytest.raises(SystemExit):
        convert(tmp_path / "in.pth", tmp_path / "ours.safetensors", "+experiment=k400_b16_32f")
    named(capsys.readouterr().err, "error:", "in.pth", "(128,)", "(768,)")
    assert not (tmp_path / "ours.safetensors").exists()


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("headless.pth", "ours.safetensors", ["headless.pth", "cls_head.fc_cls.bias"]),
        ("garbage.safetensors", "theirs.pth", ["garbage.safetensors"]),
        ("headless.pth", "nowhere/ours.safetensors", ["nowhere"]),
    ],
)
def test_what_cannot_be_converted_gets_one_line(tmp_path, convert, capsys, source, target, expected):
    state = {name: tensor for name, tensor in load(FILES[0])[0].items() if not name.endswith("fc_cls.bias")}
    torch.save({"state_dict": state}, tmp_path / "headless.pth")
    (tmp_path / "garbage.safetensors").write_text("garbage")
    with pytest.raises(SystemExit):
        convert(tmp_path / source, tmp_path / target)
    named(capsys.readouterr().err, "error:", *expected)


def test_the_number_of_class_names_is_checked(tmp_path, convert, capsys):
    path = next(path for path in FILES if recorded(path)["model"] == "vit_clip")
    torch.save({"state_dict": load(path)[0]}, tmp_path / "in.pth")
    (tmp_path / "classes.txt").write_text("one\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        convert(tmp_path / "in.pth", tmp_path / "ours.safetensors", f"--classes={tmp_path / 'classes.txt'}")
    named(capsys.readouterr().err, "in.pth", "--classes", "1")


def test_the_script_says_in_one_line_what_is_wrong(tmp_path, convert, capsys):
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, tmp_path / "foreign.pth")
    with pytest.raises(SystemExit) as stopped:
        convert(tmp_path / "foreign.pth", tmp_path / "ours.safetensors")
    assert stopped.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    named(said, "error:", "conv1.weight")
    assert not (tmp_path / "ours.safetensors").exists()


def test_an_unknown_tensor_is_named():
    with refused("resblocks.0.extra", "vit_clip"):
        from_official({"backbone.transformer.resblocks.0.extra": torch.zeros(1)})


@pytest.mark.parametrize("theirs", ["probe.pt", "model.safetensors"])
def test_a_published_probe_and_its_trunk_are_a_recogniser(tmp_path, convert, capsys, theirs):
    """Meta's list of classifiers, and transformers' file of both; the trunk is read from its own file."""
    model = vjepa2(8, kind=transformers.VJEPA2ForVideoClassification)
    for part in model.pooler.modules():
        if isinstance(part, torch.nn.LayerNorm):
            part.eps = 1e-5
    model.save_pretrained(tmp_path)
    trunk = tmp_path / "model.safetensors"
    torch.save({"classifiers": [as_meta(model)], "epoch": 20}, tmp_path / "probe.pt")
    overrides = [
        "+experiment=ssv2_vjepa2_l", f"backbone.weights={trunk}", "clip.num_frames=8", "clip.size=32",
        "+backbone.options={embed_dim: 32, depth: 3, num_heads: 2, patch_size: 8}", "adapter.heads=2",
    ]  # fmt: skip
    convert(tmp_path / theirs, tmp_path / "ours.safetensors", *overrides)
    recogniser = trained.load(tmp_path / "ours.safetensors")
    video = torch.rand(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = model(video.transpose(1, 2)).logits
        torch.testing.assert_close(recogniser.model(video), logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(SystemExit):
        convert(tmp_path / "probe.pt", tmp_path / "ours.safetensors")
    named(capsys.readouterr().err, "probe.pt", "+experiment=NAME", "backbone.weights=FILE")
    with pytest.raises(SystemExit):
        convert(tmp_path / "probe.pt", tmp_path / "ours.safetensors", *overrides, "adapter.depth=3")
    named(capsys.readouterr().err, "probe.pt", "(12)")


def as_meta(model):
    """The probe of transformers under Meta's names."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("vjepa2.") or "k_proj" in name or "v_proj" in name:
            continue
        parts = [model.state_dict()[name.replace("q_proj", f"{x}_proj")] for x in "kv"]
        short = name.replace("self_attention_layers", "blocks").replace(
            "cross_attention_layer", "cross_attention_block"
        )
        short = short.replace("layer_norm", "norm").replace("classifier", "linear").replace("out_proj", "proj")
        if "self_attn.q_proj" in short:
            tensor = torch.cat([tensor, *parts])
        if "cross_attn.q_proj" in short:
            state["module." + short.replace("cross_attn.q_proj", "xattn.kv")] = torch.cat(parts)
        short = short.replace("self_attn.q_proj", "attn.qkv").replace("self_attn", "attn")
        state["module." + short.replace("cross_attn.q_proj", "xattn.q")] = tensor
    return state
