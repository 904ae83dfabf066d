"""Name what a trained model sees in a video, or in every video of a folder.

    python -m aim.predict checkpoint=runs/demo/best.safetensors input=VIDEO_OR_FOLDER
    python -m aim.predict checkpoint=FILE.onnx input=VIDEO_OR_FOLDER    # what aim.export wrote

A table on a terminal, JSON lines when piped or with json=true. In a notebook:

    recogniser = aim.predict.load("runs/demo/best.safetensors")
    recogniser.predict_file("a.mp4")   # probabilities "k", of recogniser.classes
    recogniser.predict(video)          # uint8 "b t c h w" -> probabilities "b k"
"""

from aim import command

if __name__ == "__main__":  # before the imports that take seconds: --help and a misspelt setting need none of them
    command.entrypoint("aim.predict", "predict", "aim.predict.Settings")

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from aim import config
from aim.data.lists import VIDEO_EXTENSIONS
from aim.data.readers.interface import Reader
from aim.engine import distributed, exported
from aim.engine.console import plain_console, plain_table
from aim.engine.hardware import Device, Precision, resolve_device, settle
from aim.engine.recogniser import load
from aim.errors import UserError


def find_videos(path: Path) -> list[Path]:
    """The file itself, or all video files under a folder. Raises UserError where there are none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"input={path} doesn't exist; give a video file, or a folder of them")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_EXTENSIONS and file.is_file())
    if not found:
        raise UserError(f"input={path} holds no video ({', '.join(VIDEO_EXTENSIONS)})")
    return found


@dataclass(frozen=True)
class Settings:
    """The keys of configs/predict.yaml."""

    checkpoint: str
    input: str
    top: int
    json: bool
    device: Device
    precision: Precision
    workers: int
    trust: bool
    debug: bool
    backbone: Mapping[str, str | None]
    reader: Reader


def main(cfg: DictConfig) -> None:
    """Print the `top` labels of each video; exit code 2 if one could not be read."""
    settings = config.build(cfg, Settings)
    paths = find_videos(Path(settings.input))
    asked = settings.device, settings.precision
    if exported.is_exported(settings.checkpoint):
        asked = exported.on_cpu(settings.checkpoint, *asked)
    device = resolve_device(asked[0])
    distributed.num_ranks(device, 1)
    weights = settings.backbone["weights"]
    recogniser = load(settings.checkpoint, weights=weights, device=device, trust=settings.trust)
    precision = settle({"device": asked[0], "precision": asked[1]}, device)
    console = plain_console(soft_wrap=False)
    head = ["video", *(f"top {i + 1}" for i in range(min(settings.top, len(recogniser.classes))))]
    rows: list[list[str]] = []
    failed = 0
    found = recogniser.files(paths, settings.reader, workers=settings.workers, precision=precision)
    for path, scores in found:
        entry: dict[str, Any] = {"path": str(path)}
        if isinstance(scores, str):
            failed += 1
            entry["error"] = scores
            row = [f"could not be read: {scores}"]
        else:
            best = scores.argsort(descending=True)[: settings.top].tolist()
            entry["labels"] = [
                {"label": recogniser.classes[i], "probability": round(float(scores[i]), 4)} for i in best
            ]
            row = [f"{recogniser.classes[i]} {100 * float(scores[i]):.1f} %" for i in best]
        if settings.json or not console.is_terminal:
            print(json.dumps(entry, ensure_ascii=False), flush=True)
        else:
            rows.append([str(path), *row])
    if rows:
        console.print(plain_table(rows, head))
    if failed:
        print(f"aim: error: {failed} of {len(paths)} videos could not be read", file=sys.stderr)
        sys.exit(2)
