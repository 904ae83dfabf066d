"""Our own kernels for a GPU, where Triton and a C compiler are; elsewhere torch's do the work."""

import sys
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F


def operation(name: str, plain: Callable[..., Any]) -> Any:
    """An operation of torch's, `aim::name`: `plain`, but on a GPU the function `name` of `aim.models.kernels`.

    Counters, checkpoints and the compiler see one operation. It has no gradient of its own.
    """

    def on_gpu(*args: Any) -> Any:
        found = kernels()
        return (plain if found is None else getattr(found, name))(*args)

    made = torch.library.custom_op(f"aim::{name}", plain, mutates_args=())
    made.register_kernel("cuda")(on_gpu)
    made.register_fake(plain)
    return made


def with_gradient(forward: Any, backward: Any) -> None:
    """Give an operation a gradient: `backward` of its inputs, which are kept, and of its output's gradient."""

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    def back(ctx: Any, gradient: Any) -> Any:
        return backward(*ctx.saved_tensors, gradient)

    forward.register_autograd(back, setup_context=keep)


@cache
def kernels() -> ModuleType | None:
    """`aim.models.kernels`, if the current GPU runs them, and rightly; else None, and a line says why."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Triton's own, at its first compilation
            from aim.models import kernels as found

            check(found)
    except Exception as error:  # whatever a missing compiler, driver or instruction raises
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        print(f"aim: warning: no kernels of our own on this GPU ({reason}); going on with torch's", file=sys.stderr)
        return None
    return found


def check(found: ModuleType) -> None:
    """Raise whatever keeps the kernels from running, and RuntimeError where they compute something else than torch."""
    qkv = torch.linspace(-1, 1, 8 * 3 * 2 * 64, device="cuda").sin().view(1, 8, 1, 3, 2, 64)
    q, k, v = (x[0, :, 0].transpose(0, 1) for x in qkv.unbind(3))
    theirs = F.scaled_dot_product_attention(q, k, v).transpose(0, 1)
    ours = found.short_attention(qkv.bfloat16())[0, :, 0].float()
    if not torch.allclose(ours, theirs, rtol=0.02, atol=0.02):
        raise RuntimeError("they compute something else than torch's")
