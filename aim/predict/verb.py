"""Predict the labels of videos, or of each window of long ones.

    python -m aim.predict checkpoint=runs/demo/best.safetensors VIDEO FOLDER 'PATTERN/*.mp4'
    find . -name '*.mp4' | python -m aim.predict checkpoint=FILE.onnx -                # a file of aim.export
    python -m aim.predict checkpoint=FILE window=10 stride=5 out=FILE.csv VIDEO         # a time line
    python -m aim.predict checkpoint=FILE FOLDER next=50                                # which to label next
    python -m aim.predict backbone=clip_vit_b16 classes="kick,hug,push" VIDEO           # zero-shot, by class names
    python -m aim.predict checkpoint=FILE window=10 stride=1 rtsp://CAMERA/1            # a stream, window by window

A table on a terminal, JSON lines when piped or with json=true; docs/predict.md has the rest. What comes on standard
input is answered as it comes. Exit codes: 0 done, 1 done
except for unreadable videos, 2 an error to fix before anything is done. In a notebook:

    recogniser = aim.load("runs/demo/best.safetensors")
    recogniser.predict_file("a.mp4")   # probabilities "k", of recogniser.classes
    recogniser.predict(video)          # uint8 "b t c h w" -> probabilities "b k"
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from aim.data.cropping import crop_hint
from aim.data.hint import Hint
from aim.data.named import Input, arriving, below, find_videos
from aim.data.pace import pace_hint
from aim.data.readers.frames import Frames
from aim.data.readers.interface import each_read
from aim.data.stamp import content_of, stamp_of
from aim.data.windows import Windows
from aim.engine.machine.hardware import Precision
from aim.engine.trained import checkpoint
from aim.engine.trained.answer import Answer, Asking, as_json
from aim.engine.trained.question import prepared
from aim.engine.trained.recogniser import Recogniser
from aim.engine.trained.timeline import Timeline, timeline
from aim.ground import config, files
from aim.ground.console import Display, plain_console
from aim.ground.errors import UserError, say
from aim.ground.signals import SIGPIPE
from aim.models.classifier import VideoClassifier
from aim.predict import answers, drawn, picture, shared, stream, teaching
from aim.predict.settings import Settings
from aim.shell.command import again

Found = Tensor | Timeline | str  # probabilities "k" of a video, whole or as a time line, or the reason for none
Bar = Callable[..., Display]


def main(cfg: DictConfig) -> None:
    """Print the labels of each video, skipping unreadable ones."""
    settings = config.build(cfg, Settings)
    folders = isinstance(settings.reader, Frames)
    if settings.live is not None:
        watch(settings, settings.live)
        return
    if settings.gpus is not None:
        settings.spread(again("aim.predict"))
    if settings.is_shared or settings.merge:
        sys.exit(share(settings, find_videos(settings.given, sys.stdin, folders=folders)))
    named = find_videos(settings.names, sys.stdin, folders=folders) if settings.names or not settings.listens else []
    check_outputs(settings, named)
    ready = Ready(settings, *prepared(settings, settings.of_windows))
    groups = chain([named] if named else [], arriving(sys.stdin, folders=folders) if settings.listens else [])
    known = None if settings.listens else len(named)
    kept, done, failed = list[tuple[Input, Found]](), 0, 0
    teller, candidates = Teller(ready, known), teaching.Candidates(ready.recogniser)
    with teller.display:
        for item, found in ready.answered(groups, teller.bar, known):
            done, failed = done + 1, failed + isinstance(found, str)
            if settings.next is not None and isinstance(found, Tensor):
                found = candidates.take(item.name, found)
            kept += [(item, found)] if settings.outputs else []
            teller.tell(item, found, done)
    if not done:
        raise UserError("input=- reads a list of videos from standard input, one a line, and it was empty")
    if paths := list(write_outputs(ready, kept, teller.bar)):
        say(f"written: {', '.join(map(str, paths))}")
    if settings.next is not None:
        written = candidates.write(settings.outputs["next"], settings.next)
        say(f"written: {settings.outputs['next']}, the {written} of {len(candidates.names)} videos to label next")
    if failed:
        say(f"error: {failed} of {done} videos could not be read")
        sys.exit(1)


def watch(settings: Settings, name: str) -> None:
    """Print the labels of a stream's newest windows, until a pipe ends or a signal comes."""
    assert settings.windows is not None
    ready = Ready(settings, *prepared(settings, settings.of_windows))
    recogniser, teller, seen = ready.recogniser, Teller(ready, None), None
    for seen in stream.watched(name, settings.windows, recogniser.clip, recogniser.views):
        probability = recogniser.predict(seen.clips, ready.precision).mean(0)
        if teller.as_table:
            answers.show(teller.console, f"{seen.at.astimezone():%H:%M:%S}", probability, ready.asking)
        else:
            (answer,) = ready.asking.answers(stream.shown(name), probability)
            tell(as_json(replace(answer, span=seen.span, at=seen.at)))
    if seen is None:
        raise UserError(f"input={name} ended before a window of {settings.window:g} s was over; take a shorter one")


