"""Mixup and CutMix of a batch of clips, on its device."""

import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


def mix(
    video: Tensor, label: Tensor, weight: Tensor, num_classes: int, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix every clip with its predecessor by torchvision's MixUp or CutMix, one of the two at random if both are on.

    video: float "b c t h w", label: int64 "b", weight: "b"; `mixup` and `cutmix` are the alphas of the beta
    distributions, 0 is off. Returns the video, the target (label, or probabilities "b k") and the weight: a clip mixed
    with one that could not be read counts as little as that one.
    """
    transforms = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
    transforms += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
    if not transforms or len(video) < 2:
        return video, F.one_hot(label, num_classes).float() if transforms else label, weight
    mixed, target = v2.RandomChoice(transforms)(tv_tensors.Video(video.transpose(1, 2)), label)
    return mixed.as_subclass(Tensor).transpose(1, 2), target, weight * weight.roll(1)
