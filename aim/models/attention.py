"""Cheaper forms of timm's block computations: attention, and CLIP's activation.

The output of an attention here is the input of its output projection.
Shapes: b clips, t frames, n tokens of a frame, d channels, head and e the attention's heads and their channels.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers.activations import QuickGELU
from timm.layers.mlp import Mlp
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from aim.models.float8 import Float8Linear, around_quick_gelu
from aim.models.quick_gelu import QUICK, quick_gelu
from aim.models.short_attention import is_short, short_attention

BUT_CUDNN = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def over_time(attn: Any, x: Tensor, num_frames: int, *, on_gpu: bool = False) -> Tensor:
    """Every token attends to itself in the clip's other frames: "(b t) n d" -> the same.

    With q, k and v as products of their own, a frame's tokens and heads are one axis of the result, and time is read
    where it lies. One product for all three would have to be copied, "(b t) n d -> (b n) t d", to and fro, but for the
    kernel of a GPU.
    """
    heads = attn.num_heads
    if on_gpu:
        qkv = rearrange(together(attn, x), "(b t) n three head e -> b t n three head e", t=num_frames)
        if is_short(qkv) and not (attn.training and attn.attn_drop.p):
            return normed(attn, rearrange(short_attention(q_k_normed(attn, qkv)), "b t n head e -> (b t) n (head e)"))
        q, k, v = (rearrange(y, "b t n head e -> b (n head) t e") for y in qkv.unbind(3))
    else:
        q, k, v = (
            rearrange(project(x), "(b t) n (head e) -> b (n head) t e", t=num_frames, head=heads)
            for project in projections(attn)
        )
    y = attend(attn, attn.q_norm(q), attn.k_norm(k), v)
    return normed(attn, rearrange(y, "b (n head) t e -> (b t) n (head e)", head=heads))


def over_space(attn: Any, x: Tensor, rope: Tensor | None, asking: int | None = None, *, on_gpu: bool = False) -> Tensor:
    """The first `asking` tokens of a frame attend to all: "bt n d" -> "bt asking d"; None: all of them ask."""
    if on_gpu and asking is None:
        q, k, v = (rearrange(y, "bt n head e -> bt head n e") for y in apart(attn, x))
    else:
        q, k, v = (
            rearrange(project(tokens), "bt n (head e) -> bt head n e", head=attn.num_heads)
            for tokens, project in zip((x[:, :asking], x, x), projections(attn), strict=True)
        )
    q, k = attn.q_norm(q), attn.k_norm(k)
    if rope is not None:
        q, k = turned(attn, q, rope, v.dtype), turned(attn, k, rope, v.dtype)
    return normed(attn, rearrange(attend(attn, q, k, v), "bt head n e -> bt n (head e)"))


def together(attn: Any, x: Tensor) -> Tensor:
    """q, k and v, by one product where one layer makes them: "bt n d" -> "bt n 3 head e"."""
    if attn.qkv is None:
        y = torch.cat([project(x) for project in projections(attn)], -1)
    elif isinstance(attn.qkv, Float8Linear):
        y = attn.qkv.product(x, slice(None), bias_of(attn))
    else:
        y = F.linear(x, attn.qkv.weight, bias_of(attn))
    return rearrange(y, "bt n (three head e) -> bt n three head e", three=3, head=attn.num_heads)


def apart(attn: Any, x: Tensor) -> Sequence[Tensor]:
    """The same in three, "bt n head e", whose gradients in float8 needn't be put together first."""
    if isinstance(attn.qkv, Float8Linear):
        return attn.qkv.apart(x, bias_of(attn), attn.num_heads)
    return together(attn, x).unbind(2)


def bias_of(attn: Any) -> Tensor | None:
    """That of q, k and v, which some attentions hold apart."""
    if getattr(attn, "q_bias", None) is not None:
        return torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    bias: Tensor | None = attn.qkv.bias
    return bias


def q_k_normed(attn: Any, qkv: Tensor) -> Tensor:
    """q and k by the norms that some attentions have: "b t n 3 head e" -> the same."""
    if isinstance(attn.q_norm, nn.Identity) and isinstance(attn.k_norm, nn.Identity):
        return qkv
    q, k, v = qkv.unbind(3)
    return torch.stack([attn.q_norm(q).to(v.dtype), attn.k_norm(k).to(v.dtype), v], 3)


def projections(attn: Any) -> list[Callable[[Tensor], Tensor]]:
    """The products that make q, k and v, whichever way a timm attention holds their weights."""
    if attn.qkv is None:
        return [attn.q_proj, attn.k_proj, attn.v_proj]
    biases = [None] * 3
    if getattr(attn, "q_bias", None) is not None:
        biases = [attn.q_bias, attn.k_bias, attn.v_bias]
    elif attn.qkv.bias is not None:
        biases = attn.qkv.bias.chunk(3)
    if isinstance(attn.qkv, Float8Linear):
        return [partial(attn.qkv.product, parts=slice(i, i + 1), bias=bias) for i, bias in enumerate(biases)]
    weights = zip(attn.qkv.weight.chunk(3), biases, strict=True)
    return [partial(F.linear, weight=weight, bias=bias) for weight, bias in weights]