def share(settings: Settings, named: Sequence[Input]) -> int:
    """Answer a part of the videos, or merge the answers of all parts: the exit code."""
    check_outputs(settings, named)
    ready = Ready(settings, *prepared(settings, settings.of_windows))
    recogniser, out, asked = ready.recogniser, settings.outputs["out"], settings.min_probability
    items = {
        name.as_posix(): item for name, item in zip(below([x.path for x in named], settings.input), named, strict=True)
    }
    if len(items) < len(named):
        raise UserError("two of the videos are the same, by a link; give one of their names, as each has one shard")
    work: dict[str, Any] = {
        "checkpoint": settings.checkpoint and content_of(stamp_of(checkpoint.file_of(settings.checkpoint))),
        "views": asdict(recogniser.views),
        "windows": settings.windows and [*asdict(settings.windows).values(), settings.smooth],
        "temperature": settings.temperature,
        "precision": ready.precision,
        "labels": [settings.top, dict(asked) if isinstance(asked, Mapping) else asked],
    }
    if settings.classes is not None:
        assert isinstance(recogniser.model, VideoClassifier)
        work |= {"classes": recogniser.classes, "prompts": settings.prompts, "trunk": recogniser.model.fingerprint}
    if settings.merge:
        found = shared.merge(out, work, items, recogniser.classes)
        found.tell()
        say(f"written: {out}, with the answers about {len(found.done) + len(found.failed)} of {len(items)} videos")
        return found.code

    def ask(inputs: Sequence[Input]) -> Iterator[tuple[Input, list[Answer]]]:
        bar = partial(Display, visible=True)
        paces = ready.pace_hint
        with bar("videos", len(inputs)) as display:
            found = ready.answered([inputs] if inputs else [], bar, len(inputs))
            for done, (item, one) in enumerate(found, 1):
                yield item, ready.asking.answers(item.name, one)
                paces.of(item.path)
                display.update(done, "")

    assert settings.portion is not None
    return 1 if shared.part(out, settings.portion, work, items, ask) else 0


@dataclass(frozen=True)
class Ready:
    """A model that is ready to answer, and how it is asked."""

    settings: Settings
    recogniser: Recogniser
    precision: Precision
    asking: Asking

    @property
    def pace_hint(self) -> Hint:
        """A comparison of the first videos' rates, or of the windows, with the training's."""
        return pace_hint(self.recogniser.pace, self.recogniser.clip, self.settings.window)

    def answered(self, groups: Iterable[Sequence[Input]], bar: Bar, known: int | None) -> Iterator[tuple[Input, Found]]:
        """Each video's probabilities, whole or as a time line, or why it can't be read; in order.

        With `next` features follow the probabilities. The number of videos is `known`, unless a list streams in.
        """
        settings, recogniser = self.settings, self.recogniser
        outputs = {path.resolve() for path in settings.outputs.values()}
        together = recogniser.views.at_once(settings.batch_size)
        # Reading a single video is faster than starting a process.
        most = settings.processes
        many = {
            "videos": together if known is None else max(1, min(together, known)),
            "workers": most if known is None else 0 if known == 1 and settings.workers is None else min(most, known),
        }
        look = None if settings.next is None else recogniser.see
        reading: AbstractContextManager[Callable[[Sequence[Path]], Iterator[tuple[Path, Found]]]] = (
            recogniser.reading(settings.reader, precision=self.precision, look=look, **many)
            if settings.windows is None
            else nullcontext(partial(each_read, partial(self._timeline, settings.windows, bar)))
        )
        with reading as read:
            for group in groups:
                found = read([item.path for item in group if not item.problem and item.path.resolve() not in outputs])
                for item in group:
                    if item.problem:
                        yield item, item.problem
                    elif item.path.resolve() in outputs:
                        yield item, "would be written over; name another file"
                    else:
                        yield item, next(found)[1]
                assert next(found, None) is None

    def _timeline(self, windows: Windows, bar: Bar, path: Path) -> Timeline:
        found = timeline(
            self.recogniser, path, windows, precision=self.precision, batch_size=self.settings.batch_size, bar=bar
        )
        return found.smoothed(self.settings.smooth)


