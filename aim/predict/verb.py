"""Predict the labels of videos, or of each window of long ones.

    python -m aim.predict checkpoint=runs/demo/best.safetensors VIDEO FOLDER 'PATTERN/*.mp4'
    find . -name '*.mp4' | python -m aim.predict checkpoint=FILE.onnx input=-          # what aim.export wrote
    python -m aim.predict checkpoint=FILE window=10 stride=5 out=FILE.csv VIDEO         # a time line

A table on a terminal, JSON lines when piped or with json=true; docs/predict.md has the rest. Exit codes: 0 done, 1 done
but for what could not be read, 2 an error to fix before anything is done. In a notebook:

    recogniser = aim.predict.load("runs/demo/best.safetensors")
    recogniser.predict_file("a.mp4")   # probabilities "k", of recogniser.classes
    recogniser.predict(video)          # uint8 "b t c h w" -> probabilities "b k"
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from omegaconf import DictConfig
from torch import Tensor

from aim.data.named import Input, find_videos
from aim.data.readers.frames import Frames
from aim.data.readers.interface import BadVideo, Reader
from aim.data.windows import Windows
from aim.engine.machine import distributed
from aim.engine.machine.hardware import Device, Precision, Untrained
from aim.engine.trained import exported
from aim.engine.trained.recogniser import Recogniser, TrunkFile, load, ready
from aim.ground import config, files
from aim.ground.console import Display, plain_console
from aim.ground.errors import UserError, say
from aim.ground.marks import Mark
from aim.ground.paths import path_of
from aim.predict import answers, drawn, picture
from aim.predict.answers import Answer
from aim.predict.timeline import Timeline, timeline

MAX_WORKERS = 8  # decoding processes, where nobody says how many


@dataclass(frozen=True)
class Settings:
    """The keys of configs/predict.yaml."""

    checkpoint: Annotated[str, Mark.PATH]
    input: Annotated[str | Sequence[str], Mark.PATH]
    views: Mapping[str, int | None]
    top: int
    min_probability: float | None
    temperature: float | None
    window: float | None
    stride: float | None
    smooth: float
    json: bool
    out: Annotated[str | None, Mark.PATH]
    picture: Annotated[str | None, Mark.PATH]
    video_out: Annotated[str | None, Mark.PATH]
    device: Device
    precision: Untrained
    threads: int | None
    batch_size: int
    workers: int | None
    trust: bool
    debug: bool
    backbone: TrunkFile
    reader: Reader

    def __post_init__(self) -> None:
        for name, least in (("top", 1), ("batch_size", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name}={value} must be {least} or more")
        if self.window is None and (self.stride is not None or self.smooth):
            name = "stride" if self.stride is not None else "smooth"
            raise UserError(f"{name}={getattr(self, name):g} is of a time line; add window=SECONDS")
        if self.min_probability is not None and not 0 <= self.min_probability <= 1:
            raise UserError(f"min_probability={self.min_probability:g} must be between 0 and 1")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature:g} must be above 0")
        if self.temperature is not None and self.min_probability is None:
            raise UserError(f"temperature={self.temperature:g} calibrates for min_probability=P, from 0 on; add that")
        if self.smooth < 0:
            raise UserError(f"smooth={self.smooth:g} must be seconds, or 0 for none")
        if self.windows and isinstance(self.reader, Frames):
            raise UserError(f"window={self.window:g} is of video files, which PyAV reads; leave out reader=frames")
        kinds = {"out": answers.SUFFIXES, "picture": picture.SUFFIXES, "video_out": drawn.SUFFIXES}
        for name, suffixes in kinds.items():
            if (path := getattr(self, name)) is not None and Path(path).suffix not in suffixes:
                raise UserError(f"{name}={path} must end in {' or '.join(suffixes)}")
        if self.picture is not None and self.windows is None:
            raise UserError(f"picture={self.picture} is of a time line; add window=SECONDS")

    @property
    def outputs(self) -> dict[str, Path]:
        """The files that will be written, by their settings."""
        named = {"out": self.out, "picture": self.picture, "video_out": self.video_out}
        return {name: path_of(path) for name, path in named.items() if path}

    @property
    def windows(self) -> Windows | None:
        """The windows of a time line."""
        return None if self.window is None else Windows(self.window, self.stride or self.window)


def main(cfg: DictConfig) -> None:
    """Say what is in each video, and go on with the next where one can't be read."""
    settings = config.build(cfg, Settings)
    inputs = find_videos(settings.input, sys.stdin, folders=isinstance(settings.reader, Frames))
    check_outputs(settings, inputs)
    recogniser, precision = prepared(settings)
    console = plain_console(soft_wrap=False)
    as_table = console.is_terminal and not settings.json
    visible = as_table or not console.is_terminal  # a bar would tear JSON lines on a terminal
    bar = partial(Display, visible=visible, stderr=not as_table)
    told, lines, failed = list[Answer](), list[Timeline](), 0
    asked = recogniser.classes, settings.top, settings.min_probability
    with bar("videos", len(inputs), visible=visible and not settings.windows and len(inputs) > 1) as display:
        for done, (path, found) in enumerate(answered(recogniser, inputs, settings, precision, bar), 1):
            said = answers.answers_of(path, found, *asked)
            told += said
            lines += [found] if settings.picture and isinstance(found, Timeline) else []
            failed += isinstance(found, str)
            if as_table:
                answers.show(console, path, found, *asked)
            else:
                tell("\n".join(map(answers.as_json, said)))
            display.update(done, "")
    written = list[Path]()
    if out := settings.outputs.get("out"):
        answers.write(out, told)
        written.append(out)
    if lines and (out := settings.outputs.get("picture")):
        picture.write(out, lines, recogniser.classes, settings.min_probability)
        written.append(out)
    if not isinstance(found, str) and (out := settings.outputs.get("video_out")):
        drawn.write(out, path, found, recogniser.classes, settings.min_probability, bar)  # of the only video
        written.append(out)
    if written:
        say(f"written: {', '.join(map(str, written))}")
    if failed:
        say(f"error: {failed} of {len(inputs)} videos could not be read")
        sys.exit(1)


