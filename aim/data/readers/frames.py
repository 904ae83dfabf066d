"""Reads videos that were unpacked to folders of images."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

from aim.data.readers.interface import BadVideo, Choice, Part, Pick, Source
from aim.ground.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass(frozen=True)
class Frames:
    """Reads a folder of images in the order of the numbers in their names.

    `fps` is needed only for segments of videos: without it, `span` raises UserError.
    """

    fps: float | None = None

    def __call__(self, path: Source, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        """See `video.Reader`."""
        if isinstance(path, Part) or not Path(path).is_dir():
            raise BadVideo(f"{path}: not a folder of images")
        if span is not None and self.fps is None:
            raise UserError("reader.fps is needed to find the segments of a video in a folder of images")
        files = sorted(pictures(Path(path)), key=_number)
        seconds = np.arange(len(files)) / np.float64(self.fps or np.nan)
        unique, back = np.unique(Choice(path, pick, span)(seconds), return_inverse=True)
        images = [_image(files[i]) for i in unique]
        if any(image.shape != images[0].shape for image in images):
            raise BadVideo(f"{path}: its images differ in size")
        return torch.stack(images)[torch.from_numpy(back)]


def pictures(folder: Path) -> list[Path]:
    """The images of a folder, without hidden ones, such as those that macOS puts beside each file."""
    return [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]


def _number(file: Path) -> list[tuple[int, str]]:
    """A key that sorts frame2 before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", file.stem)]


def _image(file: Path) -> Tensor:
    try:
        with Image.open(file) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise BadVideo(f"{file}: {error}") from error
    return rearrange(torch.from_numpy(pixels), "h w c -> c h w")
