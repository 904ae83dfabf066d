"""Convert checkpoints of the public AIM implementation (taoyang1122/adapt-image-models) to aim-video's, and back.

    python scripts/convert_official.py vit_b_clip_32frame_k400.pth k400.safetensors --classes=classes.txt \\
        +experiment=k400_b16_32f
    python scripts/convert_official.py k400.safetensors vit_b_clip_32frame_k400.pth

The direction follows from the endings. All tensors come along, the trunk's too, so the model to load them into has a
random trunk. The class names are one a line, in the order of the labels; aim.eval compares them with the data's. With
the experiment, and overrides as for aim.train, aim.predict knows the model without being told:

    python -m aim.eval +experiment=k400_b16_32f backbone.weights=random checkpoint=k400.safetensors
    python -m aim.predict checkpoint=k400.safetensors input=VIDEO_OR_FOLDER
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from hydra.errors import HydraException
from safetensors.torch import save_file

from aim.engine.run.settings import Run
from aim.engine.trained import checkpoint
from aim.ground import config, files, mistakes
from aim.ground.errors import UserError
from aim.weights.official import NAMES, from_official, to_official
from aim.weights.trunk import check_fit, read_tensors


def from_public(source: Path, target: Path, classes: list[str] | None, overrides: list[str]) -> None:
    """A `.pth` with `state_dict` -> safetensors that aim.eval and, with overrides, aim.predict read."""
    model, tensors = from_official(read_tensors(source))
    if "head.bias" not in tensors:
        raise UserError(f"{source} has no cls_head.fc_cls.bias, so it is no classifier")
    num_classes = len(tensors["head.bias"])
    settings = {}
    if overrides:
        cfg = config.compose([*overrides, "backbone.weights=random"])
        settings = config.resolve(cfg)
        with torch.device("meta"):
            check_fit(config.build(cfg, Run).model(num_classes), tensors, str(source))
    if classes is None:
        classes = [f"class {i}" for i in range(num_classes)]
    if len(classes) != num_classes:
        raise UserError(f"{source} tells {num_classes} classes apart, --classes names {len(classes)}")
    metadata = {
        "format": "aim-video 1",
        "config": json.dumps(settings),
        "classes": json.dumps(classes),
        "trunk": json.dumps({"name": model, "sha256": "random"}),
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    files.write_atomically(target, lambda file: save_file(tensors, file, metadata))


def to_public(source: Path, target: Path, size: int) -> None:
    """What `from_public` wrote -> a `.pth` with `state_dict`."""
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
        if (arguments.source.suffix == ".safetensors") == (arguments.target.suffix == ".safetensors"):
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
