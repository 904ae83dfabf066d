import itertools
import math

import pytest
import torch
from torch import nn

from aim.engine.loop.optim import adamw, learning_rate, set_learning_rate
from aim.engine.run.recipe import Optim
from tests.messages import refused

OPTIM = Optim(
    lr=3e-4,
    weight_decay=0.05,
    betas=(0.9, 0.999),
    warmup_epochs=2.5,
    warmup_start=0.1,
    schedule="epoch",
    no_decay=[],
    lr_mult={},
)


def at(step: int, schedule: str, *, steps_per_epoch: int = 100, epochs: int = 30) -> float:
    optim = Optim(**{**OPTIM.__dict__, "schedule": schedule})
    return learning_rate(step, optim, steps_per_epoch=steps_per_epoch, epochs=epochs)


@pytest.mark.parametrize(("epochs", "expected"), [(30, 8.2e-7), (50, 2.960e-7)])
def test_last_epoch_of_the_stepped_cosine_runs_at_the_rate_that_users_logs_show(epochs: int, expected: float) -> None:
    # field.md section 6, item 12: 8.2e-7 for 30 epochs, 2.960e-07 for 50 (public issues 5 and 25).
    assert at(100 * epochs - 1, "epoch", epochs=epochs) == pytest.approx(expected, rel=5e-3)
    assert at(100 * (epochs - 1), "epoch", epochs=epochs) == at(100 * epochs - 1, "epoch", epochs=epochs)


@pytest.mark.parametrize("schedule", ["step", "epoch"])
def test_warm_up_rises_linearly_from_a_tenth_over_two_and_a_half_epochs(schedule: str) -> None:
    assert at(0, schedule) == pytest.approx(3e-5)
    # Half way through the warm-up, in epoch 1: 0.55 of the cosine's value there.
    progress = 1 / 30 if schedule == "epoch" else 125 / 3000
    assert at(125, schedule) == pytest.approx(3e-4 * 0.55 * (1 + math.cos(math.pi * progress)) / 2)
    assert at(249, schedule) < at(250, schedule)


def test_cosine_by_step_falls_at_every_step_to_zero() -> None:
    rates = [at(step, "step") for step in range(250, 3000)]
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert rates[-1] < 1e-9


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_groups_have_the_rate_and_decay_of_the_first_pattern_and_leave_frozen_parameters_out() -> None:
    model = Model()
    optim = Optim(**{**OPTIM.__dict__, "no_decay": ["norm.*"], "lr_mult": {"backbone.*": 0.1}})
    optimizer = adamw(model, optim)
    set_learning_rate(optimizer, 1e-3)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    expected = {
        **{id(p): (1e-4, 0.05) for p in model.backbone.parameters()},
        **{id(p): (1e-3, 0.0) for p in model.norm.parameters()},
        **{id(p): (1e-3, 0.05) for p in model.head.parameters()},
    }
    assert found == {key: (pytest.approx(lr), decay) for key, (lr, decay) in expected.items()}


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with refused("'nrom'"):
        adamw(Model(), Optim(**{**OPTIM.__dict__, "no_decay": ["nrom"]}))


def test_adamw_moves_a_weight_as_its_paper_says() -> None:
    # Loshchilov and Hutter, algorithm 2, first step with a gradient of one: w - lr * (1 / (1 + eps) + decay * w).
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(model.weight, 2.0)
    optimizer = adamw(model, OPTIM)
    set_learning_rate(optimizer, 0.1)
    model(torch.ones(1, 1, dtype=torch.float64)).sum().backward()
    optimizer.step()
    assert model.weight.item() == pytest.approx(2.0 * (1 - 0.1 * 0.05) - 0.1, abs=1e-8)
