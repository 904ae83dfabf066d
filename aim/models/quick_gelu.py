"""CLIP's activation; on a GPU one kernel, forward and backward."""

import torch
from torch import Tensor

from aim.models.gpu import operation, with_gradient

QUICK = 1.702  # QuickGELU(x) = x sigmoid(1.702 x) = silu(1.702 x) / 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), of which x alone is kept."""
    if torch.compiler.is_compiling():  # the compiler joins it with its neighbours
        return plain(x)
    y: Tensor = forward(x)
    return y


def plain(x: Tensor) -> Tensor:
    return x * torch.sigmoid(QUICK * x)


def plain_backward(x: Tensor, gradient: Tensor) -> Tensor:
    s = torch.sigmoid(QUICK * x)
    return gradient * s * (1 + QUICK * x * (1 - s))


forward = operation("quick_gelu", plain)
backward = operation("quick_gelu_backward", plain_backward)
with_gradient(forward, backward)
