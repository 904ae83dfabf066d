"""Frozen blocks sharded over ranks."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from aim.engine.machine import sharding
from aim.engine.machine.distributed import World
from aim.engine.run.settings import Run
from aim.ground import config
from aim.models.classifier import VideoClassifier
from tests.conftest import ROOT
from tests.messages import refused
from tests.programs import command
from tests.toy import TOY, journal, run

CPU = torch.device("cpu")


def model(*overrides: str) -> VideoClassifier:
    return config.build(config.compose([*TOY, *overrides]), Run).model(8)


@pytest.fixture
def trunk(tmp_path: Path) -> str:
    """The toy's trunk as a file."""
    backbone = config.build(config.compose(TOY), Run).backbone
    torch.manual_seed(0)
    made = timm.create_model(backbone.name, num_classes=0, **backbone.options)
    save_file(made.state_dict(), tmp_path / "trunk.safetensors")
    return f"backbone.weights={tmp_path / 'trunk.safetensors'}"


def test_a_trunk_that_fits_is_refused_with_the_arithmetic() -> None:
    made = model()
    number = sum(p.numel() for name, p in made.named_parameters() if ".block." in name and not p.requires_grad)
    gigabytes = f"{4 * number / 1e9:.2f}"
    with refused("train.shard=true", f"{number / 1e6:.0f}", gigabytes, "3"):
        sharding.shard(made, World(0, 2, CPU), parts=3, least=2_000_000)
    with torch.device("meta"):
        large = model("backbone.name=vit_large_patch16_224", "backbone.options={embed_dim: 1024, depth: 24}")
    with refused("302", "1.21", "GB", "2000", "train.shard=true"):
        sharding.shard(large, World(0, 2, CPU), parts=1)


def test_one_rank_and_a_random_trunk_are_refused(trunk: str) -> None:
    with refused("train.shard=true", "rank", "GPUs"):
        sharding.shard(model(trunk), World(0, 1, CPU), parts=1, least=0)
    with refused("backbone.weights=random", "train.shard=true"):
        sharding.shard(model(), World(0, 2, CPU), parts=1, least=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "precision", "tolerance"),
    [("aim_demo", "fp32", 1e-4), ("aim_demo", "bf16", 0.03), ("attentive_probe", "fp32", 1e-4), ("none", "fp32", 1e-4)],
)
def test_losses_and_weights_are_those_of_a_whole_trunk(
    tmp_path: Path, toy_cache: Path, trunk: str, adapter: str, precision: str, tolerance: float
) -> None:
    """Three ranks, with six, five and five batches in a validation."""
    settings = [trunk, f"adapter={adapter}", f"precision={precision}", "train.batch_size=9"]
    expected = run(tmp_path / "whole", *settings)
    sharded = ["train.shard=true", "train.accumulate=3"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for _ in range(2):  # at the second time it has only to be tested
        overrides = [*TOY, *settings, f"run_dir={tmp_path / 'shared'}", *sharded]
        done = subprocess.run(
            command("launches", 3, 0, "tests.programs.shards_trunk", *overrides),
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("holds") == 3
        found = json.loads((tmp_path / "shared" / "results.json").read_text(encoding="utf-8"))
        for key in ("top1", "num_videos", "num_missing", "gmacs_per_view"):
            assert found[key] == expected[key]
        (tmp_path / "shared" / "results.json").unlink()
    for now, before in zip(journal(tmp_path / "shared"), journal(tmp_path / "whole"), strict=True):
        assert now["step"] == before["step"]
        assert now.get("loss", 0.0) == pytest.approx(before.get("loss", 0.0), rel=tolerance)
    weights, others = (load_file(tmp_path / name / "best.safetensors") for name in ("whole", "shared"))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, rtol=tolerance, atol=tolerance / 10)
