"""torch.compile for the blocks: those of the same shape share one compilation, which torch keeps between runs."""

import logging
import os
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from aim.models.classifier import VideoClassifier
from aim.models.memory import Memory, remembering

# Shapes of blocks, times training and testing, times sizes of a batch: the last one of a test is smaller.
RECOMPILE_LIMIT = 64
# They warn, once a run, of operations in place under train.memory=lean, and of a CPU that has no GPU beside it.
NEEDLESS = "torch._higher_order_ops.wrap", "torch.utils.cpp_extension"
PACKAGES = "gcc and python3-dev"  # Debian's and Ubuntu's names


def compile_blocks(model: VideoClassifier, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the blocks, with `train.memory` as it is; the first steps take minutes.

    Sets torch's compiler for this process: in a block around each call the same would take a tenth of a millisecond.
    """
    for name in NEEDLESS:
        logging.getLogger(name).setLevel(logging.ERROR)
    # The backward pass is compiled at once, too: its later errors could not be caught.
    torch._functorch.config.force_non_lazy_backward_lowering = True
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    torch._dynamo.config.optimize_ddp = False  # DDP's buckets go out between blocks, which needn't be cut for them
    if "TORCHINDUCTOR_COMPILE_THREADS" not in os.environ:  # processes, of each rank
        here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        torch._inductor.config.compile_threads = max(1, torch._inductor.config.decide_compile_threads() // here)
    model.backbone.run = Compiled(backend)


def lacking() -> str:
    """The first missing requirement of Triton for kernels on a GPU; or nothing."""
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "C compiler"
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    return "" if header.exists() else str(header)


def is_compiled(model: nn.Module) -> bool:
    """Whether `compile_blocks` was asked for this model, and not one of heads alone."""
    return isinstance(model, VideoClassifier) and isinstance(model.backbone.run, Compiled)


class Compiled:
    """`remembering`, compiled; where the compiler fails, a line says why and the blocks run as they are."""

    def __init__(self, backend: str | Callable[..., Any]) -> None:
        self.run: Callable[..., Tensor] = torch.compile(remembering, backend=backend, dynamic=False, fullgraph=True)

    def __call__(self, block: Callable[..., Tensor], x: Tensor, memory: Memory, **kwargs: Any) -> Tensor:
        # Counters of operations or bytes are modes of dispatch, and torch compiles nothing inside of one.
        if self.run is remembering or is_in_torch_dispatch_mode(include_infra_modes=False):
            return remembering(block, x, memory, **kwargs)
        try:
            with warnings.catch_warnings(action="ignore"):  # the compiler's own
                return self.run(block, x, memory, **kwargs)
        except (TorchDynamoException, FailOnRecompileLimitHit) as error:
            cause = getattr(error, "inner_exception", error)
            reason = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
            cure = f"; install {PACKAGES}, or use train.compile=false" if lacking() else ""
            print(f"aim: warning: train.compile failed ({reason}); going on without it{cure}", file=sys.stderr)
            self.run = remembering
            return remembering(block, x, memory, **kwargs)
