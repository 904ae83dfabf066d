"""A probe with positions: self-attention over the frozen features of all frames, told where and when they are.

Image trunks' features don't know their frame, and attention has no order of its own. With 3D positions and a few layers
of self-attention the same frozen trunks gain 15 to 20 points on Something-Something v2 (Simeoni et al., "DINOv3", 2025,
its section on video classification: a linear layer to a width, 3D sine and cosine positions, four self-attention blocks
with 3D rotary positions, one query). The pooler is that of V-JEPA 2 (Assran et al., 2025, attentive probing). STEP
(Ponbagavathi and Roitberg, "Order Matters", 2025) has a vector per frame, a global token in place of the pooler, and
layers without an MLP. `rope3d` is DINOv3's pair, sines and cosines and then rotary positions; unlike there its rows and
columns aren't turned by random angles. Rotary positions alone didn't learn the demo's order of frames.
All starts at torch's and timm's random values: with layers that begin as the identity the demo learns a little slower.
Shapes: b clips, t frames, n tokens of a frame, m tokens of a clip (m = t n), d channels of the probe, e of a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from timm.layers.attention import AttentionRope
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from aim.adapters.attentive_probe import answer, num_heads
from aim.adapters.interface import AdapterBase, Readout, Tokens
from aim.ground.errors import UserError

BASE = 10_000  # of the wavelengths, V-JEPA's
FEWEST = 6  # channels: a sine and a cosine each of frame, row and column


@dataclass(frozen=True)
class Probe(AdapterBase):
    """The values of configs/adapter/probe.yaml."""

    width: int | None  # channels; None: the trunk's
    depth: int  # layers of attention, the pooler among them
    positions: Literal["none", "time", "sincos3d", "rope3d"]
    mlp_ratio: float  # 0: layers of attention alone
    global_token: bool  # a token that attends with the others in place of the pooler
    heads: int | None = None  # of attention; None: of 64 channels each

    def heads_of(self, width: int) -> int:
        """The heads for so many channels. Raises UserError if they don't divide them."""
        if self.heads is not None and (self.heads < 1 or width % self.heads):
            raise UserError(f"adapter.heads={self.heads} doesn't divide {width} channels; use null for 64 a head")
        return num_heads(width) if self.heads is None else self.heads

    def readout(self, dims: Sequence[int], tokens: Tokens) -> Readout:
        least = 1 if self.global_token else 2
        if self.depth < least:
            alone = "" if self.global_token else "; the pooler alone is adapter=attentive_probe"
            raise UserError(f"adapter.depth={self.depth}; use {least} or more layers of attention{alone}")
        if self.width is not None and self.width < FEWEST:
            raise UserError(f"adapter.width={self.width}; use null for the trunk's width, or {FEWEST} channels or more")
        if self.mlp_ratio < 0:
            raise UserError(f"adapter.mlp_ratio={self.mlp_ratio:g}; use 4, or 0 for layers of attention alone")
        return ProbeNetwork(dims[-1], tokens, self)


class ProbeNetwork(Readout):
    """The probe: "b t n d" -> "b 1 d"."""

    reads_blocks = False
    places: Tensor | None
    rope: Tensor | None

    def __init__(self, dim: int, tokens: Tokens, cfg: Probe) -> None:
        super().__init__()
        self.dim = width = dim if cfg.width is None else cfg.width
        self.project = nn.Identity() if cfg.width is None else nn.Linear(dim, width)
        # A vector per frame is as large as the normed features.
        self.time = nn.Parameter(torch.randn(tokens.num_frames, width)) if cfg.positions == "time" else None
        places = sincos3d(tokens, width) if cfg.positions in ("sincos3d", "rope3d") else None
        rope = rope3d(tokens, width // cfg.heads_of(width)) if cfg.positions == "rope3d" else None
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("rope", rope, persistent=False)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02) if cfg.global_token else None
        count = cfg.depth if cfg.global_token else cfg.depth - 1
        self.layers = nn.ModuleList(Layer(width, cfg) for _ in range(count))
        self.out = nn.LayerNorm(width) if cfg.global_token else Pooler(width, cfg)

    def forward(self, blocks: Sequence[Tensor], last: Tensor) -> Tensor:
        x: Tensor = self.project(last)
        if self.time is not None:
            x = x + rearrange(self.time, "t d -> t 1 d")
        x = rearrange(x, "b t n d -> b (t n) d")
        if self.places is not None:
            x = x + self.places
        if self.token is not None:
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        for layer in self.layers:
            x = layer(x, self.rope, alone=self.token is not None and self.rope is None and layer is self.layers[-1])
        y: Tensor = self.out(x if self.token is None else x[:, :1])
        return y


