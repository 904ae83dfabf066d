"""Decoded frames of PyAV to RGB images, upright."""

from collections.abc import Sequence

import numpy as np
import torch
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor

from aim.data.video import scaled

Image = NDArray[np.uint8]  # "h w c"


class Drawing:
    """Turns frames into images of one size, that of the first frame or scaled to `short_side`, in one conversion."""

    def __init__(self, short_side: int | None) -> None:
        self.short_side = short_side
        self.size: tuple[int, int] | None = None
        self.reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> Image:
        if self.size is None:
            self.size = scaled(frame.height, frame.width, self.short_side)
        height, width = self.size
        rgb = self.reformatter.reformat(frame, width, height, "rgb24", threads=1)
        plane = rgb.planes[0]
        pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(height, plane.line_size)[:, : width * 3]
        return _upright(frame, pixels.reshape(height, width, 3))


def stacked(images: Sequence[Image]) -> Tensor:
    """Images "h w c" as one video "t c h w"."""
    return rearrange(torch.from_numpy(np.stack(images)), "t h w c -> t c h w")


def _upright(frame: VideoFrame, image: Image) -> Image:
    """The image as the file's display matrix shows it, in quarter turns and reflections."""
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # type: ignore[call-overload]
    if matrix is None:
        return image
    # x' = a x + c y, y' = b x + d y: ISO/IEC 14496-12, 6.2.2
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5]
    if max(abs(a), abs(d)) < max(abs(b), abs(c)):
        image, a, d = image.swapaxes(0, 1), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
