"""Parameter groups, AdamW, and the learning rate as a pure function of the step."""

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from aim.engine.run.settings import Optim
from aim.ground.errors import UserError


def adamw(model: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, grouped by rate and decay; each group keeps its `lr_mult`.

    Raises UserError for a pattern that matches no parameter.
    """
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for pattern in (*optim.no_decay, *optim.lr_mult):
        if not any(fnmatchcase(name, pattern) for name, _ in model.named_parameters()):
            raise UserError(f"optim: the pattern {pattern!r} matches no parameter")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        mult = next((factor for pattern, factor in optim.lr_mult.items() if fnmatchcase(name, pattern)), 1.0)
        decay = 0.0 if _matches(name, optim.no_decay) else optim.weight_decay
        groups.setdefault((mult, decay), []).append(parameter)
    settings: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "lr_mult": mult} for (mult, decay), parameters in groups.items()
    ]
    fused = named[0][1].device.type == "cuda"
    return torch.optim.AdamW(settings, lr=optim.lr, betas=(optim.betas[0], optim.betas[1]), fused=fused)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def learning_rate(step: int, optim: Optim, *, steps_per_epoch: int, epochs: int) -> float:
    """The rate at a step, counted from 0: a linear warm-up times a cosine to zero.

    With `schedule: epoch` the cosine stands still inside an epoch, so the last one runs at
    lr * (1 + cos(pi * (epochs - 1) / epochs)) / 2, as in the public code (mmcv's CosineAnnealing and linear warm-up).
    """
    progress = (step // steps_per_epoch) / epochs if optim.schedule == "epoch" else step / (steps_per_epoch * epochs)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    warmup_steps = optim.warmup_epochs * steps_per_epoch
    warmup = 1.0 if step >= warmup_steps else optim.warmup_start + (1 - optim.warmup_start) * step / warmup_steps
    return optim.lr * warmup * cosine


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mult"]
