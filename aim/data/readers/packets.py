"""Facts about a file's frames from its packets, without decoding: number, order, where to start.

It is believed only where nothing speaks against it: then one packet is one frame, and the order of the time stamps is
the order of a full sequential decode.
"""

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
MAX_REORDER = 16  # frames that an H.264 decoder may hold back, ITU-T H.264 A.3.1
PROGRESSIVE = 1  # FFmpeg's AVFieldOrder
KEPT_BYTES = 2**26  # size of a file whose packets are kept in memory, so that it is read only once


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


def is_start(packet: VideoPacket, stream: VideoStream) -> bool:
    """Whether decoding may start here: no later frame refers to an earlier one.

    Of H.264's key frames that's the IDR pictures alone, not those of open groups or gradual refresh.
    """
    return packet.is_keyframe and (
        stream.codec_context.name != "h264" or any(kind == IDR for kind, _ in _units(packet, stream))
    )


def is_whole(packet: VideoPacket, stream: VideoStream) -> bool:
    """Whether the packet isn't marked as broken and, if it's H.264 in MP4 or Matroska, holds one whole picture."""
    return not packet.is_corrupt and (stream.codec_context.name != "h264" or _pictures(packet, stream) == 1)


def _pictures(packet: VideoPacket, stream: VideoStream) -> int:
    """How many pictures begin in an H.264 packet: slices whose first macroblock is 0, ITU-T H.264, 7.3.3."""
    return sum(kind in SLICES and first >= 0x80 for kind, first in _units(packet, stream))


def _units(packet: VideoPacket, stream: VideoStream) -> list[tuple[int, int]]:
    """Type and first byte of content of an H.264 packet's units; none where their lengths don't add up."""
    config = stream.codec_context.extradata
    if not config or config[0] != 1 or len(config) < 5:  # ISO/IEC 14496-15, 5.3.3.1
        return []
    data, width, at, units = bytes(packet), (config[4] & 3) + 1, 0, []
    while at + width < len(data):
        units.append((data[at + width] & 31, data[at + width + 1] if at + width + 1 < len(data) else 0))
        at += width + int.from_bytes(data[at : at + width], "big")
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
