"""The queue of accepted videos, and their answers: threads around the functions of aim.predict."""

import queue
import threading
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from aim.data.loading.loader import Batch
from aim.data.loading.pool import Pool
from aim.data.readers.interface import BadVideo, Reader
from aim.data.windows import Cut, MispromisedError, Windows, batch_of, trusting
from aim.engine.machine.hardware import Precision
from aim.engine.trained.recogniser import Recogniser
from aim.engine.trained.timeline import Timeline, of_clips
from aim.ground.errors import say
from aim.serve.decoding import Cutting, Limited

MAX_FRAMES = 12  # shown for a time line
JPEG_QUALITY = 80


class Seen(NamedTuple):
    """A time line and some of the model's frames: the places of some windows, each with its middle frame as JPEG."""

    line: Timeline
    frames: list[tuple[int, str]]  # base64


@dataclass
class Desk:
    """Answers about videos, in the order of arrival.

    Videos that arrive while the model is busy are answered together. The answer to an unreadable video is a text; an
    error of ours is raised only by its video's future.
    """

    recogniser: Recogniser
    reader: Reader
    precision: Precision
    batch_size: int
    workers: int
    timeout: float
    max_seconds: float
    told: Callable[[int, float], None] = lambda videos, seconds: None  # of a group: its size, and the seconds of each
    waiting: "queue.SimpleQueue[tuple[Path, Future[Tensor | str]] | None]" = field(default_factory=queue.SimpleQueue)
    ready: "Future[None]" = field(default_factory=Future)
    stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Desk":
        """Begin, once the decoding processes run. Raises UserError if they can't start."""
        self.lines = self.stack.enter_context(ThreadPoolExecutor(1, "time lines"))
        thread = threading.Thread(target=self._answer, name="videos", daemon=True)
        thread.start()
        self.ready.result()
        self.stack.callback(thread.join)
        self.stack.callback(self.waiting.put, None)
        return self

    def __exit__(self, *_: object) -> None:
        """Answer the accepted videos, and stop."""
        self.stack.close()
        if "cutter" in self.__dict__:
            self.cutter.close()

    @cached_property
    def cutter(self) -> Pool[Path]:
        """The decoding process of time lines, started with the first one."""
        cutting = Cutting(self.recogniser.clip, self.recogniser.views, self.batch_size, self.max_seconds)
        return Pool[Path](cutting, 1, self.timeout)

    def video(self, path: Path) -> "Future[Tensor | str]":
        """A video's probabilities "k", or the reason for none."""
        found = Future[Tensor | str]()
        self.waiting.put((path, found))
        return found

    def timeline(self, path: Path, windows: Windows) -> "Future[Seen | str]":
        """The time line of a video, with some of its frames, or the reason for none."""
        return self.lines.submit(self._timeline, path, windows)

    def _answer(self) -> None:
        group = list[tuple[Path, Future[Tensor | str]]]()
        reader = Limited(self.reader, self.max_seconds)
        videos = self.recogniser.views.at_once(self.batch_size)
        while True:
            try:
                with self.recogniser.reading(
                    reader, videos=videos, workers=self.workers, precision=self.precision, timeout=self.timeout
                ) as read:
                    assert not [*read([])]  # which starts the processes
                    if not self.ready.done():
                        self.ready.set_result(None)
                    while group := self._next():
                        began = time.monotonic()
                        paths = [path for path, _ in group]
                        for (_, future), (_, found) in zip(group, read(paths), strict=True):
                            future.set_result(found)
                        self.told(len(group), (time.monotonic() - began) / len(group))
                return
            except Exception as error:  # of one group; the next ones are answered
                if not self.ready.done():
                    self.ready.set_exception(error)
                    return
                say(f"error: {len(group)} requests failed, which is a bug; please report it:\n{traceback.format_exc()}")
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)

    def _next(self) -> list[tuple[Path, "Future[Tensor | str]"]]:
        """All waiting videos, at least one; none at the end."""
        found = [self.waiting.get()]
        while not self.waiting.empty():
            found.append(self.waiting.get())
        if None in found:
            self.waiting.put(None)  # for the next call: all earlier ones are answered
        return [each for each in found if each is not None]

    def _timeline(self, path: Path, windows: Windows) -> Seen | str:
        try:
            return trusting(partial(self._seen, path, windows))
        except BadVideo as error:
            return str(error).removeprefix(f"{path}: ")
        finally:
            self.cutter.abandon()

    def _seen(self, path: Path, windows: Windows, trust: bool) -> Seen:
        parts = self._parts(path, windows, trust)
        cut = next(parts)
        assert isinstance(cut, Cut)
        shown = Shown(cut)
        line = of_clips(self.recogniser, cut, shown(parts), precision=self.precision)
        return Seen(line, shown.frames)

    def _parts(self, path: Path, windows: Windows, trust: bool) -> Iterator[Cut | Batch]:
        """A video's parts, from the process of time lines. Raises BadVideo for any failure of it."""
        for _, outcome in self.cutter.through([(path, (path, windows, trust))]):
            if outcome.kind == "part":
                part = outcome.value
                if part is None:
                    raise MispromisedError
                yield part if isinstance(part, Cut) else batch_of(*map(torch.from_numpy, part))
            elif outcome.kind == "bug":
                raise RuntimeError(outcome.text)
            elif outcome.kind != "done":
                raise BadVideo(outcome.text)


class Shown:
    """Passes batches of windows on, and keeps the middle frame of some windows, evenly spaced."""

    def __init__(self, cut: Cut) -> None:
        count = len(cut.spans)
        self.places = {*np.linspace(0, count - 1, min(MAX_FRAMES, count)).round().astype(int).tolist()}
        self.frames = list[tuple[int, str]]()

    def __call__(self, batches: Iterator[Cut | Batch]) -> Iterator[Batch]:
        for batch in batches:
            assert isinstance(batch, Batch)
            for place, clips in zip(batch.index.tolist(), batch.video, strict=True):
                if place in self.places:
                    middle = clips[len(clips) // 2]  # of the views; "t c h w"
                    self.frames.append((place, jpeg(middle[len(middle) // 2])))
            yield batch


def jpeg(frame: Tensor) -> str:
    """A frame, uint8 "c h w", as JPEG in base64."""
    file = BytesIO()
    Image.fromarray(rearrange(frame, "c h w -> h w c").numpy()).save(file, "JPEG", quality=JPEG_QUALITY)
    return b64encode(file.getvalue()).decode()
