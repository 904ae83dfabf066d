"""Explain a trained model's decision on a video, and the effect of the order of frames.

    python -m aim.explain checkpoint=runs/demo/best.safetensors VIDEO out=FILE.png     # or .gif, .mp4: it moves
    python -m aim.explain checkpoint=runs/demo/best.safetensors VIDEO cells=4          # a fifth of the time
    python -m aim.explain checkpoint=runs/demo/best.safetensors VIDEO method=gradient  # the quick view
    python -m aim.explain checkpoint=runs/demo/best.safetensors what=order    # on all validation videos of its data

Parts of the clip are removed, and the lost evidence is their weight. The map comes with the effect of removing its best
parts on the probability, and its similarity to the map of random weights: docs/explain.md.
"""

import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig, ListConfig
from torch import Tensor

from aim.data.cropping import crop_hint
from aim.data.named import of_address, of_file
from aim.data.readers.frames import Frames
from aim.data.readers.interface import Reader
from aim.engine.machine.hardware import Device, Untrained
from aim.engine.run.results import device_name
from aim.engine.trained import exported
from aim.engine.trained.recogniser import Recogniser, TrunkFile, load, ready
from aim.explain import clips, films, order, tables
from aim.explain.doubts import doubts
from aim.explain.explanation import SHUFFLES, Explanation, Method, explain, num_passes, orders_as_json
from aim.ground import config, files
from aim.ground.clock import clock
from aim.ground.console import Display, plain_console
from aim.ground.errors import UserError, say
from aim.ground.marks import Mark
from aim.ground.paths import is_address, path_of
from aim.models.classifier import VideoClassifier

COARSE = 4  # cells of a map in a fifth of the time
LONG = 60.0  # seconds of an explanation from which on shorter ways are named


@dataclass(frozen=True)
class Elsewhere:
    """The folder of the checkpoint's data on this machine."""

    root: Annotated[str | None, Mark.PATH]  # None: as in training


