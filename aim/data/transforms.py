"""Frames to clips of the model's size; uint8 in, uint8 out, one draw for all frames of a clip."""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from aim.data.readers.interface import scaled
from aim.ground.errors import UserError, check_least

# ImageNet's principal components of colour (0 to 255), AlexNet section 4.1, as in the public implementation.
PCA_STD = (55.46, 4.794, 1.148)
PCA_VECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
# Erased pixels become CLIP's mean colour (0 to 255), zero after normalisation.
ERASED = (123.0, 117.0, 104.0)


@dataclass(frozen=True)
class Augment:
    """The training pipeline: random resized crop, flip, colours, RandAugment, erasing; 0 turns each off.

    area: the share of the frame that a crop covers, from and to. ratio: its width over its height, from and to.
    flip: probability. lighting: standard deviation of PCA lighting noise (0.1 in the paper's ViT-L).
    color_jitter: strength for brightness, contrast and saturation. rand_augment: number of operations, of strength
    rand_augment_magnitude (0 to 30). erasing: probability that one box is erased from all frames.

    The public pipeline resizes the short side to 256, crops and resizes; the box is relative to the frame: one resize
    from the source gives the same clip, sharper.
    """

    area: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    lighting: float
    color_jitter: float
    rand_augment: int
    rand_augment_magnitude: int
    erasing: float

    def __post_init__(self) -> None:
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise UserError(f"augment.area={self.area} must be two rising shares between 0 and 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"augment.ratio={self.ratio} must be two rising ratios above 0")
        for name in ("flip", "erasing"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augment.{name}={getattr(self, name)} must be a probability")
        check_least(self, 0, "lighting", "color_jitter", "rand_augment", prefix="augment.")
        if not 0 <= self.rand_augment_magnitude <= 30:
            raise UserError(f"augment.rand_augment_magnitude={self.rand_augment_magnitude} must be 0 to 30")

    def __call__(self, video: Tensor, size: int, rng: np.random.Generator) -> Tensor:
        """Uint8 "t c h w" to uint8 "t c size size"; a function of the frames and the state of `rng`."""
        steps: list[torch.nn.Module] = [
            v2.RandomResizedCrop(size, scale=tuple(self.area), ratio=tuple(self.ratio), antialias=False),
            v2.RandomHorizontalFlip(self.flip),
        ]
        if self.color_jitter:
            steps.append(v2.ColorJitter(self.color_jitter, self.color_jitter, self.color_jitter))
        if self.rand_augment:
            steps.append(v2.RandAugment(self.rand_augment, self.rand_augment_magnitude))
        if self.erasing:
            steps.append(v2.RandomErasing(self.erasing, value=list(ERASED)))
        # torchvision draws from torch's global generator; torch.manual_seed would seed those of all devices, too.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**62)))
            for step in steps:
                video = step(video)
        return _light(video, rng.normal(0, self.lighting, 3)) if self.lighting else video


def _light(video: Tensor, alpha: NDArray[np.float64]) -> Tensor:
    """Add one colour to all pixels, drawn along the principal components (AlexNet section 4.1)."""
    shift = torch.from_numpy((np.array(PCA_VECTORS) * alpha * PCA_STD).sum(1)).float()
    return (video + rearrange(shift, "c -> c 1 1")).round_().clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Views:
    """The test protocol: `temporal` clips of a video, `spatial` crops (1 or 3) of each, short side `resize` before."""

    temporal: int
    spatial: int
    resize: int

    def __post_init__(self) -> None:
        if self.spatial not in (1, 3):
            raise UserError(f"views.spatial={self.spatial} must be 1 (centre) or 3 (along the long side)")
        check_least(self, 1, "temporal", prefix="views.")

    def at_once(self, clips: int) -> int:
        """The number of videos, or windows, with about this number of clips."""
        return max(1, clips // (self.temporal * self.spatial))

    def protocol(self, num_frames: int) -> str:
        """In papers' notation: frames x temporal x spatial views."""
        return f"{num_frames}x{self.temporal}x{self.spatial}"

    def __call__(self, video: Tensor, size: int) -> Tensor:
        """Uint8 "t c h w" to uint8 "v t c size size": centre, or left or top, right or bottom, middle.

        Bilinear without antialiasing, as OpenCV resizes in the public implementation.
        """
        if self.resize < size:
            raise UserError(f"views.resize={self.resize} is smaller than clip.size={size}")
        height, width = scaled(video.shape[-2], video.shape[-1], self.resize)
        video = v2.functional.resize(video, [height, width], antialias=False)
        top, left = (height - size) // 2, (width - size) // 2
        if self.spatial == 1:
            corners = [(top, left)]
        elif width >= height:
            corners = [(top, 0), (top, 2 * left), (top, left)]
        else:
            corners = [(0, left), (2 * top, left), (top, left)]
        return torch.stack([video[..., y : y + size, x : x + size] for y, x in corners])
