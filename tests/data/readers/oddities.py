"""Small video files with the defects of real ones, written by PyAV's own encoders."""

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
    metadata: str = "",
    **container: Any,
) -> Path:
    """Encode FRAMES images; frame i is shown at `times(i)` twenty-fifths of a second."""
    with av.open(str(path), "w", **container) as output:
        options = {"x264-params": params, "preset": "medium", "crf": "18"} if codec == "libx264" else {}
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH - crop, HEIGHT - crop, pix_fmt
        stream.codec_context.gop_size, stream.bit_rate = 10, 400_000
        if metadata:
            output.metadata["title"] = metadata
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
    """The beginning of a file, like a broken download."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def remuxed(path: Path, change: Callable[[int, av.Packet], list[av.Packet]]) -> Path:
    """A file without B-frames, its packets changed by a function."""
    source = write(path.with_name(f"before_{path.name}"), params="keyint=10:bframes=0:scenecut=0")
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for i, packet in enumerate(packet for packet in given.demux(video=0) if packet.size):
            for changed in change(i, packet):
                changed.stream = stream
                output.mux(changed)
    return path


def packet_like(packet: av.Packet, content: bytes, later: int = 0) -> av.Packet:
    """Other content at the same time, or a little later."""
    made = av.Packet(content)
    made.pts, made.dts, made.time_base = packet.pts + later, packet.dts + later, packet.time_base
    made.is_keyframe = packet.is_keyframe and not later
    return made


def all_key(_: int, packet: av.Packet) -> list[av.Packet]:
    """Every packet marked as a key frame."""
    packet.is_keyframe = True
    return [packet]


class Merged:
    """Two pictures in one packet."""

    def __init__(self) -> None:
        self.first = b""

    def __call__(self, i: int, packet: av.Packet) -> list[av.Packet]:
        if i == 23:
            self.first = bytes(packet)
            return []
        return [packet_like(packet, self.first + bytes(packet))] if i == 24 else [packet]


def comments(i: int, packet: av.Packet) -> list[av.Packet]:
    """A packet without a picture, only a comment (SEI), after every tenth."""
    return [packet, packet_like(packet, b"\0\0\0\5\6\5\1\0\x80", later=1)] if i % 10 == 5 else [packet]


def patched(path: Path, old: bytes, new: bytes, **options: Any) -> Path:
    """A file with some bytes replaced."""
    data = write(path.with_name(f"before_{path.name}"), **options).read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    return path


def emptied(path: Path, index: int) -> Path:
    """A file with a sample of no bytes: MP4's sign of a dropped frame."""
    source = write(path.with_name(f"before_{path.name}"), params="keyint=10:bframes=0:scenecut=0")
    with av.open(str(source)) as container:
        entry = container.streams.video[0].index_entries[index]
        position, size = entry.pos, entry.size
    data = bytearray(source.read_bytes())
    sizes = data.find(b"stsz") + 16  # ISO/IEC 14496-12, 8.7.3: version, size of all, count, and each one's
    assert int.from_bytes(data[sizes + 4 * index :][:4], "big") == size
    data[sizes + 4 * index : sizes + 4 * index + 4] = bytes(4)
    chunks = data.find(b"stco") + 12  # 8.7.5: where each chunk begins
    for at in range(chunks, chunks + 4 * int.from_bytes(data[chunks - 4 : chunks], "big"), 4):
        start = int.from_bytes(data[at : at + 4], "big")
        data[at : at + 4] = (start - size * (start > position)).to_bytes(4, "big")
    media = data.find(b"mdat") - 4
    data[media : media + 4] = (int.from_bytes(data[media : media + 4], "big") - size).to_bytes(4, "big")
    del data[position : position + size]
    path.write_bytes(data)
    return path


ONE = (1 << 16).to_bytes(4, "big")
MINUS = ((1 << 32) - (1 << 16)).to_bytes(4, "big")
UPRIGHT = ONE + bytes(12) + ONE + bytes(12) + (1 << 30).to_bytes(4, "big") + (WIDTH << 16).to_bytes(4, "big")
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
    "all_marked_key.mp4": lambda to: remuxed(to, all_key),
    "two_in_one.mp4": lambda to: remuxed(to, Merged()),
    "dropped.mp4": lambda to: emptied(to, 23),
    "latin1_title.mp4": lambda to: patched(
        to, b"cafe", b"caf\xe9", metadata="cafe", params="keyint=10:bframes=0:scenecut=0"
    ),
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
