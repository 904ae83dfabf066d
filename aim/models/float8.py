"""Products of frozen linear layers in float8 (e4m3): the weights cast once, tokens and gradients as they come.

Every row that is summed over has a scale: of the weights, of tokens and of gradients. torch's own product is used, not
torchao's Float8Linear: that one makes a gradient of the weights and keeps the tokens for it, frozen or not, casts the
weights in every step, and doesn't apply where q, k and v are separate products.
Shapes: m rows, k channels taken, n given, p parts that may be products of their own.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aim.adapters.interface import linears
from aim.ground.errors import UserError
from aim.models.gpu import operation

FLOAT8 = torch.float8_e4m3fn
LARGEST, SMALLEST = torch.finfo(FLOAT8).max, torch.finfo(torch.float32).tiny
MULTIPLE = 16  # of channels, that the products of GPUs ask for


def to_float8(blocks: Iterable[nn.Module]) -> None:
    """Let the frozen linear layers of a trunk's blocks compute in float8, except trained ones and those with LoRA.

    Raises UserError where that leaves none.
    """
    found = False
    for block in blocks:
        for name, layer in linears(block).items():
            parts = 3 if name.endswith("qkv") else 1
            trained = parametrize.is_parametrized(layer) or any(p.requires_grad for p in layer.parameters())
            if not (trained or layer.in_features % MULTIPLE or layer.out_features % (parts * MULTIPLE)):
                block.set_submodule(name, Float8Linear(layer, parts))
                found = True
    if not found:
        raise UserError(
            "precision=fp8 is for the frozen layers of a trunk's blocks, and here none is frozen and of a multiple of "
            f"{MULTIPLE} channels; use precision=bf16"
        )


class Float8Linear(nn.Module):
    """A frozen linear layer whose rows are `parts` of the same size: of qkv three."""

    there: Tensor
    there_scale: Tensor
    back: Tensor
    back_scale: Tensor

    def __init__(self, layer: nn.Linear, parts: int) -> None:
        super().__init__()
        self.weight, self.bias, self.parts = layer.weight, layer.bias, parts
        self.cast()

    def cast(self) -> None:
        """Store the weights of both directions: "(p n) k", and for the gradient "k (p n)"."""
        for name, each in (("there", self.weight.detach()), ("back", self.weight.detach().T)):
            values, scale = by_rows(each)
            self.register_buffer(name, values, persistent=False)
            self.register_buffer(f"{name}_scale", scale, persistent=False)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if f"{prefix}weight" in state_dict:  # of a random trunk, which a checkpoint holds
            self.cast()

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x, slice(None), self.bias)

    def product(self, x: Tensor, parts: slice, bias: Tensor | None) -> Tensor:
        """By the rows of some of the parts."""
        first, last, _ = parts.indices(self.parts)
        rows = slice(first * len(self.weight) // self.parts, last * len(self.weight) // self.parts)
        if self.there.dtype != FLOAT8:  # cast to something else, as aim.models.flops does to count operations
            return F.linear(x, self.weight[rows], bias)
        y: Tensor = Product.apply(x, self.there, self.there_scale, self.back, self.back_scale, bias, rows)
        return y


class Product(torch.autograd.Function):
    """Tokens by some rows of weights, "... k" -> "... n" in bfloat16; nothing of the tokens is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        there: Tensor,
        there_scale: Tensor,
        back: Tensor,
        back_scale: Tensor,
        bias: Tensor | None,
        rows: slice,
    ) -> Tensor:
        ctx.save_for_backward(back, back_scale)
        ctx.dtype, ctx.rows = x.dtype, rows
        return multiply(x, there[rows], there_scale[rows], bias, fast=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        back, scale = ctx.saved_tensors
        found = multiply(gradient, back[:, ctx.rows].contiguous(), scale).to(ctx.dtype)
        return found, None, None, None, None, None, None


def multiply(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, *, fast: bool = False) -> Tensor:
    """x by the rows of a weight, "... k" and "n k" -> "... n" in bfloat16; `fast` sums with fewer bits, as torchao."""
    cast = by_rows if torch.compiler.is_compiling() else rows  # the compiler joins it with what is before
    values, of_rows = cast(rearrange(x, "... k -> (...) k"))
    bias = None if bias is None else bias.to(torch.bfloat16)
    y = torch._scaled_mm(values, weight.T, of_rows, scale.T, bias, out_dtype=torch.bfloat16, use_fast_accum=fast)
    return y.view(*x.shape[:-1], len(weight))


def by_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """In float8, with a scale for each row, by which its largest value becomes float8's largest."""
    scale = (x.abs().amax(-1, keepdim=True).float() / LARGEST).clamp(min=SMALLEST)
    return (x / scale).to(FLOAT8).contiguous(), scale


rows = operation("rows", by_rows)
