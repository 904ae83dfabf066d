"""Every experiment composes and builds on the meta device, with the sizes that the paper prints."""

import re

import pytest
import torch

from aim.engine.loop.optim import adamw
from aim.engine.run.settings import Run
from aim.ground import choices, config
from aim.models.classifier import VideoClassifier
from aim.models.flops import gmacs_per_view
from aim.models.vit import ViT
from tests.adapters.test_aim import aim_count
from tests.ground.test_config import EXPERIMENTS

CLASSES = {"k400": 400, "k700": 700, "ssv2": 174, "diving48": 48, "demo": 8, "demo_hard": 8, "folder": 10}

# Tuned parameters that field.md section 1.1 derives: adapters + temporal embedding + last norm + head.
EXACT = {
    "k400": 10_966_672,
    "k400_b16_32f": 10_985_104,
    "k400_l14_32f": 38_285_712,
    "diving48": 10_714_416,
    "ssv2": 14_343_342,
    "ssv2_l14": 50_643_118,
}


def published(name: str) -> tuple[float, int, int, int, str] | None:
    """GMACs of all views, millions of parameters and of tuned ones, and the protocol, from an experiment's head."""
    head = (choices.CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1]
    found = re.search(r"(\d+) frames x (\d) clips? x (\d) crops?: .* (\d+) GMACs, (\d+) / (\d+) M", head)
    if found is None:
        return None
    frames, temporal, spatial, gmacs, total, tuned = found.groups()
    return float(gmacs), int(total), int(tuned), int(temporal) * int(spatial), f"{frames}x{temporal}x{spatial}"


def build(name: str) -> tuple[Run, VideoClassifier]:
    run = config.build(config.compose([f"+experiment={name}", "backbone.weights=random", "data.root=x"]), Run)
    with torch.device("meta"):
        return run, run.model(run.data.num_classes or 10)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_builds_and_has_the_published_size(name: str) -> None:
    run, model = build(name)
    adamw(model, run.optim)
    run.check_augmentation()
    run.check_batch(1)
    assert run.name == name
    total = sum(p.numel() for p in model.parameters())
    tuned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if name in EXACT:
        assert tuned == EXACT[name]
    numbers = published(name)
    if numbers is not None:
        gmacs, total_m, tuned_m, views, protocol = numbers
        assert run.views.protocol(run.clip.num_frames) == protocol
        assert abs(total / 1e6 - total_m) < 1
        assert abs(tuned / 1e6 - tuned_m) < 1
        assert gmacs_per_view(model) * views == pytest.approx(gmacs, rel=0.01)
        assert isinstance(model.backbone, ViT)
        dim, depth = model.backbone.dim, len(model.backbone.trunk.blocks)
        adapters = 4 if run.name.startswith("ssv2") else 3
        assert tuned == aim_count(dim, depth, model.head.out_features, run.clip.num_frames, adapters)


@pytest.mark.parametrize("trunk", ["eva02_vit_b14", "siglip2_vit_b16", "swin_t"])
def test_another_trunk_in_an_experiment_has_its_own_last_norm(trunk: str) -> None:
    """Its name differs: norm, fc_norm; a Swin's stays frozen."""
    overrides = ["+experiment=finetune", f"backbone={trunk}", "backbone.weights=random", "data.root=x"]
    run = config.build(config.compose(overrides), Run)
    with torch.device("meta"):
        assert adamw(run.model(10), run.optim).param_groups


def test_every_published_row_of_the_papers_tables_has_its_file() -> None:
    rows = {name: published(name) for name in EXPERIMENTS}
    assert sum(row is not None for row in rows.values()) >= 16


def test_large_models_train_all_but_the_head_at_a_tenth_and_decay_the_norm() -> None:
    run, model = build("k400_l14")
    names = {id(p): name for name, p in model.named_parameters()}
    for group in adamw(model, run.optim).param_groups:
        for p in group["params"]:
            assert group["lr_mult"] == (1.0 if names[id(p)].startswith("head.") else 0.1), names[id(p)]
            assert group["weight_decay"] == 0.05


def test_base_models_leave_only_the_last_norm_undecayed() -> None:
    run, model = build("k400")
    names = {id(p): name for name, p in model.named_parameters()}
    undecayed = [
        names[id(p)] for g in adamw(model, run.optim).param_groups for p in g["params"] if not g["weight_decay"]
    ]
    assert sorted(undecayed) == ["backbone.trunk.norm.bias", "backbone.trunk.norm.weight"]
