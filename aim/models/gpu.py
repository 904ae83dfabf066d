"""Our own kernels for a GPU, where Triton and a C compiler are; elsewhere torch's do the work."""

import sys
import warnings
from collections.abc import Callable
from functools import cache, partial
from types import ModuleType
from typing import Any

import torch


def operation(name: str, plain: Callable[..., Any]) -> Any:
    """An operation of torch's, `aim::name`: `plain`, but on a GPU the function `name` of `aim.models.kernels`.

    Counters, checkpoints and the compiler see one operation. It has no gradient of its own.
    """
    made = torch.library.custom_op(f"aim::{name}", plain, mutates_args=())
    made.register_kernel("cuda")(partial(on_gpu, name, plain))
    made.register_fake(plain)
    return made


def on_gpu(name: str, plain: Callable[..., Any], *args: Any) -> Any:
    """By our kernel, if there is one. Triton starts it on the current GPU, wherever its tensors lie."""
    with torch.cuda.device_of(args[0]):  # type: ignore[no-untyped-call]
        found = kernels()
        return (plain if found is None else getattr(found, name))(*args)


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


def check(found: Any, device: str = "cuda") -> None:
    """Raise whatever keeps the kernels from running, and RuntimeError where attention isn't that of a CPU."""
    qkv = torch.linspace(-1, 1, 8 * 3 * 2 * 64).sin().view(1, 8, 1, 3, 2, 64)
    for name, *given in (("short_attention", qkv), ("short_attention_backward", qkv, qkv[:, :, :, 0])):
        theirs = getattr(torch.ops.aim, name)(*given)
        ours = getattr(found, name)(*(x.to(device, torch.bfloat16) for x in given))
        if not (ours.float().cpu() - theirs).abs().max() < 0.02 * theirs.abs().max():
            raise RuntimeError(f"{name} is something else than on a CPU")
