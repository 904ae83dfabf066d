"""Facts about a file's frames from its packets, without decoding: number, order, where to start.

It is believed only where nothing speaks against it: then one packet is one frame, and the order of the time stamps is
the order of a full sequential decode.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

VideoPacket: TypeAlias = "av.Packet[VideoStream]"
SLICES = (1, 2, 5)  # types of the units that begin a picture
IDR = 5  # type of the units of a picture that decoding may start at, ITU-T H.264 table 7-1
SEI, ORIENTATION = 6, 47  # type of the units that comment on a picture, and of the comment how to turn it, D.1
NEVER_TURNED = ("av1", "mpeg4", "vp8", "vp9")  # codecs whose pictures say nothing of how to turn them
LONGEST_PAUSE = 3600.0  # seconds from a frame to the next; after a longer one another recording begins
MAX_REORDER = 16  # frames that an H.264 decoder may hold back, ITU-T H.264 A.3.1
PROGRESSIVE = 1  # FFmpeg's AVFieldOrder
KEPT_BYTES = 2**26  # size of a file whose packets are kept in memory, so that it is read only once


class Clock:
    """Times of packets or frames, as they come, by one clock that doesn't fall back, nor jump ahead by hours.

    Where a time falls below those of more frames than are reordered, a new recording begins, as in files that were
    joined byte by byte; and so where it's above the one before by more than LONGEST_PAUSE, as where a broadcast's clock
    was set. Its times continue after the end of the one before.
    """

    def __init__(self, stream: VideoStream) -> None:
        self.base = float(stream.time_base or 1)
        self.usual = 1 / float(stream.average_rate or 25)  # seconds, of a frame whose duration isn't known
        self.newest = deque[float](maxlen=stream.codec_context.reorder_depth + 2)
        self.shift, self.end, self.broke = 0.0, 0.0, False

    def __call__(self, time: float, duration: int | None) -> float:
        """The continued time, in seconds, of one that is shown for so many units of the stream."""
        time += self.shift
        fell = len(self.newest) == self.newest.maxlen and time < min(self.newest)
        if fell or (self.newest and time > self.end + LONGEST_PAUSE):
            self.broke = True
            self.shift += self.end - time
            time = self.end
        self.newest.append(time)
        self.end = max(self.end, time + (duration * self.base if duration else self.usual))
        return time


@dataclass(frozen=True)
class Packets:
    """The packets of a video stream in decoding order, its key frames, and those that decoding may start at.

    `fault` says why their number or times can't be those of the frames, `doubt` why one can't be sure that they are and
    in which order, which one can be of H.264 alone. Both are empty where nothing speaks against it. `kept` are the
    packets themselves, where they were read and aren't too large.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    key: NDArray[np.bool_]
    start: NDArray[np.bool_]
    fault: str
    doubt: str
    kept: "list[VideoPacket]"

    @property
    def order(self) -> NDArray[np.int64]:
        """The packet of each frame, frames in the order of presentation."""
        return np.argsort(self.pts, kind="stable")


def from_index(container: InputContainer, stream: VideoStream) -> Packets | None:
    """Packets as the index of an MP4 file lists them, without reading any.

    None where the index isn't the whole truth, or may not be: it has no presentation times of reordered frames, and
    doesn't tell packets without a picture from others, unless all are key frames.
    """
    entries = stream.index_entries
    if family(container) != "mov" or stream.codec_context.reorder_depth or len(entries) != stream.frames:
        return None
    # No list of tuples, whose number would have Python look for garbage.
    rows = (x for e in entries for x in (e.timestamp, e.is_keyframe, e.is_discard, e.pos, e.size))
    times, start, dropped, places, sizes = np.fromiter(rows, np.int64, 5 * len(entries)).reshape(-1, 5).T
    if (places + sizes).max(initial=0) > container.size or not start.all() or not sizes.all():
        return None
    return _judged(container, stream, times, times, start > 0, start > 0, odd=bool(dropped.any()), kept=[])


def from_file(container: InputContainer, stream: VideoStream) -> Packets:
    """Packets as they stand in the file, which is read through once."""
    rows, kept, odd, keep = [], [], False, container.size <= KEPT_BYTES
    for packet in video_packets(container, stream):
        if keep:
            kept.append(packet)
        if packet.pts is None or packet.is_discard or not is_whole(packet, stream):
            odd = True
        else:
            decoded = packet.pts if packet.dts is None else packet.dts
            rows.append((packet.pts, decoded, packet.is_keyframe, is_start(packet, stream)))
    pts, dts, key, start = np.array(rows, np.int64).reshape(-1, 4).T
    return _judged(container, stream, pts, dts, key > 0, start > 0, odd=odd, kept=kept)


