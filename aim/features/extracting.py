"""Pooled features of videos, the input of the head: a vector of each view, or of each window of some seconds."""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.loading.loader import Batch, Loader
from aim.data.loading.order import Listed
from aim.data.readers.interface import Reader
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.data.windows import Cut, Windows, batches, placed, trusting
from aim.engine.machine.feeding import on_device, one_late, to_host
from aim.engine.machine.hardware import Precision, autocast
from aim.ground import files
from aim.ground.errors import UserError
from aim.models.classifier import VideoClassifier

Form = Literal["npz", "safetensors"]


class Features(NamedTuple):
    """Of a video, w of its windows or views, d numbers each."""

    feats: NDArray[np.float32]  # "w d", as ActionFormer calls it; NaN for a window in a pause, which has no frames
    seconds: NDArray[np.float32]  # "w 2", where each begins and ends; NaN: unknown


@dataclass(frozen=True)
class Extractor:
    """A model, and what it sees of a video."""

    model: VideoClassifier
    clip: Clip
    views: Views
    precision: Precision
    batch_size: int  # clips at once

    def of_windows(self, path: Path, windows: Windows) -> Features:
        """A vector of each window, the mean over its views; NaN where it has no frames.

        Raises BadVideo for a file that can't be read.
        """
        return trusting(path, windows, self._of_cut)

    def of_views(self, paths: Sequence[Path], reader: Reader, *, workers: int) -> Iterator[tuple[Path, Features | str]]:
        """Of each file a vector of each view, or why it can't be read."""
        videos = [Video(str(path), 0) for path in paths]
        together = min(self.views.at_once(self.batch_size), len(paths))
        loader = Loader(
            VideoDataset(Path(), videos, reader, self.clip, self.views, seed=0), together,
            rank=0, world_size=1, order=Listed(), workers=min(workers, len(paths)), timeout=60.0,
            on_error="note", max_bad=1.0,
        )  # fmt: skip
        with closing(loader):
            for index, weight, features in one_late(self._begun(loader.epoch(0))):
                for i, was_read, feats in zip(index.tolist(), weight.tolist(), features.numpy(), strict=True):
                    yield paths[i], Features(feats, loader.seconds[i]) if was_read else loader.bad[str(paths[i])]

    def _of_cut(self, cut: Cut) -> Features:
        clips = batches(cut, self.clip, self.views, self.batch_size)
        found = [(index, reduce(x, "b v d -> b d", "mean")) for index, _, x in one_late(self._begun(clips))]
        return Features(placed(cut, found).numpy(), np.array(cut.spans, np.float32))

    @torch.inference_mode()
    def _begun(self, batches: Iterator[Batch]) -> Iterator[Callable[[], list[Tensor]]]:
        """Begin to look at batches on the device: of each what gives index, weight, and features float32 "b v d"."""
        device = self.model.mean.device
        for batch in on_device(batches, device):
            with autocast(device, self.precision):
                video = rearrange(batch.video, "b v t c h w -> (b v) t c h w")
                pooled = self.model.pooled(self.model.preprocess(video)).float()
            features = rearrange(pooled, "(b v) d -> b v d", b=len(batch.video))
            yield to_host(batch.index, batch.weight, features)


def names(paths: Sequence[Path], folder: Path, form: Form) -> list[Path]:
    """Where the features of each video go: by its path from the folder that holds all. Raises UserError for a clash."""
    parents = [path.parent.resolve() for path in paths]
    common = next(
        parent for parent in (parents[0], *parents[0].parents) if all(p.is_relative_to(parent) for p in parents)
    )
    places = [
        folder / parent.relative_to(common) / f"{path.stem}.{form}" for path, parent in zip(paths, parents, strict=True)
    ]
    taken: dict[Path, Path] = {}
    for path, place in zip(paths, places, strict=True):
        if place in taken:
            raise UserError(f"{taken[place]} and {path} would both be {place}; rename one, or give them one by one")
        taken[place] = path
    return places


def claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Note in `features.json` what a folder's features are. Raises UserError where it holds others."""
    file = folder / "features.json"
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if before != about:
            raise UserError(f"out={folder} holds features of another model, or of other windows; name another folder")
        return
    files.write_json(file, about)


def missing(places: Mapping[Path, Path]) -> list[Path]:
    """The videos of which there are no features yet. Raises UserError where another video's are in their place."""
    found = []
    for path, place in places.items():
        source = _source_of(place) if place.exists() else ""
        if source is None or source == _named(path):
            continue
        if source:
            raise UserError(f"{place} has the features of {source}, not of {path}; name another folder for out")
        found.append(path)
    return found


def _named(path: Path) -> str:
    """A video's full name, as it can be written."""
    return str(path.resolve()).encode("utf-8", "backslashreplace").decode()


def _source_of(place: Path) -> str | None:
    """Of which video a file's features are: None where it doesn't say so, nothing where it can't be read."""
    try:
        if place.suffix == ".npz":
            with place.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                return str(file["source"]) if "source" in file.files else None
        with safe_open(place, "np") as file:
            return (file.metadata() or {}).get("source")
    except (OSError, ValueError, zipfile.BadZipFile, SafetensorError):
        return ""


def write(place: Path, features: Features, path: Path) -> None:
    """Write the features of the video `path` atomically."""
    source = _named(path)

    def fill(file: Path) -> None:
        if place.suffix == ".npz":
            with file.open("wb") as stream:
                np.savez(stream, **features._asdict(), source=np.array(source))
        else:
            arrays = {name: np.ascontiguousarray(values) for name, values in features._asdict().items()}
            save_file(arrays, file, {"source": source})

    files.write_atomically(place, fill)
