"""Tensors kept for the backward pass, and the storage of frozen weights.

The weights of a frozen block need no kept tensors, but the gradient to the tokens does: attention its q, k and v, an
activation its input, a norm the tokens. Most of that is cheap to compute again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Memory = Literal["fast", "lean", "smallest"]
# Products, and which argument is the weight, "k n".
PRODUCTS = {torch.ops.aten.addmm.default: 2, torch.ops.aten.mm.default: 1, torch.ops.aten._scaled_mm.default: 1}
ATTENTIONS = "scaled_dot_product", "short_attention"
DRAWS = torch.ops.aten.bernoulli.default  # small, and compiled code can't draw the same again


def remembering(block: Callable[..., Tensor], x: Tensor, memory: Memory, **kwargs: Any) -> Tensor:
    """`block(x, **kwargs)`, with the tensors for the backward pass kept as `memory` says.

    fast: all that autograd keeps. lean: attention, and of the tokens' products q, k and v and those that don't widen
    them; the rest is computed again. smallest: the tokens alone.
    """
    if memory == "fast" or not torch.is_grad_enabled():
        return block(x, **kwargs)
    if memory == "smallest":
        return run_again(block, x, **kwargs)
    keep = partial(policy, x.shape[-1])
    return run_again(block, x, context_fn=partial(create_selective_checkpoint_contexts, keep), **kwargs)


run_again: Callable[..., Tensor] = partial(checkpoint, use_reentrant=False)


def policy(width: int, context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Whether the result of an operation of a lean block is kept, for torch's selective checkpoint."""
    if op in PRODUCTS:
        taken, given = args[PRODUCTS[op]].shape
        keep = taken == width and (given <= taken or given == 3 * taken)
    else:
        keep = op is DRAWS or any(name in str(op) for name in ATTENTIONS)
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE


def store_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Store the frozen matrices once in the type that autocast would cast them to in every step.

    Norms, positions, layer scales and trained parameters stay in float32, as does a frozen matrix with a
    parametrization.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d) and not parametrize.is_parametrized(module):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)
