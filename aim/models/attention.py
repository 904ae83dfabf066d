"""The attention of timm's blocks where their own forward does more than is asked: along time, and for the class token.

What comes back here is what the output projection takes.
Shapes: b clips, t frames, n tokens of a frame, d channels, head and e the attention's heads and their channels.
"""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from torch import Tensor


def over_time(attn: Any, x: Tensor, num_frames: int) -> Tensor:
    """Every token attends to itself in the clip's other frames: "(b t) n d" -> the same.

    With q, k and v as products of their own, a frame's tokens and heads are one axis of the result, and time is read
    where it lies. One product for all three would have to be copied, "(b t) n d -> (b n) t d", to and fro.
    """
    q, k, v = (
        rearrange(F.linear(x, weight, bias), "(b t) n (head e) -> b (n head) t e", t=num_frames, head=attn.num_heads)
        for weight, bias in projections(attn)
    )
    y = attend(attn, q, k, v)
    return normed(attn, rearrange(y, "b (n head) t e -> (b t) n (head e)", head=attn.num_heads))


def of_class_token(attn: Any, x: Tensor, rope: Tensor | None) -> Tensor:
    """The class token, which comes first, attends to all tokens of its frame: "bt n d" -> "bt 1 d"."""
    q, k, v = (
        rearrange(F.linear(tokens, weight, bias), "bt n (head e) -> bt head n e", head=attn.num_heads)
        for tokens, (weight, bias) in zip((x[:, :1], x, x), projections(attn), strict=True)
    )
    if rope is not None:  # of the patches alone, so that q has none
        prefix, patches = k[:, :, : attn.num_prefix_tokens], k[:, :, attn.num_prefix_tokens :]
        turned = apply_rot_embed_cat(patches, rope, half=attn.rotate_half)
        k = torch.cat([prefix, turned], dim=2).type_as(v)
    return normed(attn, rearrange(attend(attn, q, k, v), "bt head n e -> bt n (head e)"))


def projections(attn: Any) -> list[tuple[Tensor, Tensor | None]]:
    """Weight and bias of q, k and v, whichever way a timm attention holds them."""
    if attn.qkv is None:
        return [(layer.weight, layer.bias) for layer in (attn.q_proj, attn.k_proj, attn.v_proj)]
    biases = [None] * 3
    if hasattr(attn, "q_bias"):
        biases = [attn.q_bias, attn.k_bias, attn.v_bias]
    elif attn.qkv.bias is not None:
        biases = attn.qkv.bias.chunk(3)
    return list(zip(attn.qkv.weight.chunk(3), biases, strict=True))


def attend(attn: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    dropout = attn.attn_drop.p if attn.training else 0.0
    return F.scaled_dot_product_attention(attn.q_norm(q), attn.k_norm(k), v, dropout_p=dropout)


def normed(attn: Any, y: Tensor) -> Tensor:
    z: Tensor = attn.norm(y)
    return z
