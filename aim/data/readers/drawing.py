"""Decoded frames of PyAV to RGB images, upright."""

from collections.abc import Sequence

import av
import numpy as np
import torch
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

Image = NDArray[np.uint8]  # "h w c"
Matrix = tuple[int, int, int, int]


class Drawing:
    """Turns frames into images of one size and one orientation, those of the first frame, in one conversion.

    The first frame is the file's, wanted or not: where others are drawn alone, `begin` has to see it before.
    """

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.matrix: Matrix | None = None
        self.reformatter = VideoReformatter()

    def begin(self, frame: VideoFrame) -> None:
        """Take size and orientation from the file's first frame."""
        self.size = frame.height, frame.width
        self.matrix = display_matrix(frame)

    def __call__(self, frame: VideoFrame) -> Image:
        if self.size is None:
            self.begin(frame)
        assert self.size is not None
        height, width = self.size
        rgb = self.reformatter.reformat(frame, width, height, "rgb24", threads=1)
        plane = rgb.planes[0]
        pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)[:, : width * 3]
        return _upright(pixels.reshape(height, width, 3), self.matrix)


class Film:
    """The frames that are `wanted`, by any key, as one video; each is written to its place as soon as it is drawn.

    Kept one by one and copied at the end, they would take twice the memory, which costs more than the copying.
    """

    def __init__(self, wanted: Sequence[int]) -> None:
        self.rows = {key: row for row, key in enumerate(dict.fromkeys(wanted))}
        self.wanted = wanted
        self.draw = Drawing()
        self.missing = set(wanted)
        self.pixels: NDArray[np.uint8] = np.empty(0, np.uint8)  # "t h w c" from the first frame on

    def add(self, key: int, frame: VideoFrame) -> None:
        """Draw the frame wanted by this key."""
        image = self.draw(frame)
        if not self.pixels.size:
            self.pixels = np.empty((len(self.rows), *image.shape), np.uint8)
        self.pixels[self.rows[key]] = image
        self.missing.discard(key)

    def video(self) -> Tensor:
        """ "t c h w", in the order in which they're wanted."""
        assert not self.missing
        rows = [self.rows[key] for key in self.wanted]
        pixels = self.pixels if len(rows) == len(self.rows) else self.pixels[rows]
        return rearrange(torch.from_numpy(pixels), "t h w c -> t c h w")


def display_matrix(frame: VideoFrame) -> Matrix | None:
    """How a viewer turns and mirrors the frame: a, b, c, d of x' = a x + c y, y' = b x + d y; None for not at all.

    See ISO/IEC 14496-12, 6.2.2. Asking a frame for its side data ties it to itself until Python's next full collection,
    and with it all memory of its decoder; so a small copy is asked.
    """
    copy = frame.reformat(16, 16, "gray")
    matrix = copy.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if matrix is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return a, b, c, d


def first_frame(
    container: InputContainer, stream: VideoStream, kept: "Sequence[av.Packet[VideoStream]]" = ()
) -> VideoFrame | None:
    """The stream's first frame, of packets that are `kept` or else of the file from its start."""
    if not kept:
        container.seek(0)
    for packet in kept or container.demux(stream):
        for frame in packet.decode():
            return frame
    return next(iter(stream.codec_context.decode(None)), None)


def is_quarter_turn(matrix: Matrix) -> bool:
    """Whether it takes nothing but turning, by a right angle."""
    a, b, c, d = matrix
    return a == d and b == -c and (a == 0) != (b == 0)


def _upright(image: Image, matrix: Matrix | None) -> Image:
    """The image as the matrix shows it, in quarter turns and reflections."""
    if matrix is None:
        return image
    a, b, c, d = matrix
    if max(abs(a), abs(d)) < max(abs(b), abs(c)):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
