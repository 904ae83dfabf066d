"""No adapters: a linear probe, or full fine-tuning."""

from collections.abc import Sequence
from dataclasses import dataclass

from aim.adapters.interface import AdapterBase


@dataclass(frozen=True, kw_only=True)
class Plain(AdapterBase):
    """Leaves every block as it is: a linear probe, or full fine-tuning, depending on `trainable`."""

    trainable: Sequence[str] = ()
