"""Write the features of videos, the input of a model's head, as input of another model.

    python -m aim.features checkpoint=runs/k400 VIDEOS out=DIR                       # a vector a view of the test
    python -m aim.features checkpoint=runs/k400 VIDEOS out=DIR window=2 stride=0.5   # a vector each half second
    python -m aim.features backbone=clip_vit_b16 VIDEOS out=DIR window=1             # a trunk alone, frozen

A file a video: `feats`, float32 "w d", and `seconds`, float32 "w 2" (ActionFormer's input: docs/features.md). The same
command continues a stopped one. Exit codes: 0 done, 1 done except for unreadable videos, 2 an error to fix.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

from omegaconf import DictConfig

from aim.data.named import Input, below, find_videos
from aim.data.readers.frames import Frames
from aim.data.readers.interface import Reader, each_read
from aim.data.sampling import Clip
from aim.data.stamp import stamps_of
from aim.data.transforms import Views
from aim.data.windows import Windows
from aim.engine.machine.hardware import Device, Untrained
from aim.engine.trained import checkpoint, exported
from aim.engine.trained.recogniser import Recogniser, TrunkFile, load, of_trunk, ready
from aim.features import extracting as features
from aim.features.extracting import Extractor, Features, Form
from aim.ground import config, files
from aim.ground.console import Display
from aim.ground.errors import UserError, say
from aim.ground.marks import Mark
from aim.ground.paths import path_of
from aim.ground.shared_work import FOLDER, Spreading, claim, claimed, merged, working
from aim.ground.signals import Interrupted, stop_signals
from aim.models.classifier import Backbone, VideoClassifier
from aim.shell.command import again


@dataclass(frozen=True)
class Settings(Spreading):
    """The keys of configs/features.yaml."""

    checkpoint: Annotated[str | None, Mark.PATH]
    backbone: Backbone | TrunkFile
    input: Annotated[str | Sequence[str], Mark.PATH]
    out: Annotated[str, Mark.PATH]
    form: Form
    window: float | None
    stride: float | None
    clip: Clip
    views: Views
    device: Device
    precision: Untrained
    threads: int | None
    batch_size: int
    workers: int
    debug: bool
    reader: Reader

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.checkpoint is None) != isinstance(self.backbone, Backbone):
            raise UserError("give one of checkpoint=FILE, a trained model, and backbone=NAME, a trunk alone")
        if self.checkpoint is not None and exported.is_exported(self.checkpoint):
            raise UserError(f"checkpoint={self.checkpoint} gives only probabilities; use its checkpoint")
        if self.window is None and self.stride is not None:
            raise UserError(f"stride={self.stride:g} is for windows; add window=SECONDS")

    @property
    def windows(self) -> Windows | None:
        """The windows, one vector each; None for the views of a test."""
        if self.window is None:
            return None
        return Windows(self.window, self.window if self.stride is None else self.stride, on_grid=True)

    def loaded(self) -> Recogniser:
        """The model: a trained one, or a trunk alone, without classes."""
        if isinstance(self.backbone, Backbone):
            return of_trunk(self.backbone, self.clip, self.views)
        assert self.checkpoint is not None
        return load(self.checkpoint, weights=self.backbone.weights)


def main(cfg: DictConfig) -> None:
    """Write the features of each video, skipping unreadable ones."""
    settings = config.build(cfg, Settings)
    if settings.gpus is not None:
        settings.spread(again("aim.features"))
    inputs = find_videos(settings.input, sys.stdin, folders=isinstance(settings.reader, Frames))
    readable = [item for item in inputs if not item.problem]
    paths, folder = [item.path for item in readable], path_of(settings.out)
    relative = below(paths, settings.input)
    places = dict(zip(paths, features.names(paths, relative, folder, settings.form), strict=True))
    names = {item.path: item.name for item in inputs} | dict(zip(paths, map(Path.as_posix, relative), strict=True))
    if settings.merge:
        merge(settings, folder, inputs, names, {names[path] for path in features.outdated(places)})
    if portion := settings.portion:
        inputs = [item for item in inputs if portion.has(names[item.path])]
        places = {path: place for path, place in places.items() if portion.has(names[path])}
    problems = {item.path: item.problem for item in inputs if item.problem}
    todo, again_made = features.missing(places)
    extractor, about = prepared(settings)
    features.claim(folder, about)
    if portion:
        claim(folder / FOLDER, portion.count, {})
    if len(todo) < len(places):
        say(f"{len(places) - len(todo)} of {len(places)} are in {folder} already")
    if again_made:
        say(f"{again_made} are made again: their videos have changed, or weren't noted by an earlier version")
    made = {path: str(place.relative_to(folder)) for path, place in places.items()}
    before = {names[path]: file for path, file in made.items() if path not in todo}
    with (
        working(folder / FOLDER, portion, before, [names[path] for path in todo]) as work,
        stop_signals(at_once=portion is None) as stop,
        Display("videos", len(todo), visible=len(todo) > 1) as display,
    ):
        for path, problem in problems.items():
            work.note(names[path], "", problem)
        for done, (path, found) in enumerate(extracted(extractor, list(todo), settings), 1):
            (now,), stamp = stamps_of([path]), todo[path]
            if isinstance(found, str):
                problems[path] = found
            elif stamp is None or now != stamp:
                problems[path] = "it was replaced meanwhile; the same command reads it again"
            else:
                features.write(places[path], found, path, stamp)
            work.note(names[path], made[path], problems.get(path))
            display.update(done, "")
            if stop:
                raise Interrupted(f"stopped by a signal after {done} of {len(todo)} videos")
    for path, problem in problems.items():
        say(f"error: {path} could not be read: {problem}")
    say(f"features of {len(inputs) - len(problems)} of {len(inputs)} videos are in {folder}")
    if problems:
        sys.exit(1)


def merge(
    settings: Settings, folder: Path, inputs: Sequence[Input], names: Mapping[Path, str], stale: Set[str]
) -> NoReturn:
    """Write the one index of all shards' current features, print the missing videos, and exit."""
    count = claimed(folder / FOLDER, {})
    features.check(folder, known(settings))
    given = {names[item.path]: item.name for item in inputs}
    found = merged(folder / FOLDER, count, given, stale)
    index = folder / "index.jsonl"
    files.write_lines(index, (json.dumps({"path": given[name], "file": file}) for name, file in found.done.items()))
    found.tell()
    say(f"features of {len(found.done)} of {len(inputs)} videos are in {folder}, listed in {index}")
    sys.exit(found.code)


