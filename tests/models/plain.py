"""AIM on CLIP's ViT as the public code computes it: the baseline of our timings, and a third reference for numbers.

Tokens first, `nn.MultiheadAttention`, tokens rearranged and copied for time, every token through every block, float32
weights that autocast casts in every step. Its `state_dict` has the public names (scripts/convert_official.py). It
imports nothing of aim/ and nothing of timm.
Shapes: b clips, t frames, n tokens, h w grid, c colours, d channels.
"""

import torch
from einops import rearrange
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """The public code's Adapter."""

    def __init__(self, dim: int, *, skip: bool) -> None:
        super().__init__()
        self.skip = skip
        self.act = nn.GELU()
        self.D_fc1 = nn.Linear(dim, dim // 4)
        self.D_fc2 = nn.Linear(dim // 4, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.D_fc2(self.act(self.D_fc1(x)))
        return x + y if self.skip else y


class LayerNorm(nn.LayerNorm):
    """In float32, as CLIP has it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).type(x.dtype)


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class DropPath(nn.Module):
    """Drop path over the first axis: token positions."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - self.rate).div_(1 - self.rate)
        return x * kept


class Block(nn.Module):
    """CLIP's block with the temporal, spatial and joint adapters."""

    def __init__(self, dim: int, heads: int, num_frames: int, scale: float, drop_path: float) -> None:
        super().__init__()
        self.num_frames, self.scale = num_frames, scale
        self.attn = nn.MultiheadAttention(dim, heads)
        self.ln_1, self.ln_2 = LayerNorm(dim), LayerNorm(dim)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(dim, 4 * dim))
        self.mlp.add_module("gelu", QuickGELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * dim, dim))
        self.T_Adapter = Bottleneck(dim, skip=False)
        self.S_Adapter = Bottleneck(dim, skip=True)
        self.MLP_Adapter = Bottleneck(dim, skip=False)
        self.drop_path = DropPath(drop_path)

    def attention(self, x: Tensor) -> Tensor:
        y: Tensor = self.attn(x, x, x, need_weights=False)[0]
        return y

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        y = rearrange(x, "n (b t) d -> t (b n) d", t=self.num_frames)
        y = self.T_Adapter(self.attention(self.ln_1(y)))
        x = x + self.drop_path(rearrange(y, "t (b n) d -> n (b t) d", n=n))
        x = x + self.S_Adapter(self.attention(self.ln_1(x)))
        y = self.ln_2(x)
        return x + self.mlp(y) + self.drop_path(self.scale * self.MLP_Adapter(y))


class Backbone(nn.Module):
    """Clips "b c t h w" -> the class tokens of their frames, "b t d"."""

    def __init__(
        self,
        *,
        size: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        num_frames: int,
        scale: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.conv1 = nn.Conv2d(3, dim, patch, stride=patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(dim))
        self.positional_embedding = nn.Parameter(torch.zeros((size // patch) ** 2 + 1, dim))
        self.temporal_embedding = nn.Parameter(torch.zeros(1, num_frames, dim))
        self.ln_pre, self.ln_post = LayerNorm(dim), LayerNorm(dim)
        rates = torch.linspace(0, drop_path, depth).tolist()
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.Sequential(*(Block(dim, heads, num_frames, scale, rate) for rate in rates))

    def forward(self, video: Tensor) -> Tensor:
        t = self.num_frames
        x = self.conv1(rearrange(video, "b c t h w -> (b t) c h w"))
        x = rearrange(x, "bt d h w -> bt (h w) d")
        x = torch.cat([self.class_embedding.to(x.dtype) + x.new_zeros(len(x), 1, x.shape[-1]), x], dim=1)
        x = x + self.positional_embedding.to(x.dtype)
        n = x.shape[1]
        x = rearrange(x, "(b t) n d -> (b n) t d", t=t) + self.temporal_embedding
        x = self.ln_pre(rearrange(x, "(b n) t d -> (b t) n d", n=n))
        x = self.transformer.resblocks(rearrange(x, "bt n d -> n bt d"))
        x = self.ln_post(rearrange(x, "n bt d -> bt n d"))
        return rearrange(x[:, 0], "(b t) d -> b t d", t=t)


class PlainAIM(nn.Module):
    """Clips to logits; all but adapters, last norm, temporal embedding and head is frozen."""

    def __init__(self, *, num_classes: int, dropout: float, **of_backbone: float) -> None:
        super().__init__()
        self.backbone = Backbone(**of_backbone)
        self.dropout = nn.Dropout(dropout)
        self.cls_head = nn.Module()
        self.cls_head.fc_cls = nn.Linear(self.backbone.class_embedding.shape[0], num_classes)
        trained = ("Adapter", "temporal_embedding", "ln_post", "cls_head")
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(any(word in name for word in trained))

    def forward(self, video: Tensor) -> Tensor:
        logits: Tensor = self.cls_head.fc_cls(self.dropout(self.backbone(video).mean(1)))
        return logits