def turned(attn: Any, x: Tensor, rope: Tensor, dtype: torch.dtype) -> Tensor:
    """Rotary position embedding of the patches, if there are any beside the class token and registers, which have none.

    "bt head n e" -> the same, in `dtype`.
    """
    prefix, patches = x[:, :, : attn.num_prefix_tokens], x[:, :, attn.num_prefix_tokens :]
    if patches.shape[2]:
        patches = apply_rot_embed_cat(patches, rope, half=getattr(attn, "rotate_half", False))
    return torch.cat([prefix, patches], dim=2).to(dtype)


def attend(attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention: "... n e" three times -> the same."""
    dropout = attn.attn_drop.p if attn.training else 0.0
    if attn.fused_attn or dropout:
        # cuDNN, which torch prefers on Hopper and Blackwell, has open bugs with one query (its frontend's issue 1072).
        with sdpa_kernel(BUT_CUDNN) if q.shape[-2] == 1 else nullcontext():
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    y: Tensor = ByProducts.apply(q, k, v)
    return y


class ByProducts(torch.autograd.Function):
    """Softmax attention as two products; for the backward pass q, k and v are kept, as the fused one does."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with without_autocast(q.device):  # which would have the softmax in float32
            q = q * q.shape[-1] ** -0.5
            q, k, v = (x.to(v.dtype).contiguous() for x in (q, k, v))
            ctx.save_for_backward(q, k, v)
            return shares(q, k) @ v

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = ctx.saved_tensors
        y = shares(q, k)
        of_scores = torch._softmax_backward_data(gradient @ v.mT, y, -1, y.dtype)
        return of_scores @ k * q.shape[-1] ** -0.5, of_scores.mT @ q, y.mT @ gradient


def shares(q: Tensor, k: Tensor) -> Tensor:
    """How much of each token goes into each: rows that sum to 1."""
    return (q @ k.mT).softmax(-1)


def attend_by_products(model: nn.Module) -> None:
    """Let attention be two matrix products around a softmax, in place of torch's fused one.

    On a CPU the fused one takes 1.9 times as long in bf16 (forward, 197 tokens; 2.5 times with its backward pass), and
    with 8 frames 2.9 and 2.2 times: it has products of its own, which don't use the instructions for bf16.
    """
    attention: Any
    for attention in model.modules():
        if hasattr(attention, "fused_attn"):
            attention.fused_attn = False


def normed(attn: Any, y: Tensor) -> Tensor:
    z: Tensor = attn.norm(y)
    return z


def feed_forward(mlp: Any, x: Tensor, *, on_gpu: bool = False) -> Tensor:
    """The block's MLP, "bt n d" -> the same; around a QuickGELU 1.702 goes with the products, which spares 3 passes.

    On a GPU it is one kernel in any case, and there a product with a factor takes a pass more for its bias (by source).
    """
    y: Tensor
    if not has_quick_gelu(mlp):
        y = mlp(x)
        return y
    fc1, fc2 = mlp.fc1, mlp.fc2
    if isinstance(fc1, Float8Linear) and isinstance(fc2, Float8Linear):
        return around_quick_gelu(fc1, fc2, x)
    if on_gpu or isinstance(fc1, Float8Linear) or isinstance(fc2, Float8Linear):
        y = fc2(quick_gelu(fc1(x)))
        return y
    hidden = torch.addmm(fc1.bias, rearrange(x, "bt n d -> (bt n) d"), fc1.weight.T, beta=QUICK, alpha=QUICK)
    hidden = F.silu(hidden, inplace=not torch.is_grad_enabled())
    y = torch.addmm(fc2.bias, hidden, fc2.weight.T, alpha=1 / QUICK)
    return rearrange(y, "(bt n) d -> bt n d", n=x.shape[1])


def has_quick_gelu(mlp: Any) -> bool:
    """Whether an MLP is two layers with biases around a QuickGELU, and nothing else."""
    if type(mlp) is not Mlp or type(mlp.act) is not QuickGELU or type(mlp.norm) is not nn.Identity:
        return False
    return mlp.fc1.bias is not None and mlp.fc2.bias is not None and mlp.drop1.p == mlp.drop2.p == 0


def compute_by_large_kernels(model: nn.Module) -> None:
    """Let blocks compute by few large kernels, some of them our own, as is best on a GPU and slower elsewhere."""
    backbone: Any = model.backbone
    part: Any
    for part in (*model.modules(), *backbone.parts):  # a block that isn't adapted doesn't hold its view
        if hasattr(part, "on_gpu"):
            part.on_gpu = True


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Compute the block in the types of its tensors; the meta device has no autocast to switch off."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()
