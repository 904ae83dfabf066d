"""Convert checkpoints of the public AIM implementation (taoyang1122/adapt-image-models) to aim-video's, and back.

    python scripts/convert_official.py vit_b_clip_32frame_k400.pth k400.safetensors --classes=classes.txt \\
        +experiment=k400_b16_32f
    python scripts/convert_official.py k400.safetensors vit_b_clip_32frame_k400.pth

The direction follows from the endings. All tensors come along, the trunk's too, so the model to load them into has a
random trunk. The class names are one a line, in the order of the labels; aim.eval compares them with the data's. With
the experiment, and overrides as for aim.train, aim.predict knows the model without settings:

    python -m aim.eval +experiment=k400_b16_32f backbone.weights=random checkpoint=k400.safetensors
    python -m aim.predict checkpoint=k400.safetensors input=VIDEO_OR_FOLDER

Probes that Meta tuned on V-JEPA 2 are read, too, and those of transformers' VJEPA2ForVideoClassification. Their trunk
stays in its own file, which must be there:

    python scripts/convert_official.py ssv2-vitl-16x2x3.pt ssv2.safetensors --classes=classes.txt \\
        +experiment=ssv2_vjepa2_l backbone.weights=vitl.pt
"""

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from safetensors.torch import save_file
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor

from aim.engine.run.settings import Run
from aim.engine.trained import checkpoint
from aim.ground import config, files, mistakes
from aim.ground.errors import UserError
from aim.ground.formats import stamp
from aim.weights.trunk import USUAL_KEYS, check_fit, read_tensors, shortened
from aim.weights.video import joined

BOTTLENECK = {"D_fc1": "down", "D_fc2": "up"}
VIT_ADAPTERS = {"T_Adapter": "temporal", "T_Adapter_in": "temporal_in", "S_Adapter": "spatial", "MLP_Adapter": "joint"}
# Misleading but true: in Swin S_Adapter2 follows the window attention, and S_Adapter is beside the MLP.
SWIN_ADAPTERS = {"T_Adapter": "temporal", "S_Adapter2": "spatial", "S_Adapter": "joint"}
READOUT = "backbone.adapters.readout."
POOLER = {  # Meta's probes and transformers', without the pooler's own prefix -> `aim.adapters.probe`
    r"query_tokens": "out.attend.latent",
    r"(blocks|self_attention_layers)\.(\d+)\.": r"layers.\2.",
    r"(cross_attention_block|cross_attention_layer)\.": "out.",
    r"(layers\.\d+|out)\.(norm|layer_norm)1\.": r"\1.norm.",
    r"(layers\.\d+|out)\.(norm|layer_norm)2\.": r"\1.feed.norm.",
    r"(layers\.\d+|out)\.mlp\.": r"\1.feed.mlp.",
    r"(layers\.\d+)\.self_attn\.out_proj\.": r"\1.attn.proj.",
    r"(layers\.\d+)\.self_attn\.([qkv])_proj\.": r"\1.attn.\2.",
    r"out\.(xattn|cross_attn)\.([qkv]+)(_proj)?\.": r"out.attend.\2.",
}


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
# The number of additional axes of length 1 in front of ours.
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


