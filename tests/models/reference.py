"""AIM on a ViT, written a second time in plain torch as an oracle: it imports nothing of aim/ and nothing of timm.

It follows the paper's equations over one clip at a time, and reads a model's `state_dict` by name.
"""

import math

import torch
from torch import Tensor


def aim_vit(weights: dict[str, Tensor], clip: Tensor, heads: int, scale: float, quick_gelu: bool, eps: float) -> Tensor:
    """One clip, "c t h w", to its logits, in the precision of the weights."""
    trunk = within(weights, "backbone.trunk.")
    frames = torch.stack([tokens(trunk, clip[:, t]) for t in range(clip.shape[1])])  # t n d
    entry = "norm_pre."
    if "norm_pre.adapters.temporal_embedding.weight" in trunk:
        frames = frames + trunk["norm_pre.adapters.temporal_embedding.weight"][:, None]
        entry = "norm_pre.norm."
    if f"{entry}weight" in trunk:
        frames = norm(trunk, entry, frames, eps)
    index = 0
    while any(name.startswith(f"blocks.{index}.") for name in trunk):
        block = {
            name.removeprefix(f"blocks.{index}."): w for name, w in trunk.items() if name.startswith(f"blocks.{index}.")
        }
        frames = adapted(block, frames, heads, scale, quick_gelu, eps)
        index += 1
    features = norm(trunk, "norm.", frames[:, 0], eps)  # the class token of each frame
    return linear(weights, "head.", features.mean(0))


def within(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def tokens(w: dict[str, Tensor], image: Tensor) -> Tensor:
    """A class token and one token per patch, with positions."""
    kernel = w["patch_embed.proj.weight"]
    p = kernel.shape[-1]
    rows = []
    for y in range(0, image.shape[1], p):
        for x in range(0, image.shape[2], p):
            rows.append(torch.einsum("cij,dcij->d", image[:, y : y + p, x : x + p], kernel))
    patches = torch.stack(rows) + w.get("patch_embed.proj.bias", 0)
    return torch.cat([w["cls_token"][0], patches]) + w["pos_embed"][0]


def adapted(w: dict[str, Tensor], x: Tensor, heads: int, scale: float, quick_gelu: bool, eps: float) -> Tensor:
    """One block on "t n d": time, then space, then the MLP with the joint adapter beside it."""
    p = "view.block." if "view.block.norm1.weight" in w else ""
    if "adapters.temporal.up.weight" in w:
        y = norm(w, f"{p}norm1.", x, eps)
        if "adapters.temporal_in.up.weight" in w:
            y = y + bottleneck(w, "adapters.temporal_in.", y)
        over_time = torch.stack([attention(w, f"{p}attn.", y[:, n], heads) for n in range(y.shape[1])], dim=1)
        x = x + bottleneck(w, "adapters.temporal.", over_time)
    y = norm(w, f"{p}norm1.", x, eps)
    y = torch.stack([attention(w, f"{p}attn.", frame, heads) for frame in y])
    if "adapters.spatial.up.weight" in w:
        y = y + bottleneck(w, "adapters.spatial.", y)
    x = x + y
    y = norm(w, f"{p}norm2.", x, eps)
    hidden = linear(w, f"{p}mlp.fc1.", y)
    hidden = hidden / (1 + torch.exp(-1.702 * hidden)) if quick_gelu else gelu(hidden)
    x = x + linear(w, f"{p}mlp.fc2.", hidden)
    if "adapters.joint.up.weight" in w:
        x = x + scale * bottleneck(w, "adapters.joint.", y)
    return x


def attention(w: dict[str, Tensor], prefix: str, x: Tensor, heads: int) -> Tensor:
    """Multi-head self-attention of a sequence "s d"."""
    q, k, v = linear(w, f"{prefix}qkv.", x).chunk(3, dim=-1)
    width = x.shape[-1] // heads
    out = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[:, part] @ k[:, part].T / math.sqrt(width)
        weights = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
        out.append(weights / weights.sum(-1, keepdim=True) @ v[:, part])
    return linear(w, f"{prefix}proj.", torch.cat(out, dim=-1))


def bottleneck(w: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    return linear(w, f"{prefix}up.", gelu(linear(w, f"{prefix}down.", x)))


def linear(w: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    return x @ w[f"{prefix}weight"].T + w[f"{prefix}bias"]


def norm(w: dict[str, Tensor], prefix: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps)
    return scaled * w[f"{prefix}weight"] + w[f"{prefix}bias"]


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2
