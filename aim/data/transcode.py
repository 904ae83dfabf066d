"""Writes a video again so that single frames of it are cheap to read: small, many key frames, quick to decode."""

import os
from dataclasses import dataclass
from pathlib import Path

import av
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from aim.data.drawing import Drawing
from aim.data.read_pyav import decoded, opened
from aim.data.video import BadVideo, scaled


@dataclass(frozen=True)
class Transcode:
    """Turns a video into H.264 without sound, each frame one of the source's, upright, at the source's times.

    A smaller `crf` is a better picture in a larger file; 18 is hard to tell from the source.
    """

    short_side: int = 256  # pixels; a smaller video keeps its size
    key_every: int = 4  # frames
    crf: int = 23
    preset: str = "medium"  # of x264

    def __call__(self, source: str | Path, target: str | Path) -> int:
        """Write `target`, whole or not at all; the number of frames. Raises BadVideo where the source can't be read."""
        target = Path(target)
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            count = self._write(source, part)
            with opened(part) as (_, stream):
                if stream.frames != count:
                    raise BadVideo(f"{source}: {count} frames were read, {stream.frames} written")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return count

    def _write(self, source: str | Path, part: Path) -> int:
        last, count, first = -1, 0, None
        to_yuv = VideoReformatter()
        with opened(source) as (_, stream):
            rate = stream.average_rate
        with av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
            for _, frame in decoded(source):
                yuv = self._small(frame, to_yuv)
                if count == 0:
                    stream = container.add_stream("libx264", rate=rate or 25, options=self._options)
                    codec = stream.codec_context
                    codec.width, codec.height, codec.pix_fmt, codec.thread_count = yuv.width, yuv.height, "yuv420p", 1
                    codec.color_range, codec.colorspace = yuv.color_range, yuv.colorspace
                    if frame.time_base is not None:
                        codec.time_base = frame.time_base
                    first = frame.pts
                # Times that don't rise would confuse every reader of the new file.
                last = last + 1 if frame.pts is None or first is None else max(last + 1, frame.pts - first)
                yuv.pts, yuv.time_base, yuv.pict_type = last, frame.time_base, 0
                container.mux(stream.encode(yuv))
                count += 1
            if not count:
                raise BadVideo(f"{source}: no frame can be decoded")
            container.mux(stream.encode())
        return count

    @property
    def _options(self) -> dict[str, str]:
        keys = f"keyint={self.key_every}:min-keyint={self.key_every}:scenecut=0:bframes=0:ref=1"
        return {"preset": self.preset, "crf": str(self.crf), "tune": "fastdecode", "x264-params": keys}

    def _small(self, frame: VideoFrame, to_yuv: VideoReformatter) -> VideoFrame:
        """The frame upright, in 8 bits and at the new size."""
        if Type.DISPLAYMATRIX in frame.side_data:
            frame = VideoFrame.from_ndarray(Drawing(None)(frame).copy(), format="rgb24")
        height, width = scaled(frame.height, frame.width, min(self.short_side, frame.height, frame.width))
        return to_yuv.reformat(frame, width // 2 * 2, height // 2 * 2, "yuv420p", interpolation="AREA", threads=1)
