"""Export a trained model as one self-contained file: uint8 frames in, probabilities out.

    python -m aim.export checkpoint=runs/demo/best.safetensors out=FILE.onnx
    python -m aim.export checkpoint=runs/demo/best.safetensors out=FILE.pt2     # torch.export
    python -m aim.export checkpoint=runs/demo out=FILE.onnx quantize=int8 clips=DIR   # small and fast on a CPU
    python -m aim.export checkpoint=runs/lora out=DIR.peft  # a LoRA adapter and its head, for peft and timm

It contains the trunk, the normalisation, the class names and the test's clip and views; the batch size is free:
`video`, uint8 "b t c h w" -> `probability`, float32 "b k". LoRA is merged into the layers' weights exactly. The file is
compared with PyTorch before it gets its name; `aim.predict checkpoint=FILE.onnx` runs it.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from omegaconf import DictConfig

from aim.data.lists import spread
from aim.engine.machine.hardware import use_threads
from aim.engine.run.results import device_name
from aim.engine.trained import checkpoint, exported
from aim.engine.trained.exported import About, Program, library
from aim.engine.trained.recogniser import Recogniser, TrunkFile, load, settings_of
from aim.export import peft
from aim.export.comparing import ALIKE, LOST, alike, clips_of, compared, videos_of
from aim.export.quantizing import TOGETHER, frozen_layers, int8, matrices, speed
from aim.export.writing import clips, export
from aim.ground import config, files
from aim.ground.errors import UserError
from aim.ground.marks import Mark
from aim.ground.paths import path_of
from aim.models.classifier import VideoClassifier

FASTER = 1.6  # times the float32 file, at least
CALIBRATING = 32  # videos, at most


@dataclass(frozen=True)
class Settings:
    """The keys of configs/export.yaml."""

    checkpoint: Annotated[str, Mark.PATH]
    out: Annotated[str, Mark.PATH]
    quantize: Literal["int8"] | None
    clips: Annotated[str | Sequence[str] | None, Mark.PATH]
    measure: Annotated[str | Sequence[str] | None, Mark.PATH]
    force: bool
    threads: int | None
    debug: bool
    backbone: TrunkFile

    def __post_init__(self) -> None:
        if self.quantize is not None and Path(self.out).suffix != ".onnx":
            raise UserError(f"quantize={self.quantize} is for ONNX files, and out={self.out} isn't one; use FILE.onnx")
        if self.quantize is None and (self.clips or self.measure):
            raise UserError("clips and measure are for quantize=int8; add that, or leave them out")


def main(cfg: DictConfig) -> None:
    """Export `checkpoint` to `out`; print the difference of its probabilities from PyTorch's."""
    settings = config.build(cfg, Settings)
    out = path_of(settings.out)
    check_out(out)
    if exported.is_exported(settings.checkpoint):
        raise UserError(f"checkpoint={settings.checkpoint} is exported already; give a best.safetensors")
    recogniser = load(settings.checkpoint, weights=settings.backbone.weights)
    saved = checkpoint.read_weights(settings.checkpoint)
    assert isinstance(recogniser.model, VideoClassifier)
    if out.suffix == peft.SUFFIX:
        usage = peft.export(recogniser.model, settings_of(saved), saved.classes, out)
        print(f"{out}: {usage} has the trunk's features; its logits, averaged over frames, are the model's")
        return
    about = About(
        classes=recogniser.classes,
        clip=recogniser.clip,
        views=recogniser.views,
        trunk=saved.trunk,
        checkpoint={"name": f"{saved.run}/{saved.path.name}", "sha256": saved.fingerprint},
        calibration=saved.calibration,
        task=recogniser.task,
        pace=recogniser.pace,
        licence=recogniser.licence,
    )
    if settings.quantize:
        with tempfile.TemporaryDirectory(prefix="aim-export-") as folder:
            quantized(settings, recogniser, about, Path(folder), out)
        return
    difference = export(recogniser.model, recogniser.task, about, out)
    print(
        f"{out}: {difference:.1e} is the largest difference of a probability from PyTorch's, in batches of 1, 2 and 3"
    )


def quantized(settings: Settings, recogniser: Recogniser, about: About, folder: Path, out: Path) -> None:
    """Write `out` in int8, with its comparison to the float32 file, which is made in a `folder`.

    Raises UserError if it's too slow or answers too differently, unless forced.
    """
    use_threads(settings.threads)
    assert isinstance(recogniser.model, VideoClassifier)
    given = videos_of(settings.clips)
    calibrating = list(spread(given, CALIBRATING if settings.measure else min(CALIBRATING, len(given) // 2)))
    others = videos_of(settings.measure) if settings.measure else [each for each in given if each not in calibrating]
    layers, plain, made = frozen_layers(recogniser.model), folder / "float32.onnx", folder / "int8.onnx"
    export(recogniser.model, recogniser.task, about, plain)
    seen = [found[0] for _, found in clips_of(recogniser, calibrating)]
    number = int8(plain, matrices(recogniser.model, layers), seen, made)
    ours, theirs = (Program(exported.open_onnx(path)[0], about.clip) for path in (made, plain))
    measured = compared(ours, theirs, recogniser, others)
    faster = speed(ours, theirs, torch.cat(clips(about.clip) * TOGETHER)[:TOGETHER])
    agreement = measured["agreement"]
    words = (
        f"{faster:.2f} times as fast as float32 in batches of {TOGETHER} clips, the same answer in "
        + (
            f"{100 * agreement:.1f} % of {measured['videos']} videos"
            if agreement is not None
            else "no videos: none given"
        )
        + (
            f", accuracy {measured['accuracy'][1]:.1f} % after {measured['accuracy'][0]:.1f}"
            if measured["accuracy"]
            else ""
        )
    )
    if not settings.force and (faster < FASTER or not alike(measured)):
        raise UserError(
            f"{out} isn't written: in int8 it is {words}; at least {FASTER:g} times and {100 * ALIKE:g} % "
            f"(or, with class folders, at most {LOST:g} point of accuracy less) are required; "
            "clips=VIDEOS calibrates and measures on those, and force=true writes it"
        )
    notes = {"precision": "int8", "products": number, "calibration_videos": len(seen), "speed": round(faster, 3)}
    notes |= {"threads": torch.get_num_threads(), "processor": device_name(torch.device("cpu")), **measured}
    onnx = library("onnx")
    model = onnx.load(made)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, replace(about, quantized=notes).to_text())
    files.write_atomically(out, lambda file: onnx.save(model, file))
    print(f"{out}: {number} products of the trunk in int8, {words}")


def check_out(out: Path) -> None:
    """Raise UserError for a kind of file that can't be written (here), before anything is loaded."""
    if out.suffix not in (*exported.SUFFIXES, peft.SUFFIX):
        raise UserError(f"out={out} has an unknown suffix; use FILE.onnx, FILE.pt2 (torch.export), or DIR.peft")
    if out.suffix == peft.SUFFIX and out.exists():
        raise UserError(f"out={out} exists already; name a new folder, or delete it")
    if out.suffix == ".onnx":
        for name in ("onnxscript", "onnxruntime"):
            library(name)
