"""Depthwise convolutions along time, slow on GPUs, as a few multiplications and sums."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def convolved(conv: nn.Conv1d | nn.Conv3d, x: Tensor) -> Tensor:
    """`conv`, whose kernel reaches over time alone and an odd number of frames: "b t ... d" -> the same.

    cuDNN has no good kernels for it, least for its backward pass (pytorch's issues 37406 and 75747). Shifted frames are
    multiplied and summed in the weights' type. On a CPU that takes half the time in a Conv3d, and more in a Conv1d,
    which goes its own way there.
    """
    if x.device.type == "cpu" and isinstance(conv, nn.Conv1d):
        z: Tensor = conv(rearrange(x, "b t n d -> (b n) d t"))
        return rearrange(z, "(b n) d t -> b t n d", n=x.shape[2])
    weights = conv.weight.flatten(1).unbind(1)
    around = F.pad(x, (0, 0) * (x.ndim - 2) + (len(weights) // 2,) * 2)
    assert conv.bias is not None
    y: Tensor = conv.bias
    for shift, weight in enumerate(weights):
        y = y + around[:, shift : shift + x.shape[1]] * weight
    return y.to(x.dtype)