def known(settings: Settings) -> dict[str, Any]:
    """The description of the features without a model: a merging machine may have no GPU."""
    windows = asdict(settings.windows) if settings.windows else None
    if isinstance(settings.backbone, Backbone):
        return {"model": settings.backbone.name, "windows": windows}
    assert settings.checkpoint is not None
    return {"sha256": checkpoint.read_weights(settings.checkpoint).fingerprint, "windows": windows}


def prepared(settings: Settings) -> tuple[Extractor, dict[str, Any]]:
    """The model on its device, and the description of its features."""
    recogniser, precision = ready(
        settings.loaded, device=settings.device, precision=settings.precision, threads=settings.threads
    )
    model, clip, views = recogniser.model, recogniser.clip, recogniser.views
    assert isinstance(model, VideoClassifier)  # not an exported one, which is refused
    origin = checkpoint.read_weights(settings.checkpoint).fingerprint if settings.checkpoint else model.fingerprint
    about = {
        "model": model.trunk_name,
        "sha256": origin,
        "dimensions": model.head.in_features,
        "clip": asdict(clip),
        "views": asdict(views),
        "windows": asdict(settings.windows) if settings.windows else None,
        "precision": precision,
    }
    return Extractor(model, clip, views, precision, settings.batch_size), about


def extracted(extractor: Extractor, paths: Sequence[Path], settings: Settings) -> Iterator[tuple[Path, Features | str]]:
    """The features of each video, or the reason why it can't be read."""
    if settings.windows is not None:
        return each_read(partial(extractor.of_windows, settings.windows), paths)
    return extractor.of_views(paths, settings.reader, workers=settings.workers) if paths else iter(())
