"""The clips to explain: the views of a video, one of them, a class; or the videos of a list."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from aim.data.dataset import Data, VideoDataset
from aim.data.labels import several, single
from aim.data.lists import Lists, Video, nfc
from aim.data.loading.loader import Loader
from aim.data.readers.interface import BadVideo, Reader
from aim.data.rows import read_list
from aim.engine.trained import checkpoint
from aim.engine.trained.recogniser import Recogniser
from aim.ground import config
from aim.ground.errors import UserError, nearest
from aim.ground.paths import path_of


def read_views(path: Path, reader: Reader, recogniser: Recogniser) -> Tensor:
    """The test's clips of a video, uint8 "v t c h w". Raises UserError for a still one."""
    dataset = VideoDataset(Path(), [Video(str(path), 0)], reader, recogniser.clip, recogniser.views, seed=0)
    try:
        views = dataset.read(0, 0)
    except BadVideo as error:
        raise UserError(f"input={path} could not be read: {str(error).removeprefix(f'{path}: ')}") from error
    if recogniser.clip.num_frames > 1 and bool((views == views[:, :1]).all()):
        raise UserError(
            f"input={path} shows one and the same frame all the time; give a video in which something moves"
        )
    return views


def chosen_label(name: str | None, recogniser: Recogniser, probability: Tensor) -> int:
    """The class of this name; without one the test's answer, by "v k"."""
    if name is None:
        return int(recogniser.task.best(probability.mean(0)))
    classes = [*map(nfc, recogniser.classes)]
    if nfc(name) not in classes:
        raise UserError(f"label={name} is no class of the model{nearest(name, classes)}")
    return classes.index(nfc(name))


def chosen_view(number: int | None, probability: Tensor) -> int:
    """The view of this number from 1, as an index; by default the one with the highest probability, of "v"."""
    if number is None:
        return int(probability.argmax())
    if number > len(probability):
        raise UserError(
            f"view={number}, and the test sees {len(probability)} of a video (views); use 1 or more up to it"
        )
    return number - 1


@dataclass(frozen=True)
class Trained:
    """The part of a training run's settings that defines its test videos."""

    data: Data


def data_of(path: str, root: str | None) -> Data:
    """The data that a checkpoint was trained for, at `root`."""
    saved = checkpoint.read_weights(path)
    try:
        data = config.build({"data": saved.config.get("data")}, Trained, received=True).data
    except UserError as error:
        raise UserError(f"the config in {path}: {error}") from error
    return data if root is None else replace(data, root=root)


def tested_videos(path: str, root: str | None, *, many: bool) -> tuple[Data, Lists]:
    """The data that a checkpoint was trained for, at `root`, and its lists. Raises UserError for other classes."""
    data = data_of(path, root)
    lists = data.load(many=many)
    checkpoint.check_classes(checkpoint.read_weights(path), lists)
    return data, lists


def listed_class(checkpoint_path: str, root: str | None, path: Path, *, many: bool) -> str | None:
    """The class of a video in the lists of a checkpoint's data; None if they are elsewhere, or lack it."""
    try:
        data = data_of(checkpoint_path, root)
        lists = data.listed(many=many) if path.resolve().is_relative_to(data.folder.resolve()) else None
    except UserError:
        return None
    if lists is None:
        return None
    place = path.resolve().relative_to(data.folder.resolve())
    labels = {label for video in lists.videos if Path(video.path) == place for label in video.labels}
    return lists.classes[labels.pop()] if len(labels) == 1 else None


def listed(path: Path, root: str | None, recogniser: Recogniser) -> tuple[Path, list[Video]]:
    """The videos of a list file, and the folder of their paths: the file's own, if no `root` is given."""
    lists = Lists([], read_list(path, recogniser.classes), recogniser.classes)
    videos = (several if recogniser.task.several else single)(lists).val
    return path.parent if root is None else path_of(root), videos


def spread(videos: list[Video], limit: int | None) -> list[Video]:
    """A number of the videos, evenly spread over the list, which may be sorted by class."""
    count = len(videos) if limit is None else min(limit, len(videos))
    return [videos[i * len(videos) // count] for i in range(count)]


def loader_of(
    folder: Path, videos: list[Video], recogniser: Recogniser, reader: Reader, *, batch_size: int, **settings: Any
) -> Loader:
    """All views of each video, about `batch_size` clips at once; the `settings` are those of a Loader."""
    dataset = VideoDataset(
        folder, videos, reader, recogniser.clip, recogniser.views, seed=0,
        several=len(recogniser.classes) if recogniser.task.several else None,
    )  # fmt: skip
    return Loader(dataset, recogniser.views.at_once(batch_size), **settings)
