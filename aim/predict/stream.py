"""A camera, a stream or a pipe: its newest window, in constant memory, with reconnection.

A separate thread reads during the model's computation. One window waits, and a newer one replaces it.
"""

import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from urllib.parse import urlsplit

import av
import torch
from av.container import InputContainer
from av.video.frame import VideoFrame
from einops import rearrange
from torch import Tensor

from aim.data.readers.drawing import Drawing
from aim.data.readers.pyav import container_of
from aim.data.sampling import Clip, test_indices
from aim.data.transforms import Views
from aim.data.windows import EPSILON, Span, Windows, crops_of
from aim.ground.errors import UserError, say
from aim.ground.foreign import reason
from aim.ground.paths import exists

PIPE = "pipe:"
SCHEMES = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")
INSIDE = "crypto,data,http,httpproxy,https,rtmp,rtmps,rtp,srt,srtp,tcp,tls,udp"  # protocols in a stream: no files
CAMERAS = {"linux": ("/dev/video", "v4l2"), "darwin": ("", "avfoundation")}  # FFmpeg's documentation: Input Devices
STALL = 10.0  # seconds without a packet before a stream is opened again
LONGEST_WAIT = 30.0  # seconds between two attempts
REORDERED = 0.25  # seconds; a stream whose times go back further starts again
LATE = 3  # skipped windows before a message
MOST = 2**30  # bytes of a window's frames


@dataclass(frozen=True)
class Seen:
    """A window of a stream. After a reconnection `span` continues by this machine's clock."""

    span: Span
    at: datetime  # the arrival of its last frame
    clips: Tensor  # uint8 "v t c h w"


def is_live(word: str) -> bool:
    """Whether a word of the input is a stream's address, a camera's number, or a video's pipe."""
    if exists(Path(word)):
        return False
    return word == PIPE or word.isdecimal() or ("://" in word and urlsplit(word).scheme.lower() in SCHEMES)


def shown(name: str) -> str:
    """The name without a password."""
    return re.sub(r"(?<=://)[^/@]*@", "", name)


class Ring:
    """The frames of the present window, at the model's size; new ones replace the oldest."""

    def __init__(self, windows: Windows, clip: Clip, views: Views) -> None:
        self.windows, self.clip, self.views = windows, clip, views
        self.frames = deque[tuple[float, Tensor]]()
        self.begin(0.0)

    def begin(self, seconds: float) -> None:
        """Let the first window start here, without the frames before."""
        self.frames.clear()
        self.first, self.place = seconds, 0

    @property
    def span(self) -> Span:
        """The unfinished window."""
        start = self.first + self.place * self.windows.stride
        return Span(start, start + self.windows.length)

    def add(self, seconds: float, crops: Tensor) -> tuple[Span, Tensor] | None:
        """Take a frame, uint8 "s 1 c h w", and return the newest finished window, with its clips "v t c h w".

        Earlier ones are skipped. Raises UserError if the frames of a window don't fit.
        """
        found = None
        while seconds >= self.span.end - EPSILON:
            found = self._window() or found
            self.place += 1
            while self.frames and self.frames[0][0] < self.span.start - EPSILON:
                self.frames.popleft()
        if seconds >= self.span.start - EPSILON:
            self.frames.append((seconds, crops))
        if len(self.frames) * crops.nbytes > MOST:
            raise UserError(
                f"window={self.windows.length:g}: its frames take more than {MOST >> 20} MiB; take a shorter one"
            )
        return found

    def _window(self) -> tuple[Span, Tensor] | None:
        inside = [crops for seconds, crops in self.frames if seconds < self.span.end - EPSILON]
        if not inside:
            return None
        picks = test_indices(len(inside), self.clip, self.views.temporal).ravel().tolist()
        clips = torch.cat([inside[pick] for pick in picks], 1)
        return self.span, rearrange(clips, "s (v t) c h w -> (v s) t c h w", v=self.views.temporal)