class Layer(nn.Module):
    """Self-attention over the tokens of all frames, and an MLP: "b m d" -> the same; or of the first token `alone`."""

    def __init__(self, width: int, cfg: Probe) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attn = AttentionRope(width, cfg.heads_of(width), num_prefix_tokens=int(cfg.global_token))
        self.feed = feed_forward(width, cfg.mlp_ratio)

    def forward(self, x: Tensor, rope: Tensor | None, *, alone: bool = False) -> Tensor:
        y = self.norm(x)
        x = x[:, :1] + self.first(y) if alone else x + self.attn(y, rope=rope)
        fed: Tensor = self.feed(x)
        return fed

    def first(self, x: Tensor) -> Tensor:
        """The attention of the first token: "b m d" -> "b 1 d"."""
        weight, bias, d = self.attn.qkv.weight, self.attn.qkv.bias, x.shape[-1]
        query = F.linear(x[:, 0], weight[:d], bias[:d])
        y: Tensor = self.attn.proj(answer(query, x, weight[d:], bias[d:], self.attn.num_heads))
        return rearrange(y, "b d -> b 1 d")


class Pooler(nn.Module):
    """A learned query attends to all tokens, without an output projection; then an MLP: "b m d" -> "b 1 d"."""

    def __init__(self, width: int, cfg: Probe) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attend = AttentionPoolLatent(width, out_features=0, num_heads=cfg.heads_of(width))
        self.feed = feed_forward(width, cfg.mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        attend = self.attend
        y = answer(attend.q(attend.latent[:, 0]), self.norm(x), attend.kv.weight, attend.kv.bias, attend.num_heads)
        fed: Tensor = self.feed(attend.latent + rearrange(y, "b d -> b 1 d"))
        return fed


class FeedForward(nn.Module):
    """An MLP after a norm, added to its input."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = Mlp(width, max(1, round(width * ratio)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.mlp(self.norm(x))
        return y


def feed_forward(width: int, ratio: float) -> nn.Module:
    """A `FeedForward`, or nothing for a ratio of 0."""
    return FeedForward(width, ratio) if ratio else nn.Identity()


def sincos3d(tokens: Tokens, width: int) -> Tensor:
    """The sines and cosines of each token's `angles`, then zeros: "m d"."""
    turns = angles(tokens, width)
    places = torch.cat([turns.sin(), turns.cos()], -1)
    return F.pad(places, (0, width - places.shape[-1]))


def rope3d(tokens: Tokens, width: int) -> Tensor:
    """For rotary positions of heads of this width, timm's "m (2 e)": sines, cosines. The last channels are not turned.

    Each pair of neighbouring channels is turned by one of the token's `angles`.
    """
    turns = angles(tokens, width).repeat_interleave(2, -1)
    turns = F.pad(turns, (0, width - turns.shape[-1]))
    return torch.cat([turns.sin(), turns.cos()], -1)


def angles(tokens: Tokens, width: int) -> Tensor:
    """Frame, row and column of each token times falling frequencies: "m (3 k)", k of them an axis (V-JEPA 2's).

    The prefix stands in the middle of its frame.
    """
    t, h, w = tokens.num_frames, tokens.rows, tokens.columns
    frame, row, column = (torch.arange(float(count)) for count in (t, h, w))
    row, column = repeat(row, "h -> (h w)", w=w), repeat(column, "w -> (h w)", h=h)
    row, column = (torch.cat([x.mean().expand(tokens.num_prefix_tokens), x]) for x in (row, column))
    places = (repeat(frame, "t -> (t n)", n=len(row)), *(repeat(x, "n -> (t n)", t=t) for x in (row, column)))
    count = width // FEWEST
    frequencies = BASE ** -(torch.arange(float(count)) / count)
    return torch.cat([torch.outer(place, frequencies) for place in places], 1)