def video_packets(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """The packets of the stream that hold something; the last one that PyAV gives only flushes the decoder."""
    return (packet for packet in container.demux(stream) if packet.size)


def duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds from the first frame to the end of the last one, by all packets; None where they have no times."""
    clock = Clock(stream)
    shown = [packet for packet in video_packets(container, stream) if not packet.is_discard]
    times = [clock(p.pts * clock.base, p.duration) for p in shown if p.pts is not None]
    return clock.end - min(times) if times else None


def is_start(packet: VideoPacket, stream: VideoStream) -> bool:
    """Whether decoding may start here: no later frame refers to an earlier one.

    Of H.264's key frames that's the IDR pictures alone, not those of open groups or gradual refresh.
    """
    return packet.is_keyframe and (
        stream.codec_context.name != "h264" or any(kind == IDR for kind, *_ in _units(packet, stream))
    )


def is_whole(packet: VideoPacket, stream: VideoStream) -> bool:
    """Whether the packet isn't marked as broken and, if it's H.264 in MP4 or Matroska, holds one whole picture."""
    return not packet.is_corrupt and (stream.codec_context.name != "h264" or _pictures(packet, stream) == 1)


def may_turn(packet: VideoPacket, stream: VideoStream) -> bool:
    """Whether a packet itself may say how its picture is to be turned or mirrored, which its container may, too."""
    if stream.codec_context.name != "h264":
        return stream.codec_context.name not in NEVER_TURNED
    data = bytes(packet)
    return any(kind == SEI and ORIENTATION in _comments(data[at:end]) for kind, _, at, end in _units(packet, stream))


def _comments(unit: bytes) -> Iterator[int]:
    """The types of the messages in a unit of comments, ITU-T H.264, 7.3.2.3."""
    data = unit.replace(b"\0\0\3", b"\0\0")
    at = 0
    while at + 2 < len(data):
        numbers = []
        for _ in ("type", "size"):
            start = at
            while at < len(data) - 1 and data[at] == 0xFF:
                at += 1
            numbers.append(255 * (at - start) + data[at])
            at += 1
        yield numbers[0]
        at += numbers[1]


def _pictures(packet: VideoPacket, stream: VideoStream) -> int:
    """How many pictures begin in an H.264 packet: slices whose first macroblock is 0, ITU-T H.264, 7.3.3."""
    return sum(kind in SLICES and first >= 0x80 for kind, first, *_ in _units(packet, stream))


def _units(packet: VideoPacket, stream: VideoStream) -> list[tuple[int, int, int, int]]:
    """Type, first byte, start and end of content of an H.264 packet's units; none where their lengths don't add up."""
    config = stream.codec_context.extradata
    if not config or config[0] != 1 or len(config) < 5:  # ISO/IEC 14496-15, 5.3.3.1
        return []
    data, width, at, units = bytes(packet), (config[4] & 3) + 1, 0, []
    while at + width < len(data):
        kind, start = data[at + width] & 31, at + width + 1
        at += width + int.from_bytes(data[at : at + width], "big")
        units.append((kind, data[start] if start < len(data) else 0, start, at))
    return units if at == len(data) else []


def family(container: InputContainer) -> str:
    """The container's format: "mov" (MP4 too), "matroska" (WebM too), "avi", ..."""
    return container.format.name.split(",")[0]


def _judged(
    container: InputContainer,
    stream: VideoStream,
    pts: NDArray[np.int64],
    dts: NDArray[np.int64],
    key: NDArray[np.bool_],
    start: NDArray[np.bool_],
    *,
    odd: bool,
    kept: "list[VideoPacket]",
) -> Packets:
    fault = ""
    if odd:
        fault = "packets that are broken, not shown or without a time stamp"
    elif not pts.size:
        fault = "no packets"
    elif stream.frames not in (0, pts.size):
        fault = f"{pts.size} packets where the header says {stream.frames}"
    elif np.unique(pts).size != pts.size:
        fault = "equal time stamps"
    elif np.diff(np.sort(pts)).max(initial=0) * (stream.time_base or 1) > LONGEST_PAUSE:
        fault = "time stamps that jump ahead by hours"
    return Packets(pts, dts, key, start, fault, fault or order_doubt(container, stream, pts, start), kept)


def order_doubt(
    container: InputContainer, stream: VideoStream, pts: NDArray[np.int64], start: NDArray[np.bool_]
) -> str:
    """Why one can't be sure which frame of a decoder belongs to which packet, or nothing."""
    codec = stream.codec_context
    if codec.name != "h264":
        return f"codec {codec.name}"
    if family(container) not in ("mov", "matroska"):
        return f"container {container.format.name}"
    if codec.field_order != PROGRESSIVE:
        return "interlaced"
    if pts.argmin() or not start[0]:
        return "decoding can't start at the first packet"
    # A decoder orders frames by their picture order count, not by time stamps. These must tell the same story, and not
    # need more frames held back than the decoder will hold.
    if not codec.reorder_depth and (pts[1:] > pts[:-1]).all():
        return ""
    rank = np.argsort(np.argsort(pts))
    if np.abs(rank - np.arange(rank.size)).max() > MAX_REORDER:
        return "time stamps far out of order"
    later = [np.pad(rank[:-i] > rank[i:], (i, 0)) for i in range(1, min(MAX_REORDER + 1, rank.size))]
    held = int(np.sum(later, axis=0).max(initial=0))
    if held > codec.reorder_depth or (codec.reorder_depth and not held):
        return f"{held} reordered frames where the codec says {codec.reorder_depth}"
    return ""
