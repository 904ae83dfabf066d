"""Small video files with what goes wrong in real ones, written with PyAV's own encoders."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

FRAMES, HEIGHT, WIDTH = 40, 48, 64


def image(i: int) -> np.ndarray:
    """Frame i: a bright bar that moves over a gradient, and blocks that count in binary."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([rows * 3, columns * 2, (rows + columns) * 1 + 40], -1)
    pixels[:, (i * 3) % WIDTH : (i * 3) % WIDTH + 8] = (250, 240, 20)
    for bit in range(6):
        pixels[:8, bit * 10 : bit * 10 + 8] = 250 if i >> bit & 1 else 5
    return pixels.astype(np.uint8)


def write(
    path: Path,
    codec: str = "libx264",
    params: str = "keyint=10:scenecut=0",
    pix_fmt: str = "yuv420p",
    times: Callable[[int], int] = lambda i: i,
    rotation: int = 0,
    decoy: bool = False,
    crop: int = 0,
    **container: Any,
) -> Path:
    """Encode FRAMES images; frame i is shown at `times(i)` twenty-fifths of a second."""
    with av.open(str(path), "w", **container) as output:
        options = {"x264-params": params, "preset": "medium", "crf": "18"} if codec == "libx264" else {}
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH - crop, HEIGHT - crop, pix_fmt
        stream.codec_context.gop_size, stream.bit_rate = 10, 400_000
        if rotation:
            stream.set_display_rotation(rotation)
        streams = [stream]
        if decoy:
            other = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            other.width, other.height, other.pix_fmt = 2 * WIDTH, 2 * HEIGHT, "yuv420p"
            streams.append(other)
        for i in range(FRAMES):
            for each in streams:
                pixels = image(i)[: HEIGHT - crop, : WIDTH - crop]
                if each is not stream:
                    pixels = np.full((2 * HEIGHT, 2 * WIDTH, 3), 90, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = times(i), Fraction(1, 25)
                output.mux(each.encode(frame))
        for each in streams:
            output.mux(each.encode())
    return path


def cut(path: Path, source: Path, share: float) -> Path:
    """The beginning of a file, as where a download broke off."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


ODD: dict[str, Callable[[Path], Path]] = {
    "b_frames.mp4": lambda to: write(to, params="keyint=10:scenecut=0:bframes=3:b-pyramid=normal"),
    "b_frames.mkv": lambda to: write(to, params="keyint=10:scenecut=0:bframes=3:b-pyramid=normal"),
    "b_frames.avi": lambda to: write(to, params="keyint=10:scenecut=0:bframes=3"),
    "b_frames.ts": lambda to: write(to, params="keyint=10:scenecut=0:bframes=3"),
    "b_frames.flv": lambda to: write(to, params="keyint=10:scenecut=0:bframes=3"),
    "raw.h264": lambda to: write(to, params="keyint=10:bframes=3"),
    "no_b_frames.mp4": lambda to: write(to, params="keyint=10:bframes=0"),
    "key_frames_only.mp4": lambda to: write(to, params="keyint=1"),
    "open_groups.mp4": lambda to: write(to, params="keyint=10:scenecut=0:bframes=3:open-gop=1"),
    "open_groups.mkv": lambda to: write(to, params="keyint=10:scenecut=0:bframes=3:open-gop=1"),
    "gradual_refresh.mp4": lambda to: write(to, params="keyint=10:intra-refresh=1"),
    "varying_rate.mp4": lambda to: write(to, times=lambda i: i + i * i // 8),
    "varying_rate.mkv": lambda to: write(to, times=lambda i: i + i * i // 8),
    "late_start.mp4": lambda to: write(to, times=lambda i: i + 500),
    "early_start.mkv": lambda to: write(to, times=lambda i: i - 9, options={"avoid_negative_ts": "disabled"}),
    "early_start.mp4": lambda to: write(to, times=lambda i: i - 9),
    "fragments.mp4": lambda to: write(to, options={"movflags": "frag_keyframe+empty_moov"}),
    "rotated_270.mp4": lambda to: write(to, rotation=270),
    "odd_size.mp4": lambda to: write(to, pix_fmt="yuv444p", crop=3),
    "gray.mkv": lambda to: write(to, pix_fmt="gray"),
    "alpha.mov": lambda to: write(to, codec="png", pix_fmt="rgba"),
    "two_streams.mp4": lambda to: write(to, decoy=True),
    "interlaced.mp4": lambda to: write(to, params="tff=1:keyint=10"),
    "mpeg4.mp4": lambda to: write(to, codec="mpeg4"),
    "mjpeg.avi": lambda to: write(to, codec="mjpeg", pix_fmt="yuvj420p"),
    "mpeg2.mpg": lambda to: write(to, codec="mpeg2video"),
    "picture.gif": lambda to: write(to, codec="gif", pix_fmt="rgb8"),
    "cut_off.mkv": lambda to: cut(to, write(to.with_name("whole.mkv")), 0.6),
    "cut_off.ts": lambda to: cut(to, write(to.with_name("whole.ts")), 0.6),
    "cut_off.mp4": lambda to: cut(to, write(to.with_name("whole.mp4"), options={"movflags": "faststart"}), 0.6),
}
