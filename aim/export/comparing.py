"""The agreement of an int8 file's answers with the float32 file's, on a user's videos."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.named import find_videos
from aim.data.readers.decord import Decord
from aim.data.readers.interface import BadVideo
from aim.engine.trained.exported import Program
from aim.engine.trained.recogniser import Recogniser
from aim.ground.errors import UserError

ALIKE = 0.99  # the least share of videos with the same answer
LOST = 1.0  # the largest loss of accuracy, points, if the right answers are known


def alike(measured: Mapping[str, Any]) -> bool:
    """The agreement with the float32 file, or with the right answers if they are known."""
    if (accuracy := measured["accuracy"]) and accuracy[0] - accuracy[1] <= LOST:
        return True
    return measured["agreement"] is not None and measured["agreement"] >= ALIKE


def videos_of(named: str | Sequence[str] | None) -> list[Video]:
    """The videos of a setting, each once. Raises UserError for anything else."""
    inputs = find_videos(named, sys.stdin) if named else []
    for item in inputs:
        if item.problem:
            raise UserError(f"{item.path}: {item.problem}")
    return [Video(str(path), 0) for path in dict.fromkeys(item.path for item in inputs)]


def clips_of(recogniser: Recogniser, videos: Sequence[Video]) -> Iterator[tuple[Video, Tensor]]:
    """Each video with the views of the test, uint8 "v t c h w". Raises UserError if one can't be read."""
    dataset = VideoDataset(Path(), list(videos), Decord(), recogniser.clip, recogniser.views, seed=0)
    for i, video in enumerate(videos):
        try:
            yield video, dataset.read(0, i)
        except BadVideo as error:
            raise UserError(f"{error}; leave it out of clips and measure") from error


def compared(ours: Program, theirs: Program, recogniser: Recogniser, videos: Sequence[Video]) -> dict[str, Any]:
    """The share of videos with the same answer of two programs, and each one's accuracy, in percent, if known.

    It's known if each is in a folder of its class.
    """
    same, right, folders = list[bool](), list[tuple[bool, bool]](), dict[str, int]()
    folders.update((name, i) for i, name in enumerate(recogniser.classes))
    known = bool(videos) and all(Path(video.path).parent.name in folders for video in videos)
    for video, clip in clips_of(recogniser, videos):
        mine, other = (recogniser.task.best(program(clip).mean(0, keepdim=True)).item() for program in (ours, theirs))
        same.append(mine == other)
        if known:
            label = folders[Path(video.path).parent.name]
            right.append((other == label, mine == label))
    accuracy = [100 * sum(each) / len(right) for each in zip(*right, strict=True)] if right else None
    return {"videos": len(same), "agreement": sum(same) / len(same) if same else None, "accuracy": accuracy}
