"""A frozen LayerNorm that gives and keeps less."""

from typing import Any

import torch
from torch import Tensor, nn

from aim.models.gpu import operation


def norm(layer: nn.Module, x: Tensor, *, plain: bool) -> Tensor:
    """`layer(x)`; unless `plain`, a frozen LayerNorm gives and keeps bfloat16 under autocast to it."""
    if not plain and isinstance(layer, nn.LayerNorm) and x.dtype == torch.float32 and autocasts(x) and is_frozen(layer):
        y: Tensor = Normed.apply(x, layer.weight, layer.bias, layer.eps)
        return y
    z: Tensor = layer(x)
    return z


def autocasts(x: Tensor) -> bool:
    """Whether products of it are in bfloat16."""
    kind = x.device.type
    asked = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return asked and torch.get_autocast_dtype(kind) == torch.bfloat16


def is_frozen(layer: nn.LayerNorm) -> bool:
    return layer.weight is not None and not any(parameter.requires_grad for parameter in layer.parameters())


def plain_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm's output and its tokens before weight and bias, both in bfloat16, and the rows' 1 / sigma."""
    y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
    return y.to(torch.bfloat16), ((x - mean) * rstd).to(torch.bfloat16), rstd


def plain_norm_backward(gradient: Tensor, normed: Tensor, rstd: Tensor, weight: Tensor) -> Tensor:
    """The gradient to the input, in float32."""
    x, mean, one = normed.float(), torch.zeros_like(rstd), torch.ones_like(rstd)
    given, _, _ = torch.ops.aten.native_layer_norm_backward(
        gradient.float(), x, x.shape[-1:], mean, one, weight, None, [True, False, False]
    )
    y: Tensor = given * rstd
    return y


forward = operation("norm", plain_norm)
backward = operation("norm_backward", plain_norm_backward)


class Normed(torch.autograd.Function):
    """LayerNorm that gives bfloat16, once for all the products that read it, and keeps as much in place of its input.

    What it keeps, the normalised tokens, has a part in one term of the gradient, which bfloat16's products round more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        y, normed, rstd = (plain_norm if joins() else forward)(x, weight, bias, eps)
        ctx.save_for_backward(normed, rstd, weight)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return (plain_norm_backward if joins() else backward)(gradient, *ctx.saved_tensors), None, None, None


def joins() -> bool:
    """Whether a compiler joins a norm with its neighbours, which is better than a kernel of its own."""
    return torch.compiler.is_compiling()
