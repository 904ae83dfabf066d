"""The scores of maps, by hand, and on a model with known evidence."""

import numpy as np
import pytest
import torch
from torch import nn

from aim.explain.occlusion import of_space_time
from aim.explain.scores import area, by_chance, faithfulness, randomised, spearman
from tests.explain.test_occlusion import of, one_spot


def test_the_rank_correlation_shares_ranks_among_equal_values():
    one, other = torch.tensor([[1.0, 2.0], [2.0, 9.0]]), torch.tensor([[7.0, 0.0], [2.0, 1.0]])
    assert spearman(one, other) == pytest.approx(-3 / 22.5**0.5)  # of ranks 1 2.5 2.5 4 and 4 1 3 2
    assert spearman(torch.arange(5.0), torch.arange(5.0) ** 3) == pytest.approx(1)
    assert spearman(torch.zeros(5), torch.arange(5.0)) == 0


def test_the_area_of_a_curve():
    assert area(torch.ones(9)) == 1
    assert area(torch.linspace(0, 1, 5)) == 0.5
    assert area(torch.tensor([1.0, 0.0, 0.0])) == 0.25


def test_a_true_map_deletes_early_and_inserts_early_and_its_reverse_late():
    decision = of(one_spot, torch.full((4, 3, 8, 8), 255, dtype=torch.uint8))
    relevance = of_space_time(decision)
    true, false, chance = faithfulness(decision, relevance), faithfulness(decision, -relevance), by_chance(decision, 8)
    assert true.deletion[0] == true.insertion[-1] == pytest.approx(1 / (1 + np.exp(-2)))
    assert true.deletion[1] == true.insertion[0] == pytest.approx(0.5)  # the cell that counts went with the first few
    assert true.areas[0] < chance[0] < false.areas[0]
    assert true.areas[1] > chance[1] > false.areas[1]


def test_randomising_reorders_the_named_weights_and_no_others():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    changed = randomised(model, ["1.weight"], seed=0).state_dict()
    assert not torch.equal(changed["1.weight"], before["1.weight"])
    assert torch.equal(changed["1.weight"].flatten().sort()[0], before["1.weight"].flatten().sort()[0])
    assert all(torch.equal(changed[name], before[name]) for name in before if name != "1.weight")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
