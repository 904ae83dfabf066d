"""Products of frozen linear layers in float8 (e4m3): the weights cast once, tokens and gradients as they come.

Every row that is summed over has a scale: of the weights, of tokens and of gradients. torch's own product is used, not
torchao's Float8Linear: that one makes a gradient of the weights and keeps the tokens for it, frozen or not, casts the
weights in every step, and doesn't apply where q, k and v are separate products.
A cast is one kernel with the computation before it, and only the float8 numbers are written.
Shapes: m rows, k channels taken, n given, p parts that may be products of their own.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aim.adapters.interface import linears
from aim.ground.errors import UserError
from aim.models.gpu import operation
from aim.models.quick_gelu import plain, plain_backward, quick_gelu

FLOAT8 = torch.float8_e4m3fn
LARGEST, SMALLEST = torch.finfo(FLOAT8).max, torch.finfo(torch.float32).tiny
MULTIPLE = 16  # of channels, that the products of GPUs ask for


def to_float8(blocks: Iterable[nn.Module]) -> None:
    """Let the frozen linear layers of a trunk's blocks compute in float8, except trained ones and those with LoRA.

    Raises UserError if that leaves none.
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
        if not self.in_float8:
            return F.linear(x, self.weight[rows], bias)
        y: Tensor = Product.apply(x, rows, *self.tensors(bias))
        return y

    def apart(self, x: Tensor, bias: Tensor | None, heads: int) -> tuple[Tensor, ...]:
        """Three parts by one product, "b n k" -> "b n head e"; their gradients are cast where they lie."""
        if not self.in_float8:
            return in_three(self.product(x, slice(None), bias), heads)
        q, k, v = Apart.apply(x, heads, *self.tensors(bias))
        return q, k, v

    @property
    def in_float8(self) -> bool:
        """Whether the weights are not cast to something else, as aim.models.flops does to count operations."""
        return self.there.dtype == FLOAT8

    def tensors(self, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
        """The weights of the functions below, which get no gradients."""
        return self.there, self.there_scale, bias, self.back, self.back_scale


class Product(torch.autograd.Function):
    """Tokens by some rows of weights, "... k" -> "... n" in bfloat16; nothing of the tokens is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: slice, *weights: Any) -> Tensor:
        there, there_scale, bias, *back = weights
        ctx.save_for_backward(*back)
        ctx.dtype, ctx.rows = x.dtype, rows
        return multiply(x, there[rows], there_scale[rows], bias, fast=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        back, scale = ctx.saved_tensors
        found = multiply(gradient, back[:, ctx.rows].contiguous(), scale).to(ctx.dtype)
        return found, *[None] * 6


class Apart(torch.autograd.Function):
    """`Product` by all rows, in three parts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, heads: int, *weights: Any) -> tuple[Tensor, ...]:
        there, there_scale, bias, *back = weights
        ctx.save_for_backward(*back)
        ctx.dtype = x.dtype
        return in_three(multiply(x, there, there_scale, bias, fast=True), heads)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found = product(cast(rows_of_three, three_by_rows, *gradients), *ctx.saved_tensors)
        return found.view(*gradients[0].shape[:2], -1).to(ctx.dtype), *[None] * 6


def in_three(y: Tensor, heads: int) -> tuple[Tensor, ...]:
    parts: tuple[Tensor, ...] = rearrange(y, "b n (three head e) -> b n three head e", three=3, head=heads).unbind(2)
    return parts


class AroundQuickGELU(torch.autograd.Function):
    """Two layers around the activation, "... k" -> "... k"; the first one's output is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Any) -> Tensor:
        there1, scale1, bias1, *back1 = weights[:5]
        there2, scale2, bias2, *back2 = weights[5:]
        hidden = multiply(x, there1, scale1, bias1, fast=True).flatten(0, -2)
        ctx.save_for_backward(hidden, *back1, *back2)
        ctx.dtype = x.dtype
        activated = cast(rows_of_quick_gelu, quick_gelu_by_rows, hidden)
        return product(activated, there2, scale2, bias2, fast=True).view(*x.shape[:-1], len(there2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        hidden, back1, back1_scale, back2, back2_scale = ctx.saved_tensors
        to_activated = multiply(gradient.flatten(0, -2), back2, back2_scale)
        to_hidden = cast(rows_of_quick_gelu_backward, quick_gelu_backward_by_rows, hidden, to_activated)
        found = product(to_hidden, back1, back1_scale).view(*gradient.shape[:-1], len(back1))
        return found.to(ctx.dtype), *[None] * 10


def around_quick_gelu(fc1: Float8Linear, fc2: Float8Linear, x: Tensor) -> Tensor:
    """fc2(QuickGELU(fc1(x))), the activation and its gradient cast in the pass that computes them."""
    y: Tensor
    if fc1.in_float8:
        y = AroundQuickGELU.apply(x, *fc1.tensors(fc1.bias), *fc2.tensors(fc2.bias))
    else:
        y = fc2(quick_gelu(fc1(x)))
    return y


def multiply(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, *, fast: bool = False) -> Tensor:
    """x by the rows of a weight, "... k" and "n k" -> "... n" in bfloat16; `fast` sums with fewer bits, as torchao."""
    given = cast(rows, by_rows, rearrange(x, "... k -> (...) k"))
    return product(given, weight, scale, bias, fast=fast).view(*x.shape[:-1], len(weight))


def product(
    given: tuple[Tensor, Tensor], weight: Tensor, scale: Tensor, bias: Tensor | None = None, *, fast: bool = False
) -> Tensor:
    """The same of rows that are cast: "m k" and "n k" -> "m n"."""
    values, of_rows = given
    bias = None if bias is None else bias.to(torch.bfloat16)
    return torch._scaled_mm(values, weight.T, of_rows, scale.T, bias, out_dtype=torch.bfloat16, use_fast_accum=fast)


def cast(kernel: Any, torchs: Callable[..., Any], *args: Tensor) -> tuple[Tensor, Tensor]:
    """By one kernel, unless the compiler fuses a cast with the operation before."""
    values, scale = (torchs if torch.compiler.is_compiling() else kernel)(*args)
    return values, scale


def by_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """In float8, with a scale for each row, by which its largest value becomes float8's largest."""
    scale = (x.abs().amax(-1, keepdim=True).float() / LARGEST).clamp(min=SMALLEST)
    return (x / scale).to(FLOAT8).contiguous(), scale


def three_by_rows(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """`by_rows` of all three side by side: "b n head e" -> "(b n) (3 head e)"."""
    return by_rows(rearrange([q, k, v], "three b n head e -> (b n) (three head e)"))


def quick_gelu_by_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    return by_rows(plain(x))


def quick_gelu_backward_by_rows(x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return by_rows(plain_backward(x, gradient))


rows = operation("rows", by_rows)
rows_of_three = operation("rows_of_three", three_by_rows)
rows_of_quick_gelu = operation("rows_of_quick_gelu", quick_gelu_by_rows)
rows_of_quick_gelu_backward = operation("rows_of_quick_gelu_backward", quick_gelu_backward_by_rows)
