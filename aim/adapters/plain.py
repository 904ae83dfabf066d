"""No adapters: a linear probe, or full fine-tuning."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from aim.adapters.interface import BlockView, Place, Recipe, Tokens


@dataclass(frozen=True)
class Plain:
    """Leaves every block as it is: a linear probe, or full fine-tuning, depending on `trainable`."""

    trainable: Sequence[str] = ()
    train_norm: bool = False
    temporal: bool = False
    recipe: Recipe | None = None

    def __call__(self, view: BlockView, place: Place) -> nn.Module:
        return view.block

    def readout(self, dims: Sequence[int], tokens: Tokens) -> None:
        return None
