"""Counts a training step's operations on a GPU, and the bytes that they read and write, on fake tensors.

    python scripts/count_kernels.py +experiment=k400 precision=bf16 --clips 8

Each of torch's operations counts as one kernel, each operand once; views don't count. The step is not compiled and
computes nothing: it needs no GPU.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aim.engine.loop.optim import adamw
from aim.engine.loop.training import train_step
from aim.engine.run.settings import Run
from aim.engine.run.step import CPU, make_batch, pretended
from aim.ground import config
from aim.models import memory

NUM_CLASSES = 400
NOTHING = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "device"}


class Kernels(TorchDispatchMode):
    """Counts operations and their bytes by name; operations that return a view don't count."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.bytes = Counter[str](), Counter[str]()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        name = op.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)]
        if tensors and not op.is_view and name not in NOTHING:
            self.calls[name] += 1
            self.bytes[name] += sum(map(touched, tensors))
        return result


def touched(x: Tensor) -> int:
    """The bytes of a tensor, those of an expanded axis once."""
    sizes = (size for size, stride in zip(x.shape, x.stride(), strict=True) if stride)
    return int(torch.Size(sizes).numel()) * x.itemsize


def count(run: Run, clips: int) -> Kernels:
    """The second step of a run: the first makes the optimizer's moments."""
    with pretended(run, NUM_CLASSES) as model, as_on_a_gpu():
        optimizer = adamw(model, run.optim)
        for group in optimizer.param_groups:
            group["fused"] = True
        batch = make_batch(model, clips, CPU)
        step = partial(train_step, model, optimizer, [batch], run.train, run.precision, CPU, task=run.task, stop=False)
        step()
        with Kernels() as kernels:
            step()
    return kernels


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Let torch take many fake tensors in one operation, like real ones, and not ask a GPU for its seed."""
    run_again = memory.run_again
    _foreach_utils._foreach_supported_types.append(FakeTensor)
    memory.run_again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        _foreach_utils._foreach_supported_types.remove(FakeTensor)
        memory.run_again = run_again


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts the kernels and bytes of a training step on fake tensors.")
    parser.add_argument("settings", nargs="*", help="as aim.train takes them")
    parser.add_argument("--clips", type=int, default=8)
    args = parser.parse_args()
    settings = args.settings or ["+experiment=k400", "precision=bf16"]
    run = config.build(config.compose([*settings, "backbone.weights=random", "device=cuda"]), Run)
    found = count(run, args.clips)
    for name, size in found.bytes.most_common(25):
        print(f"{name:55s}{found.calls[name]:6d}{size / 2**30:9.2f} GiB")
    print(f"a step of {args.clips} clips: {found.calls.total()} operations, {found.bytes.total() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
