"""LoRA: a change of low rank to the weights of linear layers.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1.
On an image trunk it works frame by frame and is blind to their order; on a video trunk it isn't.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aim.adapters.interface import AdapterBase, BlockView, Place, linears
from aim.ground.errors import check_least, matching


@dataclass(frozen=True)
class LoRA(AdapterBase):
    """The values of configs/adapter/lora.yaml."""

    rank: int
    alpha: float
    layers: Sequence[str]  # glob patterns of names that `matrices` gives

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        check_least(self, 1, "rank", prefix="adapter.")
        found = matrices(view.block)
        chosen = matching(self.layers, found, "adapter.layers")
        for name, (layer, rows) in found.items():
            if name in chosen:
                change = LowRank(layer.weight, rows, self.rank, self.alpha)
                parametrize.register_parametrization(layer, "weight", change)
        return view.block


def matrices(block: nn.Module) -> dict[str, tuple[nn.Linear, range]]:
    """The weight matrices of a timm block by name, each a layer and its rows; attn.qkv is attn.q, attn.k and attn.v."""
    found = {}
    for name, layer in linears(block).items():
        if name.endswith("qkv"):
            size = layer.out_features // 3
            for i, part in enumerate("qkv"):
                found[name.removesuffix("qkv") + part] = (layer, range(i * size, (i + 1) * size))
        else:
            found[name] = (layer, range(layer.out_features))
    return found


def factors(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Matrices "r i" and "o r" whose product, times alpha / rank, is the change of a layer's weight.

    Where several parts of its rows change, as in a fused qkv, r is the sum of their ranks, and the second matrix holds
    zeros in the rows of the other parts.
    """
    changes: Any = layer.get_submodule("parametrizations.weight")
    down = torch.cat([change.adapters["down"] for change in changes])
    up = torch.cat([F.pad(change.adapters["up"], change.padding) for change in changes], 1)
    return down.detach(), up.detach()


def fold(model: nn.Module) -> None:
    """Make the sums of frozen and low-rank weights the layers' own weights: the model computes the same, to the bit."""
    for layer in list(model.modules()):
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


class LowRank(nn.Module):
    """A parametrization of a weight: adds alpha / rank * up @ down to some of its rows; zero at the start.

    It changes the weight and not the layer's output because some of timm's attentions read `qkv.weight` without calling
    the layer. That costs the gradient of the whole weight, a matrix product per layer and step that LoRA beside the
    layer would spare; a test with the sum of the weights costs nothing.
    """

    def __init__(self, weight: Tensor, rows: range, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.padding = (0, 0, rows.start, len(weight) - rows.stop)
        down, up = weight.new_empty(rank, weight.shape[1]), weight.new_zeros(len(rows), rank)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))  # the public code's; the paper says Gaussian, without a size
        self.adapters = nn.ParameterDict({"down": nn.Parameter(down), "up": nn.Parameter(up)})

    def forward(self, weight: Tensor) -> Tensor:
        change = self.scale * self.adapters["up"] @ self.adapters["down"]
        return weight + F.pad(change, self.padding)
