"""A frozen LayerNorm that keeps less."""

from typing import Any

import torch
from torch import Tensor, nn


def norm(layer: nn.Module, x: Tensor, *, plain: bool) -> Tensor:
    """`layer(x)`; unless `plain`, a frozen LayerNorm keeps bfloat16 for the backward pass under autocast to it."""
    if not plain and isinstance(layer, nn.LayerNorm) and x.dtype == torch.float32 and autocasts(x) and is_frozen(layer):
        y: Tensor = Normed.apply(x, layer.weight, layer.bias, layer.eps)
        return y
    z: Tensor = layer(x)
    return z


def autocasts(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def is_frozen(layer: nn.LayerNorm) -> bool:
    return layer.weight is not None and not any(parameter.requires_grad for parameter in layer.parameters())


class Normed(torch.autograd.Function):
    """LayerNorm that keeps its normalised tokens in bfloat16 in place of its input: half of the bytes.

    They have a part in one term of the gradient, which bfloat16's products round more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(((x - mean) * rstd).to(torch.bfloat16), rstd, weight)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        normed, rstd, weight = ctx.saved_tensors
        x, mean, one = normed.float(), torch.zeros_like(rstd), torch.ones_like(rstd)
        given, _, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, x.shape[-1:], mean, one, weight, None, [True, False, False]
        )
        return given * rstd, None, None, None
