"""CLIP's activation; on a GPU one kernel, forward and backward."""

from typing import Any

import torch
from torch import Tensor

from aim.models.gpu import operation

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


def keep(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def back(ctx: Any, gradient: Tensor) -> Tensor:
    found: Tensor = backward(*ctx.saved_tensors, gradient)
    return found


forward.register_autograd(back, setup_context=keep)
