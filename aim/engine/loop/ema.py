"""The exponential moving average of the trained weights, which is tested and saved in their place (`train.ema`)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The mean of the trained weights over the steps, of float32 like them; without a `decay` it is off, and empty."""

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.decay = decay
        self.live = {} if decay is None else {name: parameter.detach() for name, parameter in trained.items()}
        self.mean = {name: tensor.clone() for name, tensor in self.live.items()}

    def update(self, step: int) -> None:
        """Take in the weights after so many steps.

        The decay begins at a tenth and grows to `train.ema`, so that the start is soon forgotten (the formula of
        `num_updates` in TensorFlow's ExponentialMovingAverage).
        """
        if self.decay is not None:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.mean.values()), list(self.live.values()), 1 - decay)

    def restore(self, mean: Mapping[str, Tensor]) -> None:
        """Go on from a mean of these names."""
        for name, tensor in self.mean.items():
            tensor.copy_(mean[name])

    def swap(self) -> None:
        """Exchange the weights and their mean."""
        if self.decay is not None:
            aside = [tensor.clone() for tensor in self.live.values()]
            torch._foreach_copy_(list(self.live.values()), list(self.mean.values()))
            torch._foreach_copy_(list(self.mean.values()), aside)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the mean inside this block."""
        self.swap()
        try:
            yield
        finally:
            self.swap()
