"""Faithfulness of a map: the effect of its best parts on the decision, and a comparison with random weights.

Shapes: n m o count the cells of a grid along t, h and w; s steps.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from aim.explain.occlusion import Decision

M = TypeVar("M", bound=nn.Module)
STEPS = 16  # of a deletion


@dataclass(frozen=True)
class Faithfulness:
    """The probability "s + 1" of the class as the most relevant cells are removed first, or put back into a blur.

    Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018, section
    4.3: a map is the more faithful the smaller the area under the first and the larger that under the second.
    """

    deletion: Tensor
    insertion: Tensor

    @property
    def areas(self) -> tuple[float, float]:
        """The areas under both, from 0 to 1."""
        return area(self.deletion), area(self.insertion)


def area(curve: Tensor) -> float:
    """Under a curve "s + 1" over the share of the cells, which runs from 0 to 1."""
    return float(torch.trapezoid(curve)) / (len(curve) - 1)


def faithfulness(decision: Decision, relevance: Tensor) -> Faithfulness:
    """Remove and put back the cells of a clip in the order of their relevance, "n m o"."""
    place = relevance.flatten().argsort(descending=True, stable=True).argsort().view_as(relevance)
    counts = torch.linspace(0, relevance.numel(), STEPS + 1).round()
    first = place < counts.view(-1, 1, 1, 1)
    return Faithfulness(decision.without(first)[:, decision.label], decision.without(~first)[:, decision.label])


def by_chance(decision: Decision, orders: int) -> tuple[float, float]:
    """The mean areas of random orders of the same cells: the scores of a meaningless map."""
    generator = torch.Generator().manual_seed(0)
    found = [faithfulness(decision, torch.rand(decision.grid.shape, generator=generator)).areas for _ in range(orders)]
    deletion, insertion = torch.tensor(found).mean(0).tolist()
    return deletion, insertion


def spearman(one: Tensor, other: Tensor) -> float:
    """The rank correlation of two maps; 0 if one is flat."""
    if one.max() == one.min() or other.max() == other.min():
        return 0.0
    return float(spearmanr(one.flatten().float(), other.flatten().float()).statistic)


def randomised(model: M, names: Sequence[str], seed: int) -> M:
    """A copy of a model with the values of each parameter in `names` in a random order.

    Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3: a map that hardly changes shows the
    image, not the training.
    """
    changed = copy.deepcopy(model)
    parameters = dict(changed.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in names:
            values = parameters[name].flatten()
            parameters[name].copy_(values[torch.randperm(len(values), generator=generator)].view_as(parameters[name]))
    return changed
