"""Attention among the few frames of a clip, on a GPU one kernel.

Kernels for long sequences give each token and head a tile of 64 or 128 rows, of which the frames are 8. Here a tile has
as many tokens and heads as it holds frames for, and q, k and v are read where one product for all three left them.
Shapes: b clips, t frames, n tokens of a frame, head and e the attention's heads and their channels, 3 for q, k and v.
"""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from aim.models.gpu import operation, with_gradient

FRAMES, CHANNELS = range(2, 65), range(16, 129)
TYPES = (torch.bfloat16, torch.float16, torch.float32)


def is_short(qkv: Tensor) -> bool:
    """Whether "b t n 3 head e" is of sizes and a type that the kernel has tiles for."""
    t, e = qkv.shape[1], qkv.shape[-1]
    too_large = qkv.dtype == torch.float32 and min(t, e / 2) > 32
    return t in FRAMES and e in CHANNELS and qkv.dtype in TYPES and not too_large


def plain(qkv: Tensor) -> Tensor:
    """Each token attends to itself in the clip's frames: "b t n 3 head e" by any strides -> "b t n head e"."""
    q, k, v = by_frames(qkv)
    y: Tensor = rearrange(shares(q, k) @ v, "b n head t e -> b t n head e")
    return y.contiguous()


def plain_backward(qkv: Tensor, gradient: Tensor) -> Tensor:
    q, k, v = by_frames(qkv)
    given = rearrange(gradient, "b t n head e -> b n head t e")
    p = shares(q, k)
    to_scores = torch._softmax_backward_data(given @ v.mT, p, -1, p.dtype) * qkv.shape[-1] ** -0.5
    found = torch.stack([to_scores @ k, to_scores.mT @ q, p.mT @ given])
    y: Tensor = rearrange(found, "three b n head t e -> b t n three head e")
    return y.contiguous()


def by_frames(qkv: Tensor) -> Tensor:
    y: Tensor = rearrange(qkv, "b t n three head e -> three b n head t e")
    return y


def shares(q: Tensor, k: Tensor) -> Tensor:
    """How much of each frame goes into each: rows that sum to 1."""
    y: Tensor = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
    return y


short_attention: Callable[[Tensor], Tensor] = operation("short_attention", plain)
backward = operation("short_attention_backward", plain_backward)
with_gradient(short_attention, backward)


@register_flop_formula(torch.ops.aim.short_attention)
def products(shape: Any, *args: Any, **kwargs: Any) -> int:
    """Floating-point operations: two products."""
    b, t, n, _, head, e = shape
    flops: int = 4 * b * n * head * t * t * e
    return flops


@register_flop_formula(torch.ops.aim.short_attention_backward)
def products_backward(shape: Any, *args: Any, **kwargs: Any) -> int:
    """Five products, as torch counts of its own kernels."""
    return products(shape) * 5 // 2