def probe_names(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """A classifier's tensors, under our names, from those of a probe that Meta tuned on V-JEPA, or of transformers'.

    The trunk's own, which transformers keeps in the same file, are left out. Raises UserError for any other file.
    """
    found = {}
    for name, tensor in tensors.items():
        short = name.removeprefix("module.")
        if short.startswith("vjepa2."):
            continue
        ours = re.sub(r"^(linear|classifier)\.", "head.", short)
        if short.startswith("pooler."):
            ours = short.removeprefix("pooler.")
            for theirs, swap in POOLER.items():
                ours = re.sub(f"^{theirs}", swap, ours)
            ours = f"{READOUT}{ours}"
        found[ours] = tensor
    if f"{READOUT}out.attend.latent" not in found or "head.weight" not in found:
        raise UserError(f"{path} is no probe of V-JEPA: it has {shortened(list(tensors)) if tensors else 'no tensors'}")
    found = joined(found, path)
    for kind in ("weight", "bias"):
        key, value = (found.pop(f"{READOUT}out.attend.{part}.{kind}", None) for part in "kv")
        if key is not None and value is not None:
            found[f"{READOUT}out.attend.kv.{kind}"] = torch.cat([key, value])
    return found


def from_public(source: Path, target: Path, classes: list[str] | None, overrides: list[str]) -> None:
    """A `.pth` with `state_dict` -> safetensors that aim.eval and, with overrides, aim.predict read."""
    state = read_tensors(source, (*USUAL_KEYS, "classifiers"))
    probe = any("query_tokens" in name for name in state)
    model, tensors = ("", probe_names(state, source)) if probe else from_official(state)
    if "head.bias" not in tensors:
        raise UserError(f"{source} has no cls_head.fc_cls.bias, so it is no classifier")
    num_classes = len(tensors["head.bias"])
    settings, trunk = {}, {"name": model, "sha256": "random"}
    if probe:
        if not overrides:
            raise UserError(f"{source} is a probe without its trunk; name both: +experiment=NAME backbone.weights=FILE")
        cfg = config.compose(overrides)
        settings = config.resolve(cfg)
        made = config.build(cfg, Run).model(num_classes)
        own = made.state_dict()
        check_fit({name: own[name] for name in made.saved_names()}, tensors, str(source))
        trunk = {"name": made.trunk_name, "sha256": made.fingerprint}
    elif overrides:
        cfg = config.compose([*overrides, "backbone.weights=random"])
        settings = config.resolve(cfg)
        with torch.device("meta"):
            check_fit(config.build(cfg, Run).model(num_classes).state_dict(), tensors, str(source))
    if classes is None:
        classes = [f"class {i}" for i in range(num_classes)]
    if len(classes) != num_classes:
        raise UserError(f"{source} tells {num_classes} classes apart, --classes names {len(classes)}")
    metadata = stamp(checkpoint.FORMAT) | {
        "config": json.dumps(settings),
        "classes": json.dumps(classes),
        "trunk": json.dumps(trunk),
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    files.write_atomically(target, lambda file: save_file(tensors, file, metadata))


def to_public(source: Path, target: Path, size: int) -> None:
    """A file of `from_public` -> a `.pth` with `state_dict`."""
    saved = checkpoint.read_weights(source)
    model = saved.trunk["name"]
    if model not in NAMES:
        raise UserError(f"{source} holds the trunk {model}, which no public model has; use a file of this script")
    state = to_official(model, saved.tensors, size)
    files.write_atomically(target, lambda file: checkpoint.write_torch(file, {"state_dict": state}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", type=int, default=224, help="pixels of a clip, for the buffers of a Swin's .pth")
    parser.add_argument("--classes", type=Path, help="file of class names, one a line, for a .safetensors")
    parser.add_argument(
        "overrides", nargs="*", help="the experiment it was trained with: +experiment=NAME KEY=VALUE ..."
    )
    arguments = parser.parse_intermixed_args()
    try:
        for path in (arguments.source, arguments.classes):
            if path is not None and not path.is_file():
                raise UserError(f"{path} doesn't exist")
        if not arguments.target.parent.is_dir():
            raise UserError(f"the folder {arguments.target.parent} doesn't exist")
        ends = [path.suffix == ".safetensors" for path in (arguments.source, arguments.target)]
        if not any(ends) or (all(ends) and not arguments.overrides):  # transformers' probes end in it, too
            raise UserError("one of the two files must end in .safetensors, the other in .pth")
        if arguments.target.suffix == ".safetensors":
            classes = arguments.classes.read_text("utf-8").splitlines() if arguments.classes else None
            from_public(arguments.source, arguments.target, classes, arguments.overrides)
        else:
            to_public(arguments.source, arguments.target, arguments.size)
    except (UserError, HydraException) as error:
        text = error if isinstance(error, UserError) else mistakes.explain(error)
        print(f"aim: error: {text}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
