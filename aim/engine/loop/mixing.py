"""Mixup and CutMix of a batch of clips, on its device."""

from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from aim.engine.scores.tasks import Task


def mix(
    task: Task, video: Tensor, label: Tensor, weight: Tensor, num_classes: int, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix every clip with its predecessor by torchvision's MixUp or CutMix, one of the two at random if both are on.

    video: float "b c t h w", label: as the task has it, weight: "b"; `mixup` and `cutmix` are the alphas of the beta
    distributions, 0 is off. Returns the video, the task's target and the weight: a clip mixed with one that could not
    be read counts as little as that one.
    """
    transforms = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
    transforms += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
    target = task.target(label, num_classes, mixed=bool(transforms))
    if not transforms or len(video) < 2:
        return video, target, weight
    mixed, target = v2.RandomChoice(transforms)(tv_tensors.Video(video.transpose(1, 2)), target)
    return mixed.as_subclass(Tensor).transpose(1, 2), target, weight * weight.roll(1)
