"""Released checkpoints of the public implementation, to ours and back."""

import json
import runpy
import sys

import pytest
import torch
from safetensors import safe_open

from aim.errors import UserError
from aim.models.official import from_official, to_official
from tests.conftest import ROOT
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
    (tmp_path / "classes.txt").write_text("arm wrestling\nbowling\n", encoding="utf-8")
    convert(tmp_path / "in.pth", tmp_path / "ours.safetensors", f"--classes={tmp_path / 'classes.txt'}")
    convert(tmp_path / "ours.safetensors", tmp_path / "out.pth")
    back = torch.load(tmp_path / "out.pth", weights_only=True)["state_dict"]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        assert set(file.keys()) == from_official(state)[1].keys()
        assert json.loads(file.metadata()["classes"]) == ["arm wrestling", "bowling"]


def test_the_script_says_in_one_line_what_is_wrong(tmp_path, convert, capsys):
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, tmp_path / "foreign.pth")
    with pytest.raises(SystemExit) as stopped:
        convert(tmp_path / "foreign.pth", tmp_path / "ours.safetensors")
    assert stopped.value.code == 2
    expected = "no checkpoint of the public implementation: it has conv1.weight, ..."
    assert capsys.readouterr().err.splitlines() == [expected]
    assert not (tmp_path / "ours.safetensors").exists()


def test_an_unknown_tensor_is_named():
    with pytest.raises(UserError, match=r"resblocks\.0\.extra is not a name of vit_clip"):
        from_official({"backbone.transformer.resblocks.0.extra": torch.zeros(1)})
