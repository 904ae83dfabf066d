"""Convolutions over time by shifts against torch's own."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from aim.adapters.temporal import convolved


class Ops(TorchDispatchMode):
    """Notes the operations of its block."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        self.names.add(str(op))
        return op(*args, **(kwargs or {}))


def three(width, kernel):
    return nn.Conv3d(width, width, (kernel, 1, 1), padding=(kernel // 2, 0, 0), groups=width)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_shifts_give_the_convolution_and_its_gradients(kernel):
    conv, x = three(4, kernel).double(), torch.randn(2, 6, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    leaves = [x, conv.weight, conv.bias]
    theirs = conv(x.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
    ours = convolved(conv, x)
    torch.testing.assert_close(ours, theirs)
    gradient = torch.randn_like(theirs)
    for found, expected in zip(
        torch.autograd.grad(ours, leaves, gradient), torch.autograd.grad(theirs, leaves, gradient), strict=True
    ):
        torch.testing.assert_close(found, expected)
    with torch.no_grad():
        conv.weight[0, 0, -1] += 1
    assert not torch.allclose(convolved(conv, x), theirs)


@pytest.mark.parametrize(("dims", "device", "slow"), [(1, "cpu", True), (1, "meta", False), (3, "cpu", False)])
def test_no_device_gets_the_convolution_that_it_is_slow_at(dims, device, slow):
    conv = three(4, 3) if dims == 3 else nn.Conv1d(4, 4, 3, padding=1, groups=4)
    conv, x = conv.to(device), torch.randn(2, 6, *(3,) * (2 if dims == 3 else 1), 4, device=device)
    with Ops() as ops:
        y = convolved(conv, x)
    assert y.shape == x.shape
    assert any("convolution" in name for name in ops.names) == slow


def test_one_dimension_is_that_of_a_convolution_too():
    conv, x = nn.Conv1d(4, 4, 3, padding=1, groups=4), torch.randn(2, 6, 5, 4)
    thick = three(4, 3)
    with torch.no_grad():
        thick.weight.copy_(conv.weight[..., None, None])
        thick.bias.copy_(conv.bias)
    torch.testing.assert_close(convolved(conv, x), convolved(thick, x[:, :, None])[:, :, 0])
    assert convolved(thick, x[:, :, None].bfloat16()).dtype == torch.bfloat16
