"""Reads video files with PyAV: FFmpeg's libraries, in a wheel for every platform."""

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from torch import Tensor

from aim.data.readers.animated import as_film, is_animated
from aim.data.readers.drawing import Film, first_frame
from aim.data.readers.interface import BadVideo, Choice, Part, Pick, Source, url
from aim.data.readers.packets import Clock, Packets, VideoPacket, from_file, from_index, is_start, may_turn

# Kinds of video files by FFmpeg's names, which finds them by their content. Not among them is what names other files,
# such as playlists (hls, dash, concat, sdp), which would show whoever sent one what else lies on this machine.
KINDS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,asf,flv,live_flv,ogg,mxf,dv,yuv4mpegpipe,gif,"
    "apng,h261,h263,h264,hevc,vvc,evc,av1,obu,ivf,vc1,vc1test,mjpeg,mpjpeg,mjpeg_2000,dirac,dnxhd,cavsvideo,avs2,avs3,"
    "dhav,gxf,lxf,nsv,nut,rm,swf,wtv"
)
KEPT_BYTES = 2**28  # decoded frames held at once while it isn't known yet which are wanted


class _NotPlainError(Exception):
    """The packets told a wrong story about the frames."""


@dataclass(frozen=True)
class PyAV:
    """Reads the same frames as a sequential decode with FFmpeg; the reference for the other readers.

    In plain H.264 files it decodes only the frames needed for the wanted ones, in others everything, which costs more
    and proves that a frame is the right one. A packet that it has to decode and can't makes the file a BadVideo, unless
    that is the last one, as where a download broke off.
    """

    def __call__(self, path: Source, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        """See `video.Reader`."""
        return read(path, Choice(path, pick, span))


def read(path: Source, choice: Choice) -> Tensor:
    """The frames chosen, uint8 "t c h w"."""
    with opened(path) as (container, stream):
        for scan in (from_index, from_file):
            packets = scan(container, stream)
            if packets and not packets.doubt:
                try:
                    return _read_plain(container, stream, packets, choice)
                except (_NotPlainError, av.FFmpegError):
                    continue
    return _read_sequentially(path, choice)


@contextmanager
def opened(path: Source) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its first video stream that isn't a cover picture. FFmpeg's errors become BadVideo."""
    try:
        with _container(path) as container:
            cover = av.stream.Disposition.attached_pic
            streams = [stream for stream in _video_streams(container) if not stream.disposition & cover]
            if not streams or streams[0].codec_context is None:
                raise BadVideo(f"{path}: no video stream that can be decoded")
            codec = streams[0].codec_context
            codec.thread_count, codec.thread_type = 1, "NONE"
            yield container, streams[0]
    except (av.FFmpegError, OSError) as error:
        raise BadVideo(f"{path}: {error}") from error


def container_of(name: str, **options: Any) -> InputContainer:
    """The container that `av.open` opens. Text of unknown encoding in it is no error, as PyAV has it from 19 on."""
    if int(av.__version__.partition(".")[0]) < 19:
        options["metadata_errors"] = "ignore"
    container: InputContainer = av.open(name, "r", **options)
    return container


def _container(path: Source) -> InputContainer:
    try:
        if isinstance(path, str | Path) and Path(path).suffix.lower() == ".webp" and is_animated(Path(path)):
            return av.open(as_film(Path(path)), "r")
        return container_of(url(path), options={"format_whitelist": KINDS})
    except (av.FFmpegError, OSError) as error:
        raise BadVideo(f"{path}: {_in_words(path, error)}") from error


def _in_words(path: Source, error: Exception) -> str:
    """Why a file can't be opened; "invalid data" has several reasons."""
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return "no such file" if isinstance(error, FileNotFoundError) else "a folder, not a file"
    if isinstance(error, av.ArgumentError):
        return "no video but a picture, a text or a playlist, which names other files; give the video itself"
    if not isinstance(error, av.InvalidDataError):
        return str(error)
    if isinstance(path, Part):
        return "not a video"
    with Path(path).open("rb") as file:
        head = file.read(8)
    if head[4:] == b"ftyp":  # ISO/IEC 14496-12, 4.3
        return "cut off: an MP4 file without its index"
    return "not a video" if head else "an empty file"


def _video_streams(container: InputContainer) -> tuple[VideoStream, ...]:
    try:
        return container.streams.video
    except IndexError:  # PyAV's, of damaged files
        return ()


def _read_plain(container: InputContainer, stream: VideoStream, packets: Packets, choice: Choice) -> Tensor:
    """Decodes only the frames needed for the wanted ones. Raises _NotPlainError if the packets differ from the list."""
    assert stream.time_base is not None
    order, starts = packets.order, np.flatnonzero(packets.start)
    indices = choice(packets.pts[order] * np.float64(stream.time_base))
    first = packets.kept[0] if packets.kept else next(_from(container, stream, packets, 0), None)
    turned = first is not None and may_turn(first, stream)
    pts, times = packets.pts.tolist(), packets.pts[order[indices]].tolist()
    last = order[indices].max()
    film = Film(times)
    if turned and (frame := first_frame(container, stream, packets.kept)):
        film.draw.begin(frame)
    source: Iterator[VideoPacket] = iter(())
    at, shown, skip = -1, -math.inf, False
    for i in np.unique(indices):
        start = int(starts[np.searchsorted(starts, order[i], "right") - 1])
        if start > at:  # cheaper than decoding on
            source, at = _from(container, stream, packets, start), start
        while pts[order[i]] in film.missing:
            packet = next(source, None)
            if packet is None or (packet.size and packet.pts != pts[at]):
                raise _NotPlainError
            if at == start and not is_start(packet, stream):
                raise _NotPlainError
            if not (turned or film.pixels.size) and packet.pts in film.rows and may_turn(packet, stream):
                raise _NotPlainError  # it would turn frames that the file's first one doesn't turn
            at += 1
            # Frames that nothing refers to are decoded only where wanted.
            if skip != (packet.pts not in film.rows):
                skip = not skip
                stream.codec_context.skip_frame = "NONREF" if skip else "DEFAULT"
            frames = packet.decode()
            if at > last:
                frames += stream.codec_context.decode(None)  # delayed frames come without further decoding
            for frame in frames:
                if frame.pts is None or frame.pts <= shown or frame.is_corrupt:
                    raise _NotPlainError
                shown = frame.pts
                if shown in film.rows:
                    film.add(shown, frame)
    return film.video()


def _from(container: InputContainer, stream: VideoStream, packets: Packets, start: int) -> Iterator[VideoPacket]:
    """The packets from one that decoding may start at, for a decoder that remembers none."""
    if packets.kept:
        stream.codec_context.flush_buffers()
        return iter(packets.kept[start:])
    pts = packets.pts[start]
    container.seek(int(packets.dts[start]), stream=stream)  # which may end before it
    return itertools.dropwhile(lambda packet: packet.pts != pts and packet.size > 0, container.demux(stream))


def _read_sequentially(path: Source, choice: Choice) -> Tensor:
    """Decodes everything, and again up to the last frame wanted if all didn't fit into KEPT_BYTES."""
    seconds, kept, room = [], [], KEPT_BYTES
    for time, frame in decoded(path):
        seconds.append(math.nan if frame.pts is None else time)
        room -= sum(plane.buffer_size for plane in frame.planes)
        if room >= 0:
            kept.append(frame)
    indices = choice(np.array(seconds))
    frames = kept if room >= 0 else (frame for _, frame in decoded(path))
    del kept
    film = Film(indices.tolist())
    for i, frame in enumerate(itertools.islice(frames, int(indices.max()) + 1)):
        if not i:
            film.draw.begin(frame)
        if i in film.rows:
            film.add(i, frame)
    return film.video()


def decoded(path: Source) -> Iterator[tuple[float, VideoFrame]]:
    """All frames with their times in seconds by one Clock, without damaged ones at the end.

    Where a frame has no time stamp (`frame.pts` is None), its time is a guess by the stream's rate. Raises BadVideo for
    a packet that can't be decoded, unless it's the last one.
    """
    with opened(path) as (container, stream):
        count, clock = 0, Clock(stream)
        damaged = []
        packets = container.demux(stream)
        for packet in packets:
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if any(later.size for later in packets):
                    raise BadVideo(f"{path}: the packet after {count} frames can't be decoded: {error}") from error
                return
            for frame in frames:
                time = count * clock.usual if frame.time is None else clock(frame.time, frame.duration)
                damaged.append((time, frame))
                count += 1
                if not frame.is_corrupt:
                    yield from damaged
                    damaged.clear()
