"""Decodes a video completely, and re-encodes it for fast reading of single frames."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from aim.data.readers.drawing import Drawing, display_matrix
from aim.data.readers.interface import BadVideo, Source, scaled, url
from aim.data.readers.packets import family
from aim.data.readers.pyav import decoded, opened
from aim.data.stamp import stamp_of
from aim.ground import files
from aim.ground.errors import UserError

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
REPLACED = "it was replaced as it was read; the same command reads it again"
WRITER = "aim.prepare"  # of temporary files: one job at a time holds the folder
# Matrices that swscale knows, by their numbers in ITU-T H.273: BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020.
MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}


@dataclass(frozen=True)
class Frames:
    """The number of decodable frames of a video, and its header's number of shown frames, if any."""

    count: int
    promised: int

    @property
    def shortage(self) -> str | None:
        """The number of decodable and of promised frames, if they differ."""
        return f"{self.count} of {self.promised} frames" if self.count < self.promised else None


def count_frames(path: Source) -> Frames:
    """Decode all frames. Raises BadVideo if that fails, or most frames are missing."""
    with opened(path) as (container, stream):
        promised = promised_frames(container, stream)
    return _plausible(path, Frames(sum(1 for _ in decoded(path)), promised))


def promised_frames(container: InputContainer, stream: VideoStream) -> int:
    """The number of frames that a file shows: an MP4's edit list may leave some of them out. 0: unknown."""
    if family(container) != "mov" or not (entries := stream.index_entries):
        return stream.frames
    return min(stream.frames, sum(not entry.is_discard for entry in entries))


@dataclass(frozen=True)
class Transcode:
    """Turns a video into H.264 without sound: each frame of the source, upright, at its time.

    More key frames mean fewer decoded frames for a wanted one, and a larger file. B-frames, deblocking and CABAC, which
    cost a decoder time, are off; so are psychovisual optimisations, which increase the error.
    """

    short_side: int = 256  # pixels; a smaller video keeps its size
    key_every: int = 1  # frames
    crf: int = 22  # x264's quality: 0 is lossless, 18 is hard to tell from the source, 51 is the worst
    preset: str = "medium"  # x264's effort: ultrafast, superfast, veryfast, faster, fast, medium, slow, ...

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.key_every < 1 or not 0 <= self.crf <= 51:
            raise UserError(f"{self}: short_side must be 16 or more, key_every 1 or more, crf 0 to 51")

    def __call__(self, source: Source, target: Path) -> Frames:
        """Write `target` atomically. Raises BadVideo if the source can't be fully decoded."""
        with opened(source) as (container, stream):
            rate, promised = stream.average_rate or Fraction(25), promised_frames(container, stream)
        with files.replaced(target, WRITER) as part:
            count = self._write(decoded(source), rate, part)
            frames = _plausible(source, Frames(count, promised))
            with opened(part) as (_, stream):
                if stream.frames != count:
                    raise BadVideo(f"{source}: {count} frames were read, but {stream.frames} written")
        return frames

    def _write(self, frames: Iterator[tuple[float, VideoFrame]], rate: Fraction, path: Path) -> int:
        to_yuv = VideoReformatter()
        count, first, last = 0, 0.0, -1
        draw, drawn = Drawing(), False
        with av.open(url(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            keys = f"keyint={self.key_every}:min-keyint={self.key_every}:scenecut=0:bframes=0:ref=1:psy=0:aq-mode=0"
            options = {"crf": str(self.crf), "preset": self.preset, "tune": "fastdecode", "x264-params": keys}
            stream = container.add_stream("libx264", rate=rate, options=options)
            codec = stream.codec_context
            for time, frame in frames:
                if not count:
                    drawn = frame.format.is_rgb or display_matrix(frame) is not None
                    first, matrix, color_range = time, *_colours(frame, drawn)
                upright = VideoFrame.from_ndarray(draw(frame).copy(), format="rgb24") if drawn else frame
                small = self._small(upright, matrix, color_range, to_yuv)
                if not count:
                    codec.width, codec.height = small.width, small.height
                    codec.pix_fmt, codec.thread_count = "yuv420p", 1
                    codec.color_range, codec.colorspace = small.color_range, small.colorspace
                    codec.color_primaries, codec.color_trc = frame.color_primaries, frame.color_trc  # not converted
                    if frame.time_base is not None:
                        codec.time_base = frame.time_base
                # Times that don't increase would confuse every reader of the new file.
                last = max(last + 1, round((time - first) / (frame.time_base or 1 / rate)))
                small.pts, small.time_base, small.pict_type = last, frame.time_base, 0
                container.mux(stream.encode(small))
                count += 1
            if count:
                container.mux(stream.encode())
        return count

    def _small(
        self, frame: VideoFrame, matrix: Colorspace, color_range: ColorRange, to_yuv: VideoReformatter
    ) -> VideoFrame:
        """The frame in 8 bits, at the new size, in the colours of the new file."""
        height, width = scaled(frame.height, frame.width, min(self.short_side, frame.height, frame.width))
        height, width = (max(2, side // 2 * 2) for side in (height, width))  # 4:2:0 needs even sizes
        return to_yuv.reformat(
            frame, width, height, "yuv420p",
            dst_colorspace=matrix, dst_color_range=color_range,
            interpolation=Interpolation.AREA | Interpolation.ACCURATE_RND, threads=1,
        )  # fmt: skip


def _colours(frame: VideoFrame, drawn: bool) -> tuple[Colorspace, ColorRange]:
    """The matrix and range of the new file: the source's, or BT.601 in TV range."""
    matrix = Colorspace.ITU601 if drawn else MATRICES.get(frame.colorspace, Colorspace.ITU601)
    return matrix, ColorRange.JPEG if frame.color_range == ColorRange.JPEG and not drawn else ColorRange.MPEG


@dataclass(frozen=True)
class Made:
    """The result for a video: its frames and, if it was re-encoded, its source's stamp."""

    frames: Frames
    stamp: str | None = None


@dataclass(frozen=True)
class Work:
    """The task of a process of `aim.prepare`: re-encode a video, or without `transcode` only decode it."""

    transcode: Transcode | None

    def __call__(self, paths: tuple[Source, Path]) -> Made:
        """Raises BadVideo for a fault of the video, UserError if no video can be written."""
        source, target = paths
        if self.transcode is None:
            return Made(count_frames(source))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stamp = stamp_of(source)
            frames = self.transcode(source, target)
            if stamp_of(source) != stamp:
                raise BadVideo(f"{source}: {REPLACED}")
        except OSError as error:
            if error.errno in UNWRITABLE:
                raise UserError(f"{target} can't be written: {error.strerror}; the same command continues") from error
            raise BadVideo(f"{source}: {error.strerror or error}") from error
        return Made(frames, stamp)


def _plausible(path: Source, frames: Frames) -> Frames:
    if frames.count < max(1, frames.promised / 2):
        raise BadVideo(f"{path}: only {frames.count} of {frames.promised} frames can be decoded")
    return frames
