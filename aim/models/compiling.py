"""torch.compile for the blocks: those of the same shape share one compilation, which torch keeps between runs."""

import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from aim.models.classifier import VideoClassifier
from aim.models.memory import Memory, remembering

# Shapes of blocks, times training and testing, times sizes of a batch: the last one of a test is smaller.
RECOMPILE_LIMIT = 64
# They warn, once a run, of operations in place under train.memory=lean, and of a CPU that has no GPU beside it.
NEEDLESS = "torch._higher_order_ops.wrap", "torch.utils.cpp_extension"


def compile_blocks(model: VideoClassifier, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the blocks, with `train.memory` as it is; the first steps take minutes."""
    for name in NEEDLESS:
        logging.getLogger(name).setLevel(logging.ERROR)
    model.backbone.run = Compiled(backend)


def is_compiled(model: VideoClassifier) -> bool:
    """Whether `compile_blocks` was asked for this model."""
    return isinstance(model.backbone.run, Compiled)


class Compiled:
    """`remembering`, compiled; where the compiler fails, a line says why and the blocks run as they are."""

    def __init__(self, backend: str | Callable[..., Any]) -> None:
        self.run: Callable[..., Tensor] = torch.compile(remembering, backend=backend, dynamic=False, fullgraph=True)

    def __call__(self, block: Callable[..., Tensor], x: Tensor, memory: Memory, **kwargs: Any) -> Tensor:
        # Counters of operations or bytes are modes of dispatch, and torch compiles nothing inside of one.
        if self.run is remembering or is_in_torch_dispatch_mode(include_infra_modes=False):
            return remembering(block, x, memory, **kwargs)
        try:
            # The backward pass is compiled at once, too: its later errors could not be caught here.
            with (
                warnings.catch_warnings(action="ignore"),  # the compiler's own
                torch._functorch.config.patch(force_non_lazy_backward_lowering=True),
                torch._dynamo.config.patch(recompile_limit=RECOMPILE_LIMIT),
            ):
                return self.run(block, x, memory, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            cause = getattr(error, "inner_exception", error)
            reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
            print(f"aim: warning: train.compile failed ({reason}); going on without it", file=sys.stderr)
            self.run = remembering
            return remembering(block, x, memory, **kwargs)
