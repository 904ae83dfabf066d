"""Objects made from the settings of a run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aim.engine.run.settings import Run
from aim.ground import config


def test_memory_and_stored_precision_reach_the_model() -> None:
    for precision, stored in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        overrides = ["+experiment=demo", f"precision={precision}", "train.memory=lean"]
        model = config.build(config.compose(overrides), Run).model(8)
        attn = model.backbone.views[0].block.attn
        assert attn.qkv.weight.dtype == attn.qkv.bias.dtype == stored
        assert model.head.weight.dtype == torch.float32
        assert model.backbone.memory == "lean"


def test_a_tilde_is_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run = config.build(config.compose(["+experiment=demo", "run_dir='~/runs/demo'"]), Run)
    assert run.directory() == tmp_path / "runs" / "demo"


def test_folds_lie_side_by_side_in_the_folder_of_their_sweep() -> None:
    words = ["+experiment=finetune", "data.root=/x/pets", "data.fold=3/10", "data.groups='p(.)'"]
    run = config.build(config.compose(words), Run)
    assert run.directory(overrides=words).as_posix() == "runs/finetune,data.groups=p_._,data.root=pets/fold3of10"
    assert replace(run, run_dir="here").directory() == Path("here")
