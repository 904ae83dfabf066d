"""Triton kernels for a GPU: attention among the frames of a clip, LayerNorm under autocast, QuickGELU, casts to float8.

Imported by `aim.models.gpu` alone, for Triton isn't everywhere. `TRITON_INTERPRET=1` runs them on a CPU, for tests.
Shapes: b clips, t frames, n tokens of a frame, head and e the attention's heads and their channels, 3 for q, k and v.
In the kernels T, H and E count frames, heads and channels; TP and EP are the powers of two above T and E.
"""

from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 64  # of a tile of 2 bytes a number: so many frames, of several tokens and heads
BLOCK = 1024  # numbers of a program


@triton.jit
def place(G, T: tl.constexpr, TP: tl.constexpr, H: tl.constexpr, R: tl.constexpr):
    """The token with its head (a group), the frame and the validity of each row of this program's tile."""
    row = tl.arange(0, R)
    group = tl.program_id(0) * (R // TP) + row // TP
    frame = row % TP
    return group, group // H, group % H, frame, (group < G) & (frame < T)


@triton.jit
def three(x, x3, mask):
    """q, k and v, each `x3` after the one before; 0 outside of the mask."""
    q = tl.load(x, mask=mask, other=0.0)
    k = tl.load(x + x3, mask=mask, other=0.0)
    v = tl.load(x + 2 * x3, mask=mask, other=0.0)
    return q, k, v


@triton.jit
def weights(q, k, group, frame, scale, T: tl.constexpr, EXACT: tl.constexpr):
    """Rows of softmax(q k): each frame's over those of its own group; the tile is block-diagonal."""
    s = tl.dot(q, tl.trans(k), input_precision=EXACT) * scale
    s = tl.where((group[:, None] == group[None, :]) & (frame[None, :] < T), s, -1.0e30)
    p = tl.exp(s - tl.max(s, 1)[:, None])
    return p / tl.sum(p, 1)[:, None]


@triton.jit
def _attend(X, Y, G, scale, xb, xt, xn, x3, xh, yb, yt, yn, yh,
            T: tl.constexpr, TP: tl.constexpr, H: tl.constexpr, E: tl.constexpr, EP: tl.constexpr, R: tl.constexpr,
            EXACT: tl.constexpr):  # fmt: skip
    group, n, h, frame, there = place(G, T, TP, H, R)
    clip = tl.program_id(1).to(tl.int64)
    e = tl.arange(0, EP)[None, :]
    mask = there[:, None] & (e < E)
    q, k, v = three(X + clip * xb + (frame * xt + n * xn + h * xh)[:, None] + e, x3, mask)
    p = weights(q, k, group, frame, scale, T, EXACT)
    o = tl.dot(p.to(v.dtype), v, input_precision=EXACT)
    y = Y + clip * yb + (frame * yt + n * yn + h * yh)[:, None] + e
    tl.store(y, o.to(Y.dtype.element_ty), mask=mask)


@triton.jit
def _attend_back(X, GY, GX, G, scale, xb, xt, xn, x3, xh, yb, yt, yn, yh, gb, gt, gn, g3, gh,
                 T: tl.constexpr, TP: tl.constexpr, H: tl.constexpr, E: tl.constexpr, EP: tl.constexpr,
                 R: tl.constexpr, EXACT: tl.constexpr):  # fmt: skip
    group, n, h, frame, there = place(G, T, TP, H, R)
    clip = tl.program_id(1).to(tl.int64)
    e = tl.arange(0, EP)[None, :]
    mask = there[:, None] & (e < E)
    q, k, v = three(X + clip * xb + (frame * xt + n * xn + h * xh)[:, None] + e, x3, mask)
    gy = tl.load(GY + clip * yb + (frame * yt + n * yn + h * yh)[:, None] + e, mask=mask, other=0.0)
    p = weights(q, k, group, frame, scale, T, EXACT)
    gp = tl.dot(gy, tl.trans(v), input_precision=EXACT)
    gs = (p * (gp - tl.sum(p * gp, 1)[:, None]) * scale).to(q.dtype)
    gx = GX + clip * gb + (frame * gt + n * gn + h * gh)[:, None] + e
    gq = tl.dot(gs, k, input_precision=EXACT)
    tl.store(gx, gq.to(GX.dtype.element_ty), mask=mask)
    gk = tl.dot(tl.trans(gs), q, input_precision=EXACT)
    tl.store(gx + g3, gk.to(GX.dtype.element_ty), mask=mask)
    gv = tl.dot(tl.trans(p.to(gy.dtype)), gy, input_precision=EXACT)
    tl.store(gx + 2 * g3, gv.to(GX.dtype.element_ty), mask=mask)


def short_attention(qkv: Tensor) -> Tensor:
    """Each token with its head attends to itself in the clip's frames: "b t n 3 head e" -> "b t n head e"."""
    qkv = with_channels_last(qkv)
    b, t, n, _, head, e = qkv.shape
    y = qkv.new_empty(b, t, n, head, e)
    grid, shape = tiles(qkv)
    _attend[grid](qkv, y, n * head, e**-0.5, *qkv.stride()[:5], *y.stride()[:4], **shape, num_warps=4)
    return y


def short_attention_backward(qkv: Tensor, gradient: Tensor) -> Tensor:
    """The gradient to q, k and v, "b t n 3 head e", of that to the output, "b t n head e"."""
    qkv, gradient = with_channels_last(qkv), with_channels_last(gradient)
    _, _, n, _, head, e = qkv.shape
    found = torch.empty(qkv.shape, dtype=qkv.dtype, device=qkv.device)
    grid, shape = tiles(qkv)
    strides = (*qkv.stride()[:5], *gradient.stride()[:4], *found.stride()[:5])
    _attend_back[grid](qkv, gradient, found, n * head, e**-0.5, *strides, **shape, num_warps=4)
    return found


def tiles(qkv: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """The grid of programs, and the sizes that a kernel is compiled for."""
    b, t, n, _, head, e = qkv.shape
    frames = triton.next_power_of_2(t)
    rows = max(ROWS * 2 // qkv.itemsize, frames)  # of float32 half as many
    shape = {"T": t, "TP": frames, "H": head, "E": e, "EP": max(16, triton.next_power_of_2(e)), "R": rows}
    exact = "ieee" if qkv.dtype == torch.float32 else "tf32"  # of other types nothing is rounded
    return (triton.cdiv(n * head, rows // frames), b), shape | {"EXACT": exact}


def with_channels_last(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


@triton.jit
def _norm(X, W, B, Y, Z, RSTD, eps, D: tl.constexpr, P: tl.constexpr, BIAS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, P)
    mask = d < D
    x = tl.load(X + row * D + d, mask=mask, other=0.0)
    x = tl.where(mask, x - tl.sum(x, 0) / D, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(x * x, 0) / D + eps)
    z = x * rstd
    y = z * tl.load(W + d, mask=mask, other=0.0)
    if BIAS:
        y += tl.load(B + d, mask=mask, other=0.0)
    tl.store(Y + row * D + d, y.to(Y.dtype.element_ty), mask=mask)
    tl.store(Z + row * D + d, z.to(Z.dtype.element_ty), mask=mask)
    tl.store(RSTD + row, rstd)


@triton.jit
def _norm_back(GY, Z, RSTD, W, GX, D: tl.constexpr, P: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, P)
    mask = d < D
    z = tl.load(Z + row * D + d, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(GY + row * D + d, mask=mask, other=0.0).to(tl.float32) * tl.load(W + d, mask=mask, other=0.0)
    g = (g - tl.sum(g, 0) / D - z * (tl.sum(g * z, 0) / D)) * tl.load(RSTD + row)
    tl.store(GX + row * D + d, g, mask=mask)


def norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """See `aim.models.norm.plain_norm`."""
    x = x.contiguous()
    y, z = (torch.empty_like(x, dtype=torch.bfloat16) for _ in range(2))
    rstd = x.new_empty(*x.shape[:-1], 1)
    d = x.shape[-1]
    _norm[(rstd.numel(),)](x, weight, bias, y, z, rstd, eps, D=d, P=triton.next_power_of_2(d), BIAS=bias is not None)
    return y, z, rstd


def norm_backward(gradient: Tensor, normed: Tensor, rstd: Tensor, weight: Tensor) -> Tensor:
    """See `aim.models.norm.plain_norm_backward`."""
    found = torch.empty_like(normed, dtype=torch.float32)
    d = normed.shape[-1]
    shape = {"D": d, "P": triton.next_power_of_2(d)}
    _norm_back[(rstd.numel(),)](gradient.contiguous(), normed, rstd, weight, found, **shape)
    return found


@triton.jit
def quick(x):
    return x / (1 + tl.exp(-1.702 * x))


@triton.jit
def quick_back(x, g):
    s = 1 / (1 + tl.exp(-1.702 * x))
    return g * s * (1 + 1.702 * x * (1 - s))


@triton.jit
def _quick_gelu(X, Y, size, P: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    x = tl.load(X + i, mask=i < size, other=0.0).to(tl.float32)
    tl.store(Y + i, quick(x).to(Y.dtype.element_ty), mask=i < size)


@triton.jit
def _quick_gelu_back(X, GY, GX, size, P: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    x = tl.load(X + i, mask=i < size, other=0.0).to(tl.float32)
    g = tl.load(GY + i, mask=i < size, other=0.0).to(tl.float32)
    tl.store(GX + i, quick_back(x, g).to(GX.dtype.element_ty), mask=i < size)


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x)."""
    x = x.contiguous()
    y = torch.empty_like(x)
    _quick_gelu[(triton.cdiv(x.numel(), BLOCK),)](x, y, x.numel(), P=BLOCK)
    return y


def quick_gelu_backward(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient to x of that to `quick_gelu(x)`."""
    x = x.contiguous()
    found = torch.empty_like(x)
    _quick_gelu_back[(triton.cdiv(x.numel(), BLOCK),)](x, gradient.contiguous(), found, x.numel(), P=BLOCK)
    return found


@triton.jit
def largest_of(x):
    """Of a row's sizes; what is no number isn't lost in the largest one."""
    return tl.max(tl.where(x == x, tl.abs(x), float("inf")), 0)


@triton.jit
def _rows(X, GY, Y, SCALE, xs, gs, largest, smallest, D: tl.constexpr, P: tl.constexpr, DO: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, P)
    x = tl.load(X + row * xs + d, mask=d < D, other=0.0).to(tl.float32)
    if DO == "quick_gelu":
        x = quick(x)
    if DO == "quick_gelu_backward":
        x = quick_back(x, tl.load(GY + row * gs + d, mask=d < D, other=0.0).to(tl.float32))
    scale = tl.maximum(largest_of(x) / largest, smallest)
    tl.store(Y + row * D + d, (x / scale).to(Y.dtype.element_ty), mask=d < D)
    tl.store(SCALE + row, scale)


@triton.jit
def _rows_of_three(Q, K, V, Y, SCALE, N, qb, qn, qh, kb, kn, kh, vb, vn, vh, largest, smallest,
                   E: tl.constexpr, D: tl.constexpr, P: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    b, n = row // N, row % N
    d = tl.arange(0, P)
    h, e = d // E, d % E
    q = tl.load(Q + b * qb + n * qn + h * qh + e, mask=d < D, other=0.0).to(tl.float32)
    k = tl.load(K + b * kb + n * kn + h * kh + e, mask=d < D, other=0.0).to(tl.float32)
    v = tl.load(V + b * vb + n * vn + h * vh + e, mask=d < D, other=0.0).to(tl.float32)
    size = tl.maximum(tl.maximum(largest_of(q), largest_of(k)), largest_of(v))
    scale = tl.maximum(size / largest, smallest)
    y = Y + row * 3 * D + d
    tl.store(y, (q / scale).to(Y.dtype.element_ty), mask=d < D)
    tl.store(y + D, (k / scale).to(Y.dtype.element_ty), mask=d < D)
    tl.store(y + 2 * D, (v / scale).to(Y.dtype.element_ty), mask=d < D)
    tl.store(SCALE + row, scale)


def in_rows(m: int, d: int, device: torch.device) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """Room for values "m d" and their scales "m 1", and the largest value and smallest scale."""
    y = torch.empty(m, d, dtype=torch.float8_e4m3fn, device=device)
    scale = torch.empty(m, 1, dtype=torch.float32, device=device)
    return y, scale, (torch.finfo(y.dtype).max, torch.finfo(scale.dtype).tiny)


def rows(x: Tensor, gradient: Tensor | None = None, do: str = "nothing") -> tuple[Tensor, Tensor]:
    """See `aim.models.float8.by_rows`."""
    x = with_channels_last(x)
    gradient = x if gradient is None else with_channels_last(gradient)
    m, d = x.shape
    y, scale, limits = in_rows(m, d, x.device)
    shape = {"D": d, "P": triton.next_power_of_2(d), "DO": do}
    _rows[(m,)](x, gradient, y, scale, x.stride(0), gradient.stride(0), *limits, **shape)
    return y, scale


rows_of_quick_gelu = partial(rows, do="quick_gelu")  # `quick_gelu_by_rows` of aim.models.float8
rows_of_quick_gelu_backward = partial(rows, do="quick_gelu_backward")  # `quick_gelu_backward_by_rows`


def rows_of_three(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """See `aim.models.float8.three_by_rows`."""
    q, k, v = (with_channels_last(x) for x in (q, k, v))
    b, n, head, e = q.shape
    y, scale, limits = in_rows(b * n, 3 * head * e, q.device)
    strides = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3])
    shape = {"E": e, "D": head * e, "P": triton.next_power_of_2(head * e)}
    _rows_of_three[(b * n,)](q, k, v, y, scale, n, *strides, *limits, **shape)
    return y, scale
