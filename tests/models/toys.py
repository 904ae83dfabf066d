"""The trunks and adapters of configs/, the trunks shrunk so that a test can run them."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from torch import nn

from aim.adapters.interface import AdapterConfig
from aim.ground.config import build, resolve
from aim.ground.kinds import class_of
from aim.models import video_vit
from aim.models.classifier import Backbone

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SIZE, FRAMES = 32, 4


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def video_trunks() -> list[str]:
    """The trunks of configs/backbone with joint attention over space and time."""
    return [name for name in names("backbone") if composed("backbone", name).name in video_vit.FAMILY.models]


def image_trunks() -> list[str]:
    return [name for name in names("backbone") if name not in video_trunks()]


@cache
def composed(group: str, name: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose(overrides=[f"+{group}={name}"])[group]


def adapter(name: str = "aim", **overrides: Any) -> AdapterConfig:
    node = resolve(OmegaConf.merge(composed("adapter", name), overrides))
    return build(node, class_of("adapter", node))


def backbone(name: str, weights: str | None = "random") -> Backbone:
    """The trunk of configs/backbone at full size; with None its own weights."""
    found = build(composed("backbone", name), Backbone)
    return found if weights is None else replace(found, weights=weights)


def toy(name: str, weights: str = "random") -> Backbone:
    """The same architecture with three narrow blocks (Swin: two a stage) and small patches."""
    full = backbone(name, weights)
    options: dict[str, Any] = {"img_size": SIZE, "embed_dim": 32, "num_heads": 2, "depth": 3, "patch_size": 8}
    if full.name.startswith("swin"):
        shapes = {"depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
        options = {"img_size": SIZE, "embed_dim": 16, "patch_size": 4} | shapes
    return replace(full, options=dict(full.options) | options)


def randomise(module: nn.Module) -> None:
    """Give every parameter a value that matters: layer scales and adapters don't start near zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
