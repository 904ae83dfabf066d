"""Reads video files with decord, and with PyAV those that decord gets wrong."""

import importlib.util
import logging
import re
from dataclasses import dataclass, field
from types import ModuleType

import numpy as np
import torch  # decord must be imported after torch, or workers freeze (its issue #251)
from av.container import InputContainer
from av.video.format import VideoFormat
from av.video.stream import VideoStream
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from aim.data.readers import pyav
from aim.data.readers.drawing import display_matrix, first_frame, is_quarter_turn
from aim.data.readers.interface import BadVideo, Choice, Pick, Source, url
from aim.data.readers.packets import Packets, family, from_file, may_turn, video_packets
from aim.data.readers.pyav import opened
from aim.ground.errors import UserError, say
from aim.ground.once import Once

log = logging.getLogger(__name__)
PLACE = re.compile(r"^\[[\d:]+\] \S+: ")  # time, file and line of decord's own source, before its messages
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


class _RefusedError(Exception):
    """A file that decord gets wrong, and why."""


@dataclass(frozen=True)
class Decord:
    """Reads the files that decord 0.6.0 is known to read correctly.

    `fallback` reads the other files with PyAV, and says so once a run; without it they are BadVideo.
    decord numbers frames by packets, so it's trusted with H.264 whose packets leave no doubt, and with VP9 and MPEG-4
    from the first frame on, where there is one key frame. Where decord isn't installed, PyAV reads everything, and the
    log says so; without `fallback` that is a UserError.
    """

    fallback: bool = True
    installed: bool = field(default=True, init=False, repr=False)
    first: Once = field(default_factory=Once, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if importlib.util.find_spec("decord") is None:
            if not self.fallback:
                raise UserError(
                    "reader=decord: decord isn't installed, it has wheels for x86-64 alone; use reader=pyav"
                )
            log.warning("decord isn't installed, it has wheels for x86-64 alone: PyAV reads everything")
            object.__setattr__(self, "installed", False)

    def __call__(self, path: Source, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        """See `video.Reader`."""
        choice = Choice(path, pick, span)
        if not self.installed:
            return pyav.read(path, choice)
        try:
            with opened(path) as (container, stream):
                packets = from_file(container, stream)
                if why := _why_not(container, stream, packets, exact=self.fallback):
                    raise _RefusedError(why)
                seconds = packets.pts[packets.order] * np.float64(stream.time_base or 1)
                pixels = stream.codec_context.format
                misplaced = pixels is not None and _is_deep(pixels) and pixels.chroma_height(2) == 1
            unique, back = np.unique(choice(seconds), return_inverse=True)
            frames = _read(path, unique, seconds.size, seek=not packets.doubt)
            return (_chroma_moved(frames) if misplaced else frames)[torch.from_numpy(back)]
        except _RefusedError as error:
            if not self.fallback:
                raise BadVideo(f"{path}: decord can't be trusted with it: {error}; reader=pyav may read it") from error
            why = str(error)
        frames = pyav.read(path, choice)
        if self.first.take():
            say(f"PyAV reads the videos that decord gets wrong; the first is {path}: {why}")
        return frames


def _why_not(container: InputContainer, stream: VideoStream, packets: Packets, *, exact: bool) -> str:
    """Why decord would get this file wrong, or nothing."""
    codec = stream.codec_context
    if len(container.streams.video) > 1:
        return "several video streams"
    if packets.fault or packets.pts[0] < 0:
        return packets.fault or "negative time stamps"
    if exact and codec.format and _is_deep(codec.format):
        return "more than 8 bits"  # the right frames, but less exact than PyAV's
    entries = stream.index_entries
    if family(container) == "mov" and sum(entry.is_keyframe for entry in entries) != packets.key.sum():
        return "an index of other key frames"  # which decord believes
    if not packets.doubt and (packets.key != packets.start).any():
        return "key frames that decoding can't start at"
    one_start = codec.name in ("vp9", "mpeg4") and packets.key.sum() == 1
    if packets.doubt and not (one_start and family(container) in ("mov", "matroska", "avi")):
        return packets.doubt
    frame = first_frame(container, stream, packets.kept)
    matrix = frame and display_matrix(frame)
    if matrix and not (family(container) == "mov" and is_quarter_turn(matrix)):
        return (
            "mirrored frames, or turned ones outside of MP4"  # decord turns what MP4 asks to turn, and mirrors nothing
        )
    if matrix and may_turn(packets.kept[0] if packets.kept else next(video_packets(container, stream)), stream):
        return "frames that are turned by themselves"
    return ""


def _is_deep(pixels: VideoFormat) -> bool:
    """Whether samples have more than 8 bits."""
    return any(part.bits > 8 for part in pixels.components)


def _read(path: Source, indices: NDArray[np.int64], num_frames: int, *, seek: bool) -> Tensor:
    """The frames of ascending indices."""
    decord = _decord()
    try:
        video = decord.VideoReader(url(path), num_threads=1)
        if len(video) != num_frames:
            raise _RefusedError(f"decord counts {len(video)} frames of {num_frames}")
        if seek:
            images = video.get_batch(indices).asnumpy()
        else:  # get_batch sometimes gives the frame before the last instead of it (its issue #195)
            wanted = set(indices.tolist())
            images = np.stack(
                [x.asnumpy() for i, x in enumerate(video.next() for _ in range(indices[-1] + 1)) if i in wanted]
            )
        frames = rearrange(torch.from_numpy(images), "t h w c -> t c h w")
    except UnicodeEncodeError as error:
        raise _RefusedError("a name that isn't UTF-8") from error
    except (decord.DECORDError, RuntimeError) as error:
        raise _RefusedError(PLACE.sub("", str(error))) from error
    return frames


def _chroma_moved(frames: Tensor) -> Tensor:
    """Move the colour of "t c h w" by half a row: in 4:2:0 of more than 8 bits decord's FFmpeg misplaces it so."""
    images = frames.float()
    luma = (images * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    colour = images - luma
    below = torch.cat([colour[:, :, 1:], colour[:, :, -1:]], 2)
    return (luma + (colour + below) / 2).round().clamp(0, 255).byte()


def _decord() -> ModuleType:
    try:
        import decord
    except (ImportError, OSError) as error:
        raise UserError(f"reader=decord: decord can't be imported ({error}); use reader=pyav") from error
    decord.logging.set_level(decord.logging.QUIET)
    return decord  # type: ignore[no-any-return]
