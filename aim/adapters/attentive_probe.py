"""Attentive probe: a learned query attends to the frozen features of all frames.

Bardes et al., "Revisiting Feature Prediction for Learning Visual Representations from Video" (V-JEPA), 2024, has the
pooler alone; Assran et al., "V-JEPA 2", 2025, puts three self-attention blocks before it (both in their sections on
attentive probing). Their trunks read clips, so that features know their time; an image trunk's don't, and get a learned
embedding of it here. The trunk keeps no gradients and no activations.
Shapes: b clips, t frames, n tokens, d channels, head and e the attention's heads and their channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from timm.layers.attention_pool import AttentionPoolLatent
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from aim.adapters.interface import AdapterBase, Readout, Tokens
from aim.ground.errors import UserError

HEAD_DIM = 64  # channels of an attention head, as in a ViT


@dataclass(frozen=True)
class AttentiveProbe(AdapterBase):
    """The values of configs/adapter/attentive_probe.yaml."""

    depth: int  # the pooler and depth - 1 self-attention blocks before it

    def readout(self, dims: Sequence[int], tokens: Tokens) -> Readout:
        if self.depth < 1:
            raise UserError(f"adapter.depth={self.depth}; use 1 for the pooler alone, or more")
        return AttentivePooler(dims[-1], tokens.num_frames, self.depth)


class AttentivePooler(Readout):
    """Self-attention over the tokens of all frames, then one query over them: "b t n d" -> "b 1 d".

    The pooler is timm's, which has an output projection and a norm before its MLP; V-JEPA's adds the query to the
    result instead of projecting it.
    """

    reads_blocks = False

    def __init__(self, dim: int, num_frames: int, depth: int) -> None:
        super().__init__()
        self.dim = dim
        self.time = nn.Parameter(torch.empty(num_frames, dim))
        nn.init.normal_(self.time)  # as large as the normed features: with 0.02 the demo hardly learns the order
        heads = num_heads(dim)
        self.blocks = nn.Sequential(*(Block(dim, heads, qkv_bias=True) for _ in range(depth - 1)))
        self.norm = nn.LayerNorm(dim)
        self.pool = AttentionPoolLatent(dim, num_heads=heads, norm_layer=nn.LayerNorm)

    def forward(self, blocks: Sequence[Tensor], last: Tensor) -> Tensor:
        x = last + rearrange(self.time, "t d -> t 1 d")
        x = self.norm(self.blocks(rearrange(x, "b t n d -> b (t n) d")))
        pool = self.pool
        y: Tensor = pool.proj(answer(pool.q(pool.latent[:, 0]), x, pool.kv.weight, pool.kv.bias, pool.num_heads))
        y = y + pool.mlp(pool.norm(y))
        return rearrange(y, "b d -> b 1 d")


def answer(query: Tensor, x: Tensor, weight: Tensor, bias: Tensor, heads: int) -> Tensor:
    """The attention of one query to the tokens x: "b d" (or "1 d") and "b n d" -> "b d".

    `weight`, "(2 d) d", and `bias` are those of keys and values, which are never computed: the query goes through the
    keys' matrix in their place, and the tokens' mean by attention through the values'. So the products with the tokens
    have d / (2 heads) times fewer operations. The keys' bias is left out, as it adds the same to all scores.
    """
    keys, values = (rearrange(each, "(head e) d -> head e d", head=heads) for each in weight.chunk(2))
    query = rearrange(query, "b (head e) -> b head e", head=heads) * keys.shape[1] ** -0.5
    query = einsum(query, keys, "b head e, head e d -> b head d")
    shares = einsum(query, x, "b head d, b n d -> b head n").softmax(-1)
    y = einsum(shares, x, "b head n, b n d -> b head d")
    y = einsum(y, values, "b head d, head e d -> b head e")
    return rearrange(y, "b head e -> b (head e)") + bias.chunk(2)[1]


def num_heads(dim: int) -> int:
    """The number of attention heads for a width: of `HEAD_DIM` channels each, or the next more that divide it."""
    return next(heads for heads in range(max(1, dim // HEAD_DIM), 0, -1) if dim % heads == 0)
