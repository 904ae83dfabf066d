"""Parameter groups, AdamW, clipped gradients, and the learning rate as a pure function of the step."""

import math
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from aim.engine.run.recipe import Optim
from aim.ground.errors import matching
from aim.models.heads import parameters_of_heads


def adamw(model: nn.Module, optim: Optim) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, grouped by head, rate and decay; each group keeps its `lr_mult`.

    Of one model with several rates and decays the first of them count. Raises UserError for a pattern that matches no
    parameter.
    """
    heads = parameters_of_heads(model)
    matching((*optim.no_decay, *optim.lr_mult), heads[0], "optim")
    first = optim.heads[0]
    groups: dict[tuple[int, float, float], list[nn.Parameter]] = {}
    for head, (named, own) in enumerate(zip(heads, optim.heads, strict=False)):
        for name, parameter in named.items():
            if parameter.requires_grad:
                mult = next((factor for pattern, factor in optim.lr_mult.items() if fnmatchcase(name, pattern)), 1.0)
                decay = 0.0 if any(fnmatchcase(name, each) for each in optim.no_decay) else own.weight_decay
                mult *= own.lr / first.lr if head else 1.0
                groups.setdefault((head, mult, decay), []).append(parameter)
    settings: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "lr_mult": mult, "head": head}
        for (head, mult, decay), parameters in groups.items()
    ]
    fused = settings[0]["params"][0].device.type == "cuda"
    return torch.optim.AdamW(settings, lr=first.lr, betas=(optim.betas[0], optim.betas[1]), fused=fused)


def learning_rate(step: int, optim: Optim, *, steps_per_epoch: int, epochs: int) -> float:
    """The rate at a step, counted from 0: a linear warm-up times a cosine to zero.

    With `schedule: epoch` the cosine stands still inside an epoch, so the last one runs at
    lr * (1 + cos(pi * (epochs - 1) / epochs)) / 2, as in the public code (mmcv's CosineAnnealing and linear warm-up).
    Of several heads it is the first one's.
    """
    progress = (step // steps_per_epoch) / epochs if optim.schedule == "epoch" else step / (steps_per_epoch * epochs)
    cosine = (1 + math.cos(math.pi * progress)) / 2
    warmup_steps = optim.warmup_epochs * steps_per_epoch
    warmup = 1.0 if step >= warmup_steps else optim.warmup_start + (1 - optim.warmup_start) * step / warmup_steps
    return optim.heads[0].lr * warmup * cosine


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_mult"]


def clip_gradients(optimizer: torch.optim.Optimizer, most: float | None) -> Tensor:
    """Scale down each head's gradients whose norm is above `most`; None: none. The mean of the heads' norms before."""
    heads = dict[int, list[nn.Parameter]]()
    for group in optimizer.param_groups:  # those of older runs name no head
        if own := [p for p in group["params"] if p.grad is not None]:  # those of heads that were given up have none
            heads.setdefault(group.get("head", 0), []).extend(own)
    norms = [torch.nn.utils.get_total_norm([p.grad for p in tuned if p.grad is not None]) for tuned in heads.values()]
    for tuned, norm in zip(heads.values(), norms, strict=True):
        if most is not None:
            torch.nn.utils.clip_grads_with_norm_(tuned, most, norm)
    return torch.stack(norms).mean()
