"""Name what a trained model sees in a video, or in every video of a folder.

    python -m aim.predict checkpoint=runs/demo/best.safetensors input=VIDEO_OR_FOLDER

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, reduce
from omegaconf import DictConfig
from torch import Tensor

from aim import config
from aim.adapters.interface import AdapterConfig
from aim.data.dataset import VideoDataset
from aim.data.lists import VIDEO_EXTENSIONS, Video
from aim.data.loader import Loader
from aim.data.readers.decord import Decord
from aim.data.readers.interface import Reader
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.engine import checkpoint, distributed
from aim.engine.console import plain_console, plain_table
from aim.engine.hardware import Device, Precision, autocast, resolve_device, settle
from aim.errors import UserError
from aim.models.classifier import Backbone, VideoClassifier, build


@dataclass(frozen=True)
class Trained:
    """The part of a training run's settings that says what its model is and sees."""

    backbone: Backbone
    adapter: AdapterConfig
    clip: Clip
    views: Views


@dataclass(frozen=True)
class Recogniser:
    """A trained model with its classes and its way of looking at a video."""

    model: VideoClassifier
    classes: list[str]
    clip: Clip
    views: Views

    @torch.inference_mode()
    def predict(self, video: Tensor, precision: Precision = "fp32") -> Tensor:
        """Probabilities "b k" of clips, uint8 "b t c h w" with the model's number of frames and size."""
        device = self.model.mean.device
        with autocast(device, precision):
            logits = self.model(self.model.preprocess(video.to(device)))
        probability: Tensor = logits.float().softmax(1).cpu()
        return probability

    def predict_file(self, path: str | Path, reader: Reader | None = None, precision: Precision = "fp32") -> Tensor:
        """Probabilities "k" of a video, the mean over the test's views; by default decord reads it, or PyAV.

        Raises UserError if it can't be read.
        """
        ((_, found),) = self.files([Path(path)], reader or Decord(), workers=0, precision=precision)
        if isinstance(found, str):
            raise UserError(f"{path} could not be read: {found}")
        return found

    def files(
        self, paths: Sequence[Path], reader: Reader, *, workers: int, precision: Precision
    ) -> Iterator[tuple[Path, Tensor | str]]:
        """For each file its probabilities "k", the mean over the test's views, or why it could not be read."""
        videos = [Video(str(path), 0, None, None) for path in paths]
        dataset = VideoDataset(Path(), videos, reader, self.clip, self.views, seed=0)
        loader = Loader(
            dataset, 1, rank=0, world_size=1, seed=0, shuffle=False, workers=min(workers, len(paths)),
            timeout=60.0, on_error="skip", max_bad=1.0,
        )  # fmt: skip
        with closing(loader):
            for batch in loader.epoch(0):
                path = paths[int(batch.index)]
                if batch.weight:
                    probability = self.predict(rearrange(batch.video, "1 v t c h w -> v t c h w"), precision)
                    yield path, reduce(probability, "v k -> k", "mean")
                else:
                    yield path, loader.bad[str(path)]


def load(path: str | Path, *, weights: str | None = None, device: str = "cpu") -> Recogniser:
    """Rebuild a trained model from `best.safetensors` and its trunk; `weights` says where the trunk is, if elsewhere.

    Raises UserError when a file is missing, or the trunk is another one.
    """
    saved = checkpoint.read_weights(path)
    if not saved.config:
        raise UserError(f"{path} doesn't say what model it is for: convert it again, with its +experiment=NAME")
    parts = {key: value for key, value in saved.config.items() if key in Trained.__dataclass_fields__}
    try:
        trained = config.build(parts, Trained, received=True)
    except UserError as error:
        raise UserError(f"the config in {path}: {error}") from error
    backbone = trained.backbone if weights is None else replace(trained.backbone, weights=weights)
    model = build(
        backbone,
        trained.adapter,
        num_classes=len(saved.classes),
        num_frames=trained.clip.num_frames,
        size=trained.clip.size,
        dropout=0.0,
    )
    checkpoint.load_weights(model, saved)
    return Recogniser(model.eval().to(device), saved.classes, trained.clip, trained.views)


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
    debug: bool
    backbone: Mapping[str, str | None]
    reader: Reader


def main(cfg: DictConfig) -> None:
    """Print the `top` labels of each video; exit code 2 if one could not be read."""
    settings = config.build(cfg, Settings)
    paths = find_videos(Path(settings.input))
    device = resolve_device(settings.device)
    distributed.num_ranks(device, 1)
    recogniser = load(settings.checkpoint, weights=settings.backbone["weights"], device=device)
    precision = settle({"device": settings.device, "precision": settings.precision}, device)
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
