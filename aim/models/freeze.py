"""The trained parameters, given once, by patterns of names."""

from collections.abc import Sequence

from torch import nn

from aim.ground.errors import matching


def freeze_except(model: nn.Module, trainable: Sequence[str]) -> list[str]:
    """Leave trainable only the parameters whose names match one of these glob patterns; return their names.

    Raises UserError for a pattern that matches nothing, so that a renamed module can't be frozen in silence.
    """
    names = [name for name, _ in model.named_parameters()]
    kept = matching(trainable, names, "trainable")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in kept)
    return [name for name in names if name in kept]


def num_parameters(model: nn.Module) -> tuple[int, int]:
    """How many parameters are trained, and how many there are."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, is_trained in sizes if is_trained), sum(size for size, _ in sizes)