def check_outputs(settings: Settings, inputs: Sequence[Input]) -> None:
    """Find out before the work whether what comes of it can be written. Raises UserError."""
    if settings.video_out and len(inputs) > 1:
        raise UserError(f"video_out={settings.video_out} is of one video, and {len(inputs)} are named; name one")
    if settings.picture and not picture.fits(Path(settings.picture), len(inputs)):
        raise UserError(f"picture={settings.picture} has no room for {len(inputs)} videos; use a .html")
    for path in settings.outputs.values():
        if any(path.resolve() == item.path.resolve() for item in inputs):
            raise UserError(f"{path} is read, and would be written over; name another file")
        files.check_writable(path)


def prepared(settings: Settings) -> tuple[Recogniser, Precision]:
    """The model on its device, and the precision it will compute in, which is said."""
    device, asked = settings.device, settings.precision
    if exported.is_exported(settings.checkpoint):
        device, asked = exported.on_cpu(settings.checkpoint, device, asked)
    weights = settings.backbone.weights
    make = partial(load, settings.checkpoint, weights=weights, trust=settings.trust)
    # The introduction tells what they are.
    recogniser, precision = ready(make, device=device, precision=asked, threads=settings.threads, told=False)
    views = {key: value for key, value in settings.views.items() if value is not None}
    recogniser = replace(recogniser, views=replace(recogniser.views, **views))
    if settings.min_probability is not None:
        recogniser = calibrated(recogniser, settings)
    say(introduction(recogniser, settings, precision))
    return recogniser, precision


def calibrated(recogniser: Recogniser, settings: Settings) -> Recogniser:
    """The model whose probabilities `min_probability` is meant for; where nothing is known of that, it's said."""
    temperature = settings.temperature or recogniser.temperature
    if temperature is None:
        say(
            f"warning: {settings.checkpoint} has no temperature, as it's older than that or was trained elsewhere: "
            f"min_probability={settings.min_probability:g} compares probabilities as they are, mostly too sure; "
            "temperature=T gives one"
        )
        return recogniser
    return replace(recogniser, temperature=temperature, calibrated=True)


def introduction(recogniser: Recogniser, settings: Settings, precision: Precision) -> str:
    """Which model looks at the videos, how, and in what it computes."""
    before = recogniser.precision
    other = f", trained in {before}" if before != precision else ""
    if other and before != "fp8":  # of training alone
        other += f" (precision={before} gives its test's numbers)"
    calibrated = f", calibrated with temperature {recogniser.temperature:g}" if recogniser.calibrated else ""
    return (
        f"{settings.checkpoint}: {len(recogniser.classes)} classes, {recogniser.views_text} views, "
        f"{precision} on {recogniser.device.type}{other if before else ''}{calibrated}"
    )


def answered(
    recogniser: Recogniser,
    inputs: Sequence[Input],
    settings: Settings,
    precision: Precision,
    bar: Callable[[str, int], Display],
) -> Iterator[tuple[Path, Tensor | Timeline | str]]:
    """Of each video its probabilities, whole or as a time line, or why it can't be read."""
    yield from ((item.path, item.problem) for item in inputs if item.problem)
    paths = [item.path for item in inputs if not item.problem]
    if settings.windows is None:
        # One video alone is read sooner than a process is started.
        many = min(distributed.num_cores(), MAX_WORKERS) if len(paths) > 1 else 0
        workers = many if settings.workers is None else settings.workers
        yield from recogniser.files(
            paths, settings.reader, workers=workers, precision=precision, batch_size=settings.batch_size
        )
        return
    for path in paths:
        try:
            found = timeline(
                recogniser, path, settings.windows, precision=precision, batch_size=settings.batch_size, bar=bar
            )
            yield path, found.smoothed(settings.smooth)
        except BadVideo as error:
            yield path, str(error).removeprefix(f"{path}: ")


def tell(text: str) -> None:
    """A line on stdout; who reads it may have enough, as `head` does, and the program ends."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it closes it
        sys.exit(128 + signal.SIGPIPE)
