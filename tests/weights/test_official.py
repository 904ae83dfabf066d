"""Released checkpoints of the public implementation, to ours and back."""

import json
import runpy
import sys

import pytest
import torch
from safetensors import safe_open

from aim.predict import verb as predict
from scripts.convert_official import from_official, to_official
from tests.conftest import ROOT
from tests.messages import named, refused
from tests.models.test_golden import FILES, load, recorded


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
    recogniser = predict.load(tmp_path / "ours.safetensors")
    assert recogniser.classes == [f"class {i}" for i in range(cfg["num_classes"])]
    with torch.inference_mode():
        torch.testing.assert_close(recogniser.model(rest["input"]), rest["logits"], rtol=1e-4, atol=1e-5)
    convert(tmp_path / "in.pth", tmp_path / "bare.safetensors")
    with refused("+experiment=NAME"):
        predict.load(tmp_path / "bare.safetensors")


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
