"""A LoRA adapter and its head in the file format of Hugging Face's PEFT, for the same trunk of timm.

PEFT has one pair of matrices a layer, ours has one for each of q, k and v in a fused qkv. Concatenated these are one
pair of the sum of the ranks, the second matrix with zeros outside of each part's rows: exactly the same update.
"""

import tempfile
from pathlib import Path
from typing import Any

import timm
import torch
from einops import rearrange
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aim.adapters.lora import LoRA, factors
from aim.engine.trained.recogniser import Trained
from aim.ground import files
from aim.ground.errors import UserError
from aim.models.classifier import VideoClassifier

SUFFIX = ".peft"  # of a folder
TOLERANCE = 1e-4  # of a feature, relative to the largest
OTHERWISE = "use out=FILE.onnx, which has all"


def export(model: VideoClassifier, trained: Trained, classes: list[str], out: Path) -> str:
    """Write adapter_config.json, adapter_model.safetensors and classes.txt into a new folder; return the loading code.

    Raises UserError, and writes nothing, for another adapter than LoRA, and if PEFT can't apply the update to timm's
    model.
    """
    backbone, adapter = trained.backbone, trained.adapter
    if not isinstance(adapter, LoRA):
        raise UserError(f"out=DIR.peft is for adapter=lora, and this was trained with another adapter; {OTHERWISE}")
    if not timm.is_model(backbone.name.partition(".")[0]) or backbone.tubelet > 1 or backbone.weights == "random":
        raise UserError(
            f"out=DIR.peft is for timm's image trunks, with weights; backbone.name="
            f"{backbone.name}, tubelet={backbone.tubelet}, weights={backbone.weights} isn't one; {OTHERWISE}"
        )
    trunk: Any = model.backbone.trunk
    layers = {name: layer for name, layer in trunk.named_modules() if parametrize.is_parametrized(layer, "weight")}
    check_said(model, layers)
    tensors, ranks = dict[str, Tensor](), dict[str, int]()
    for name, layer in layers.items():
        down, up = factors(layer)
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        ranks[name] = len(down)
    head = next(name for name, module in trunk.named_modules() if module is trunk.get_classifier())
    tensors |= {f"{head}.{name}": tensor for name, tensor in model.head.state_dict().items()}
    wider = {name: rank for name, rank in ranks.items() if rank != adapter.rank}
    settings = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": backbone.name,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "rank_pattern": wider,
        "alpha_pattern": {name: rank * adapter.alpha / adapter.rank for name, rank in wider.items()},
        "target_modules": list(layers),
        "modules_to_save": [head],
        "lora_dropout": 0.0,
        "bias": "none",
    }
    beside = out.absolute().parent
    files.make_folder(beside)
    with files.writing(out, files.AGAIN), tempfile.TemporaryDirectory(prefix=".aim-export-", dir=beside) as made:
        inside = Path(made, "peft")
        inside.mkdir()
        named = {f"base_model.model.{name}": tensor.contiguous() for name, tensor in tensors.items()}
        weights = inside / "adapter_model.safetensors"
        files.write_atomically(weights, lambda file: save_file(named, file, {"format": "pt"}))
        files.write_json(inside / "adapter_config.json", settings)
        files.write_lines(inside / "classes.txt", classes)
        inside.rename(out)
    options = {"num_classes": len(classes), **backbone.options, "img_size": model.size}
    words = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return (
        f"peft.PeftModel.from_pretrained(timm.create_model({backbone.name!r}, pretrained=True, {words}), {str(out)!r})"
    )


@torch.inference_mode()
def check_said(model: VideoClassifier, layers: dict[str, nn.Module]) -> None:
    """Raise UserError for models that PEFT's files can't describe.

    These are other trained parts than LoRA and the head, a layer whose weight timm reads without calling it (PEFT
    changes calls), and a trunk that computes differently from timm's.
    """
    inside = tuple(f"backbone.trunk.{name}.parametrizations." for name in layers)
    if other := [name for name in model.trainable if not name.startswith((*inside, "head."))]:
        raise UserError(f"out=DIR.peft is for LoRA and a head, and {other[0]} is trained, too; {OTHERWISE}")
    called = set[str]()
    hooks = [layer.register_forward_hook(lambda *_, name=name: called.add(name)) for name, layer in layers.items()]
    video = torch.rand(1, 3, model.num_frames, model.size, model.size, generator=torch.Generator().manual_seed(0))
    trunk: Any = model.backbone.trunk
    theirs = trunk(rearrange(video, "b c t h w -> (b t) c h w"))
    for hook in hooks:
        hook.remove()
    if passed := [name for name in layers if name not in called]:
        raise UserError(f"out=DIR.peft: timm reads the weight of {passed[0]} without PEFT's update; {OTHERWISE}")
    difference = (theirs - rearrange(model.backbone(video), "b t d -> (b t) d")).abs().max() / theirs.abs().max()
    if not difference <= TOLERANCE:
        raise UserError(
            f"out=DIR.peft: timm's features differ from ours by {difference:.1e} of the largest; {OTHERWISE}"
        )
