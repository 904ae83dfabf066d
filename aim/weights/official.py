"""Checkpoints of the public implementation (taoyang1122/adapt-image-models) <-> the tensors of a VideoClassifier."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from aim.ground.errors import UserError

BOTTLENECK = {"D_fc1": "down", "D_fc2": "up"}
VIT_ADAPTERS = {"T_Adapter": "temporal", "T_Adapter_in": "temporal_in", "S_Adapter": "spatial", "MLP_Adapter": "joint"}
# Misleading, but so it is: in Swin S_Adapter2 follows the window attention and S_Adapter stands beside the MLP.
SWIN_ADAPTERS = {"T_Adapter": "temporal", "S_Adapter2": "spatial", "S_Adapter": "joint"}


def bottlenecks(adapters: Mapping[str, str]) -> dict[str, str]:
    return {f"{a}.{b}": f"adapters.{adapters[a]}.{BOTTLENECK[b]}" for a in adapters for b in BOTTLENECK}


def within(theirs: str, ours: str, parts: Mapping[str, str]) -> dict[str, str]:
    return {f"{theirs}.{a}": f"{ours}.{b}" for a, b in parts.items()}


TIMM_BLOCK = {part: f"view.block.{part}" for part in ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
CLIP_BLOCK = {
    "ln_1": "view.block.norm1",
    "ln_2": "view.block.norm2",
    "attn.in_proj": "view.block.attn.qkv",
    "attn.out_proj": "view.block.attn.proj",
    "mlp.c_fc": "view.block.mlp.fc1",
    "mlp.c_proj": "view.block.mlp.fc2",
}
DIVIDED_BLOCK = {
    "t_norm": "adapters.time.view.block.norm1",
    "t_attn.in_proj": "adapters.time.view.block.attn.qkv",
    "t_attn.out_proj": "adapters.time.view.block.attn.proj",
    "T_Adapter": "adapters.time.linear",
}
HEAD = {"cls_head.fc_cls": "head"}
CLIP = HEAD | within(
    "backbone",
    "backbone.trunk",
    {
        "class_embedding": "cls_token",
        "positional_embedding": "pos_embed",
        "temporal_embedding": "norm_pre.adapters.temporal_embedding.weight",
        "conv1": "patch_embed.proj",
        "ln_pre": "norm_pre.norm",
        "ln_post": "norm",
    }
    | within("transformer.resblocks.#", "blocks.#", CLIP_BLOCK),
)
RESBLOCKS = ("backbone.transformer.resblocks.#", "backbone.trunk.blocks.#")
# Their name -> ours, without .weight and .bias; # is a number.
NAMES: dict[str, dict[str, str]] = {
    "vit_clip": CLIP | within(*RESBLOCKS, bottlenecks(VIT_ADAPTERS)),
    "timesformer": CLIP | within(*RESBLOCKS, DIVIDED_BLOCK),
    "vit_imagenet": HEAD
    | within(
        "backbone",
        "backbone.trunk",
        {
            "cls_token": "cls_token",
            "pos_embed": "pos_embed",
            "temporal_embedding": "norm_pre.adapters.temporal_embedding.weight",
            "patch_embed.proj": "patch_embed.proj",
            "ln_post": "norm",
        }
        | within("blocks.#", "blocks.#", TIMM_BLOCK | bottlenecks(VIT_ADAPTERS)),
    ),
    "swin2d_adapter": HEAD
    | within(
        "backbone",
        "backbone.trunk",
        {"patch_embed.proj": "patch_embed.proj", "patch_embed.norm": "patch_embed.norm", "norm": "norm"}
        # They merge patches at the end of a stage, timm at the start of the next.
        | {
            f"layers.{i}.downsample.{p}": f"layers.{i + 1}.downsample.{p}"
            for i in range(3)
            for p in ("norm", "reduction")
        }
        | within(
            "layers.#.blocks.#",
            "layers.#.blocks.#",
            TIMM_BLOCK
            | bottlenecks(SWIN_ADAPTERS)
            | {
                "attn.relative_position_bias_table": "view.block.attn.relative_position_bias_table",
                "attn.temporal_position_bias_table": "view.temporal_bias",
            },
        ),
    ),
}
# How many axes of length 1 ours has more in front.
LEADING = {"class_embedding": 2, "positional_embedding": 1, "temporal_embedding": -1}
RECOMPUTED = ("relative_position_index", "t_relative_coords", "attn_mask")


def from_official(state: Mapping[str, Tensor]) -> tuple[str, dict[str, Tensor]]:
    """The name of the public model, and its tensors under the names of our classifier.

    Raises UserError for a name that the public models don't have.
    """
    model = which(state)
    tensors = {}
    for name, tensor in state.items():
        if name.rpartition(".")[2] not in RECOMPUTED:
            extra = LEADING.get(name.removeprefix("backbone."), 0)
            tensors[renamed(name, NAMES[model], model)] = tensor[(None,) * extra] if extra >= 0 else tensor.squeeze(0)
    return model, tensors


def to_official(model: str, tensors: Mapping[str, Tensor], size: int = 224) -> dict[str, Tensor]:
    """The inverse of `from_official`: the public `state_dict`, with the buffers it holds for clips of `size` pixels."""
    state = under_public_names(model, tensors)
    return state | (swin_buffers(state, size) if model == "swin2d_adapter" else {})


def under_public_names(model: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Any of our classifier's tensors, or their gradients, as the public model names and shapes them."""
    back = {ours: theirs for theirs, ours in NAMES[model].items()}
    state = {}
    for name, tensor in tensors.items():
        theirs = renamed(name, back, f"our {model}")
        extra = LEADING.get(theirs.removeprefix("backbone."), 0)
        state[theirs] = tensor.reshape(tensor.shape[extra:]) if extra >= 0 else tensor[None]
    return state


