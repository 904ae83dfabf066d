"""The counted cost of a step equals a real step's."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from aim.engine.run.settings import Run
from aim.ground import config
from aim.study.cells.cost import count
from tests.toy import TOY


@pytest.mark.parametrize("adapter", ["aim_demo", "none", "attentive_probe", "lora"])
def test_the_operations_of_a_step_are_those_of_a_real_one(adapter: str) -> None:
    run = config.build(config.compose([*TOY, f"adapter={adapter}"]), Run)
    found = count(run, 8)
    model = run.model(8).train()
    video = model.preprocess(torch.zeros(8, 4, 3, 32, 32, dtype=torch.uint8))
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(video), torch.zeros(8, dtype=torch.int64)).backward()
    assert found.train_flops * 8 == counter.get_total_flops()
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.tuned == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0 < found.test_flops < found.train_flops


def test_a_frozen_trunk_is_not_gone_back_through() -> None:
    """A linear head's backward pass costs almost nothing; a trained trunk's costs two forward passes."""
    none, full = (count(config.build(config.compose([*TOY, f"adapter={name}"]), Run), 8) for name in ("none", "full"))
    assert none.train_flops < 1.01 * none.test_flops
    assert full.train_flops == pytest.approx(3 * full.test_flops, rel=0.1)  # 6 N D, but for the pixels' gradient