def watched(name: str, windows: Windows, clip: Clip, views: Views) -> Iterator[Seen]:
    """The windows of a stream, each time the newest; windows that come during a computation are skipped.

    Ends with a pipe. A stream or a camera that breaks off, or stalls for STALL seconds, is retried until it's back.
    Raises UserError if the first opening fails.
    """
    slot: Queue[Seen | BaseException | None] = Queue(1)
    Thread(target=_read, args=(name, Ring(windows, clip, views), slot), daemon=True).start()
    while (found := slot.get()) is not None:
        if isinstance(found, BaseException):
            raise found
        yield found


def _read(name: str, ring: Ring, slot: "Queue[Seen | BaseException | None]") -> None:
    left_out = 0
    try:
        for seconds, crops, begins in _frames(name, ring):
            if begins:
                ring.begin(seconds)
            if (found := ring.add(seconds, crops)) is None:
                continue
            with suppress(Empty):
                slot.get_nowait()
                left_out += 1
                if left_out == LATE:
                    say(
                        f"windows come faster than the model's answers (stride={ring.windows.stride:g}), as after "
                        "loading it, or with a model slower than the stream: some are skipped"
                    )
            span, clips = found
            slot.put(Seen(span, datetime.now(UTC), clips))
    except BaseException as error:  # raised by the other thread
        slot.put(error)
    slot.put(None)


def _frames(name: str, ring: Ring) -> Iterator[tuple[float, Tensor, bool]]:
    """Each frame's seconds by a monotonic clock, its crops, and whether a cut precedes it."""
    start, lost, wait = None, None, 1.0
    seconds = 0.0
    while True:
        before, draw = None, Drawing()
        try:
            for frame in _decoded(name):
                now = time.monotonic()
                start = now if start is None else start
                if lost is not None:
                    say(f"{shown(name)}: back after {now - lost:.0f} s")
                    lost, wait = None, 1.0
                if before is None:
                    draw.begin(frame)
                its = now if frame.time is None else frame.time
                if before is not None and 0 < before - its < REORDERED:
                    its = before  # AVI has the right times in a wrong order
                if begins := before is None or not 0 <= its - before <= ring.windows.length:
                    offset = max(seconds, now - start) - its
                before, seconds = its, its + offset
                yield seconds, crops_of(draw, frame, ring.views, ring.clip.size), begins
            why = "it has ended"
        except (av.FFmpegError, OSError) as error:
            why = f"nothing came for {STALL:g} s" if isinstance(error, av.ExitError) else reason(error)
        if start is None:
            raise UserError(f"input={shown(name)} gives no video: {why}; try ffplay on it, or name another")
        if name == PIPE:
            return
        if lost is None:
            lost = time.monotonic()
            say(f"{shown(name)}  broke off: {why}; retrying until it's back")
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)


def _decoded(name: str) -> Iterator[VideoFrame]:
    """The intact frames of a stream until its end, from its first key frame on. Raises FFmpegError."""
    with _opened(name) as container:
        if not container.streams.video:
            raise UserError(f"input={shown(name)} has no video; name another stream")
        if container.duration is not None and name != PIPE and not name.isdecimal():
            raise UserError(f"input={shown(name)} is a file, not a stream; download it, and name the file")
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            with suppress(av.InvalidDataError):
                yield from (frame for frame in packet.decode() if not frame.is_corrupt)


def _opened(name: str) -> InputContainer:
    """The stream, which may name no file of this machine. Raises FFmpegError, or UserError without a camera."""
    if name == PIPE:
        return container_of("pipe:0", options={"protocol_whitelist": "pipe"})
    if not name.isdecimal():
        of_rtsp = {"rtsp_flags": "prefer_tcp"} if name.lower().startswith("rtsp") else {}
        options = {"protocol_whitelist": INSIDE} | of_rtsp
        return container_of(name, options=options, timeout=STALL)
    if sys.platform not in CAMERAS:
        raise UserError(f"input={name}: cameras have no numbers on {sys.platform}; give a stream's address")
    prefix, form = CAMERAS[sys.platform]
    return container_of(f"{prefix}{name}", format=form)