def which(state: Mapping[str, Tensor]) -> str:
    """The public model with such names."""
    signs = {
        "t_attn": "timesformer",
        "resblocks": "vit_clip",
        "cls_token": "vit_imagenet",
        "layers.0": "swin2d_adapter",
    }
    for sign, model in signs.items():
        if any(sign in name for name in state):
            return model
    raise UserError(f"no checkpoint of the public implementation: it has {', '.join(list(state)[:3]) or 'no tensors'}")


def renamed(name: str, names: Mapping[str, str], side: str) -> str:
    """The name by the table, its numbers kept. Raises UserError for a name that `side` doesn't have."""
    for pattern, target in names.items():
        expression = re.escape(pattern).replace(re.escape("#"), r"(\d+)") + r"(?:[._](weight|bias))?"
        if match := re.fullmatch(expression, name):
            *numbers, kind = match.groups()
            for number in numbers:
                target = target.replace("#", number, 1)
            separator = "_" if target.endswith("in_proj") else "."
            return f"{target}{separator}{kind}" if kind else target
    raise UserError(f"{name} is not a name of {side}")


def swin_buffers(state: Mapping[str, Tensor], size: int) -> dict[str, Tensor]:
    """The buffers of the public Swin, from the shapes of its bias tables."""
    buffers = {}
    patch = state["backbone.patch_embed.proj.weight"].shape[-1]
    for name, table in state.items():
        block = name.removesuffix(".attn.relative_position_bias_table")
        if name.endswith(".attn.temporal_position_bias_table"):
            frame = torch.arange((len(table) + 1) // 2)
            coords = frame[:, None] - frame[None, :] + len(frame) - 1
            buffers[name.replace("temporal_position_bias_table", "t_relative_coords")] = coords.flatten()
        elif block != name:
            window, stage, index = (math.isqrt(len(table)) + 1) // 2, *map(int, re.findall(r"\d+", block))
            grid = size // patch // 2**stage
            shift = window // 2 * (index % 2)
            like: Any = SwinTransformerBlock(1, (grid, grid), num_heads=1, window_size=window, shift_size=shift)
            buffers[f"{block}.attn.relative_position_index"] = like.attn.relative_position_index
            if like.attn_mask is not None:
                buffers[f"{block}.attn_mask"] = like.attn_mask
    return buffers
