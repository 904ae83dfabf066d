"""Pooled features of videos, the input of the head: a vector for each view, or for each window of some seconds."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from einops import reduce
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.loading.loader import Batch, Loader
from aim.data.readers.interface import Reader
from aim.data.sampling import Clip
from aim.data.stamp import same_content, stamps_of
from aim.data.transforms import Views
from aim.data.windows import Cut, Windows, batches, cut, placed, trusting
from aim.engine.machine.feeding import Begun, one_late, through
from aim.engine.machine.hardware import Precision, autocast
from aim.ground import files
from aim.ground.errors import UserError
from aim.ground.foreign import read_json, reading
from aim.ground.portion import place_of
from aim.models.classifier import VideoClassifier

Form = Literal["npz", "safetensors"]
ELSEWHERE = "name another folder for out"
NOTE = "features.json"
CROWD = 10_000  # files of a folder; more are slow to list on network file systems
SUBFOLDERS = 256  # subfolders in their place


class Features(NamedTuple):
    """The features of a video: w windows or views, d numbers each."""

    feats: NDArray[np.float32]  # "w d", ActionFormer's name; NaN for a window without frames, in a pause
    seconds: NDArray[np.float32]  # "w 2", begin and end of each; NaN: unknown


@dataclass(frozen=True)
class Extractor:
    """A model, and its input of a video."""

    model: VideoClassifier
    clip: Clip
    views: Views
    precision: Precision
    batch_size: int  # clips at once

    def of_windows(self, windows: Windows, path: Path) -> Features:
        """A vector for each window, the mean over its views; NaN without frames.

        Raises BadVideo for a file that can't be read.
        """
        return trusting(lambda trust: self._of_cut(cut(path, windows, trust=trust)))

    def of_views(self, paths: Sequence[Path], reader: Reader, *, workers: int) -> Iterator[tuple[Path, Features | str]]:
        """For each file a vector for each view, or the reason why it can't be read."""
        videos, together = [Video(str(path), 0) for path in paths], min(self.views.at_once(self.batch_size), len(paths))
        dataset = VideoDataset(Path(), videos, reader, self.clip, self.views, seed=0)
        loader = Loader(dataset, together, workers=min(workers, len(paths)), on_error="note", max_bad=1.0)
        with closing(loader):
            for index, weight, features in one_late(self._begun(loader.epoch(0))):
                for i, was_read, feats in zip(index.tolist(), weight.tolist(), features.numpy(), strict=True):
                    yield paths[i], Features(feats, loader.seconds[i]) if was_read else loader.bad[str(paths[i])]

    def _of_cut(self, cut: Cut) -> Features:
        clips = batches(cut, self.clip, self.views, self.batch_size)
        found = [(index, reduce(x, "b v d -> b d", "mean")) for index, _, x in one_late(self._begun(clips))]
        return Features(placed(cut, found).numpy(), np.array(cut.spans, np.float32))

    def _begun(self, batches: Iterator[Batch]) -> Iterator[Begun]:
        """Start batches on the device: for each a function that returns index, weight, and features float32 "b v d"."""
        return through(batches, self.model.mean.device, self._pooled)

    @torch.inference_mode()
    def _pooled(self, video: Tensor) -> Tensor:
        """The features of clips, uint8 "b t c h w" -> float32 "b d"."""
        with autocast(self.model.mean.device, self.precision):
            return self.model.pooled(self.model.preprocess(video)).float()


def names(paths: Sequence[Path], relative: Sequence[Path], folder: Path, form: Form) -> list[Path]:
    """The feature file of each video: by its `relative` path, in the same subfolders.

    Features of a folder with very many videos go into subfolders by a hash, except for existing ones.
    Raises UserError for a clash.
    """
    crowds = Counter(path.parent for path in relative)
    taken: dict[Path, Path] = {}
    for path, under in zip(paths, relative, strict=True):
        name = files.fitting(f"{under.stem}.{form}")
        place = folder / under.parent / name
        if crowds[under.parent] > CROWD and not place.exists():
            place = place.parent / f"{place_of(name, SUBFOLDERS):02x}" / name
        if place in taken:
            raise UserError(f"{taken[place]} and {path} would both be {place}; rename one, or give them separately")
        taken[place] = path
    return list(taken)


def claim(folder: Path, about: Mapping[str, Any]) -> None:
    """Describe a folder's features in `features.json`. Raises UserError if it holds others."""
    files.make_folder(folder)
    if not files.write_first(folder / NOTE, about):
        check(folder, about)


def check(folder: Path, about: Mapping[str, Any]) -> None:
    """Raise UserError if a folder's features are other ones, as far as `about` tells."""
    found = read_json(folder / NOTE, dict, "the note of aim.features", ELSEWHERE)
    if any(found.get(key) != value for key, value in about.items()):
        raise UserError(f"out={folder} holds features of another model, or of other windows; name another folder")


def missing(places: Mapping[Path, Path]) -> tuple[dict[Path, str | None], int]:
    """The stamps of the videos without current features, and the number of changed videos among them.

    Raises UserError if another video's are in their place.
    """
    found, again = dict[Path, str | None](), 0
    for (path, place), stamp in zip(places.items(), stamps_of(places), strict=True):
        source, before = _source_of(place) if place.exists() else ("", "")
        if source and stamp is not None and stamp == before:
            continue
        if source is None:
            raise UserError(f"{place} doesn't name its video; delete it, or name another folder")
        if source not in ("", _named(path), _named(path.resolve())):
            raise UserError(f"{place} has the features of {source}, not of {path}; name another folder for out")
        found[path] = stamp
        again += bool(source)
    return found, again


def outdated(places: Mapping[Path, Path]) -> set[Path]:
    """The videos with missing features, or with features of earlier content."""
    return {
        path
        for (path, place), stamp in zip(places.items(), stamps_of(places), strict=True)
        if not (place.exists() and same_content(_source_of(place)[1], stamp))
    }


def _named(path: Path) -> str:
    """A video's full name in writable form; a link keeps its own."""
    return str(path.parent.resolve() / path.name).encode("utf-8", "backslashreplace").decode()


def _source_of(place: Path) -> tuple[str | None, str | None]:
    """A file's video and its stamp: None if it isn't stored, nothing if the file is damaged."""
    with suppress(UserError), reading(place, "features", "they are made again"):
        if place.suffix == ".npz":
            with place.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                source, stamp = (str(file[key]) if key in file.files else None for key in ("source", "stamp"))
                return source, stamp
        with safe_open(place, "np") as file:
            about = file.metadata() or {}
            return about.get("source"), about.get("stamp")
    return "", ""


def write(place: Path, features: Features, path: Path, stamp: str) -> None:
    """Write the features of the video `path` with this `stamp`, atomically."""
    origin = {"source": _named(path), "stamp": stamp}

    def fill(file: Path) -> None:
        if place.suffix == ".npz":
            with file.open("wb") as stream:
                arrays: dict[str, Any] = {key: np.array(text) for key, text in origin.items()}
                np.savez(stream, **features._asdict(), **arrays)
        else:
            contiguous = {name: np.ascontiguousarray(values) for name, values in features._asdict().items()}
            save_file(contiguous, file, origin)

    files.write_atomically(place, fill)