@dataclass(frozen=True)
class Settings:
    """The keys of configs/explain.yaml."""

    checkpoint: Annotated[str, Mark.PATH]
    input: Annotated[str | None, Mark.PATH]
    out: Annotated[str | None, Mark.PATH]
    what: Literal["all", "order"]
    views: Mapping[str, int | None]
    label: str | None
    view: int | None
    method: Method
    cells: int
    batch_size: int
    limit: int | None
    json: bool
    device: Device
    precision: Untrained
    threads: int | None
    workers: int
    debug: bool
    backbone: TrunkFile
    data: Elsewhere
    reader: Reader

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("cells", 2), ("view", 1), ("limit", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise UserError(f"{name}={value}; use {least} or more")

    @property
    def as_json(self) -> bool:
        """Whether the output is for a program."""
        return self.json or not plain_console().is_terminal


def main(cfg: DictConfig) -> None:
    """Explain the decision on the video `input`, or test other orders of frames on a list of videos."""
    if isinstance(cfg.input, ListConfig):
        raise UserError(
            f"input names {len(cfg.input)} videos, and one is explained; -m input=A,B explains each in turn"
        )
    settings = config.build(cfg, Settings)
    check(settings)
    make = partial(load, settings.checkpoint, weights=settings.backbone.weights)
    recogniser, precision = ready(make, device=settings.device, precision=settings.precision, threads=settings.threads)
    views = {key: value for key, value in settings.views.items() if value is not None}
    recogniser = replace(recogniser, views=replace(recogniser.views, **views))
    if settings.what == "order" and recogniser.clip.num_frames == 1:
        raise UserError(f"what=order, but the model of {settings.checkpoint} sees one frame, which has no order")
    settings = replace(settings, precision=precision)
    found = on_list(settings, recogniser) if is_list(settings.input) else on_video(settings, recogniser)
    if settings.as_json:
        print(json.dumps(found, ensure_ascii=False), flush=True)


def is_list(named: str | None) -> bool:
    """Whether the input is many videos: a list file, or those of the checkpoint's data."""
    return named is None or named.endswith(".txt")


def check(settings: Settings) -> None:
    """Raise UserError for impossible explanations or outputs, before anything is loaded."""
    if exported.is_exported(settings.checkpoint):
        raise UserError(
            f"checkpoint={settings.checkpoint} is exported, and has no inside to look into; give the best.safetensors"
        )
    if settings.what == "order":
        if settings.out is not None:
            raise UserError(f"out={settings.out} would be a picture of a map, and what=order makes none; leave one out")
    elif is_list(settings.input):
        named = (
            "input must be given: add input=VIDEO" if settings.input is None else f"input={settings.input} is a list"
        )
        raise UserError(f"{named}; or what=order, which tells what the order of frames means on a list of videos")
    if settings.input is not None:
        check_input(settings.input, folders=isinstance(settings.reader, Frames))
    if settings.out is not None:
        out = path_of(settings.out)
        if out.suffix not in films.SUFFIXES:
            raise UserError(f"out={out} has none of the suffixes that are known: {', '.join(films.SUFFIXES)}")
        if settings.input is not None and out.resolve() == path_of(settings.input).resolve():
            raise UserError(f"out={out} is the input, which would be lost; name another file")
        files.check_writable(out)


def check_input(name: str, *, folders: bool) -> None:
    """Raise UserError if it isn't a readable video; `folders` of pictures are."""
    if is_address(name):
        raise UserError(f"input={name} {of_address(name)}")
    path = path_of(name)
    if not path.exists():
        raise UserError(f"input={path} doesn't exist; give a video")
    if path.is_dir() and not folders:
        raise UserError(f"input={path} is a folder; give one video, or with reader=frames the folder of its pictures")
    if path.is_file() and (problem := of_file(path, folders=folders)):
        raise UserError(f"input={path} {problem}")


def on_video(settings: Settings, recogniser: Recogniser) -> dict[str, Any]:
    """Explain the decision on one clip of a video, draw and show it; returns it for JSON."""
    path = path_of(str(settings.input))
    views = clips.read_views(path, settings.reader, recogniser)

    def predict(video: Tensor) -> Tensor:
        return recogniser.predict(video, settings.precision)

    probability = torch.cat([predict(part) for part in torch.split(views, settings.batch_size)])
    label = clips.chosen_label(settings.label, recogniser, probability)
    view = clips.chosen_view(settings.view, probability[:, label])
    where = {"path": str(path), "view": view + 1, "views": len(views)}
    console = plain_console(quiet=settings.as_json)
    if settings.what == "order":
        orders = order.of_clip(predict, views[view], SHUFFLES)
        answers = orders_as_json(orders, label, recogniser.classes, recogniser.task)
        tables.show_orders(console, answers, recogniser.classes[label])
        return where | {"label": recogniser.classes[label], "order": answers}
    found = explained(settings, recogniser, views[view], label)
    true = clips.listed_class(settings.checkpoint, settings.data.root, path, many=recogniser.task.several)
    found = replace(found, doubts=doubts(found, true))
    crop_hint(recogniser.clip, recogniser.views).of(path)
    about = f"{path.name}, view {view + 1} of {len(views)}, by {settings.method}"
    if settings.out is not None:
        out = path_of(settings.out)
        files.write_atomically(out, lambda file: films.save(found, about, file, out.suffix))
    console.print(f"{found.name} {100 * float(found.probability[label]):.1f} %: {about}")
    tables.show(console, found)
    if settings.out is not None:
        console.print(f"written to {settings.out}")
    return where | {"method": settings.method, "listed": true} | found.as_json()


def explained(settings: Settings, recogniser: Recogniser, clip: Tensor, label: int) -> Explanation:
    """The explanation of one clip; prints its cost first."""
    assert isinstance(recogniser.model, VideoClassifier)
    device = recogniser.model.mean.device
    at_once = settings.batch_size if device.type == "cuda" else 1  # on a CPU the time is proportional to their number
    began = time.monotonic()
    recogniser.predict(clip.expand(at_once, *clip.shape), settings.precision)
    say(f"{cost(settings, recogniser.model, (time.monotonic() - began) / at_once)} on {device_name(device)}")
    passes = num_passes(recogniser.model, settings.method, settings.cells)
    with Display("explain", passes, visible=not settings.as_json) as display:
        seen = 0

        def passed(number: int) -> None:
            nonlocal seen
            seen += number
            display.update(seen, "passes")

        return explain(
            recogniser, clip, label, method=settings.method, cells=settings.cells, batch_size=settings.batch_size,
            precision=settings.precision, passed=passed,
        )  # fmt: skip


def cost(settings: Settings, model: VideoClassifier, seconds: float) -> str:
    """The forward passes of an explanation with their time; for a long one also the settings for shorter ones.

    These have a coarser map, or a less precise one.
    """
    passes = num_passes(model, settings.method, settings.cells)
    said = f"{passes} forward passes of the model, about {clock(passes * seconds)}"
    if settings.method == "gradient" or passes * seconds <= LONG:
        return said
    coarser, quick = num_passes(model, "occlusion", COARSE), num_passes(model, "gradient", settings.cells)
    shorter = {f"cells={COARSE}": coarser, "method=gradient": quick}
    times = ", ".join(f"{name} {clock(fewer * seconds)}" for name, fewer in shorter.items() if fewer < passes)
    return f"{said} ({times})" if times else said


def on_list(settings: Settings, recogniser: Recogniser) -> dict[str, Any]:
    """Test other orders of frames on a list of videos, and show the result; returns it for JSON."""
    recogniser = replace(recogniser, calibrated=False)  # a test's numbers
    root = settings.data.root
    policy: dict[str, Any] = {"on_error": "raise", "max_bad": 0.0}
    if settings.input is None:
        data, lists = clips.tested_videos(settings.checkpoint, root, many=recogniser.task.several)
        for note in lists.notes:
            say(note)
        folder, videos = data.folder, lists.test
        policy = {"timeout": data.timeout, "on_error": data.eval_on_error, "max_bad": data.max_bad}
    else:
        folder, videos = clips.listed(path_of(settings.input), root, recogniser)
    videos = clips.spread(videos, settings.limit)
    size = {"batch_size": settings.batch_size, "workers": settings.workers}
    loader = clips.loader_of(folder, videos, recogniser, settings.reader, **size, **policy)
    passes = len(videos) * len(order.ORDERS) * loader.dataset.shape[0]
    say(f"{len(videos)} videos in {len(order.ORDERS)} orders: {passes} forward passes")
    with closing(loader), Display("order", len(videos), visible=not settings.as_json) as display:
        found = order.of_videos(
            lambda video: recogniser.predict(video, settings.precision),
            loader,
            lambda done: display.update(done, "videos"),
            recogniser.task,
        )
    tables.show_sensitivity(plain_console(quiet=settings.as_json), found, recogniser.classes)
    return {"checkpoint": settings.checkpoint, "input": settings.input} | found.as_json(recogniser.classes)