class Teller:
    """Prints answers as they come: a table on a terminal, JSON lines elsewhere; and the progress."""

    def __init__(self, ready: Ready, known: int | None) -> None:
        settings, recogniser = ready.settings, ready.recogniser
        self.console = plain_console(soft_wrap=False)
        self.as_table = self.console.is_terminal and not settings.json
        self.asking = ready.asking
        self.hints = crop_hint(recogniser.clip, recogniser.views), ready.pace_hint
        visible = self.as_table or not self.console.is_terminal  # a bar would tear JSON lines on a terminal
        self.bar = partial(Display, visible=visible, stderr=not self.as_table)
        shown = visible and not settings.windows and known is not None and known > 1
        self.display = self.bar("videos", known or 0, visible=shown)

    def tell(self, item: Input, found: Found, done: int) -> None:
        """The answer about a video; adds `done` to the progress."""
        if self.as_table:
            answers.show(self.console, item.name, found, self.asking)
        else:
            tell("\n".join(map(as_json, self.asking.answers(item.name, found))))
        if not isinstance(found, str):
            for hint in self.hints:
                hint.of(item.path)
        self.display.update(done, "")


def write_outputs(ready: Ready, kept: Sequence[tuple[Input, Found]], bar: Bar) -> Iterator[Path]:
    """Write the requested files, and name those with content."""
    asking, outputs = ready.asking, ready.settings.outputs
    lines = [(item.name, found) for item, found in kept if not isinstance(found, Tensor)]
    drawable = [(name, line) for name, line in lines if isinstance(line, Timeline)]
    if out := outputs.get("out"):
        told = (asking.answers(item.name, found) for item, found in kept)
        answers.write(out, list(chain.from_iterable(told)), asking.classes)
        yield out
    if out := outputs.get("segments"):
        answers.write_segments(out, lines, asking)
        yield out
    if drawable and (out := outputs.get("picture")):
        picture.write(out, drawable, asking, ready.settings.of_windows)
        yield out
    item, found = kept[-1] if kept else (None, "")
    if item and not isinstance(found, str) and (out := outputs.get("video_out")):
        drawn.write(out, item.path, found, asking, bar)  # of the only video
        yield out


def check_outputs(settings: Settings, named: Sequence[Input]) -> None:
    """Check before the work that its output can be written. Raises UserError."""
    many = "a list may have more" if settings.listens else f"{len(named)} are named" if len(named) > 1 else ""
    if settings.video_out and many:
        raise UserError(f"video_out={settings.video_out} is for one video, and {many}; name one")
    if settings.picture and not picture.fits(Path(settings.picture), None if settings.listens else len(named)):
        raise UserError(f"picture={settings.picture} may have no room, as {many}; use a .html")
    for path in settings.outputs.values():
        if any(path.resolve() == item.path.resolve() for item in named):
            raise UserError(f"{path} is read, and would be written over; name another file")
        files.check_writable(path)


def tell(text: str) -> None:
    """A line on stdout; if its reader is gone, like `head`, the program ends."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain on closing it
        sys.exit(128 + SIGPIPE)
