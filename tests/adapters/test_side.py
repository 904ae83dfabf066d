"""The side network's size, sense of time and memory."""

import pytest
import torch

from aim.adapters.side import Change, shrink
from aim.models.classifier import plainly
from tests.messages import refused
from tests.models.checks import order_matters, saved_bytes, toy_model, tuned, video
from tests.models.test_trunks import FAMILIES
from tests.models.toys import randomise


def size(dims, width, kernel=3, difference=False):
    """Of a layer: projection, depthwise convolution, and a transformer block; then the last norm.

    Of the difference: a depthwise convolution of 3 by 3 and a gate.
    """
    block = 12 * width**2 + 13 * width
    return sum((dim + 1) * width + (kernel + 1 + 10 * difference) * width + block for dim in dims) + 2 * width


@pytest.mark.parametrize(
    ("trunk", "dims", "millions"),
    [
        ("clip_vit_b16", [768] * 12, 7.1),
        ("swin_b", [128, 256, 512, 1024], 3.7),
    ],
)
def test_the_size_by_formula(trunk, dims, millions):
    """No paper's number: the network is none of theirs."""
    count = tuned("side", trunk)
    assert count == size(dims, dims[-1] // 4)
    assert round(count / 1e6, 1) == millions
    assert tuned("side", trunk, difference=True) == size(dims, dims[-1] // 4, difference=True)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_the_order_of_frames_matters(trunk):
    assert order_matters("side", trunk)
    assert not order_matters("side", trunk, kernel=1)
    assert order_matters("side", trunk, kernel=1, difference=True)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_no_gradient_enters_the_trunk_and_little_is_kept(trunk):
    model = toy_model("side", trunk)
    aim = toy_model("aim", trunk)
    with plainly(aim):
        assert saved_bytes(model) < saved_bytes(aim) / 3
    seen = []  # only now, for what it holds would count as kept
    model.backbone.adapters["readout"].register_forward_pre_hook(lambda _, inputs: seen.extend([*inputs[0], inputs[1]]))
    model(video())
    assert len(seen) > 1
    assert not any(tokens.requires_grad for tokens in seen)


@pytest.mark.parametrize("prefix", [0, 2])
def test_a_change_is_heard_by_the_patches_around_it_and_not_before_it(prefix):
    change = Change(4, prefix).double()
    x = torch.randn(2, 3, prefix + 9, 4, dtype=torch.float64)
    assert torch.equal(change(x), x)  # the gate is closed
    randomise(change)
    moved = x.clone()
    moved[:, 1, prefix] += 1.0  # the patch of the first row and column
    moved[:, 1, :prefix] += 1.0
    with torch.no_grad():
        heard = ((change(moved) - moved) - (change(x) - x)).abs().amax((0, 3)) > 1e-9
        still = change(x[:, :1].repeat(1, 3, 1, 1))
    around = [False] * prefix + [row < 2 and column < 2 for row in range(3) for column in range(3)]
    assert heard.tolist() == [[False] * (prefix + 9), around, around]
    assert torch.equal(still, x[:, :1].repeat(1, 3, 1, 1))
    with torch.no_grad():
        kernel, patches = change.conv.weight[:, 0], x[:, :, prefix:].unflatten(2, (3, 3))
        middle = sum(kernel[:, i, j] * (patches[:, 2, i, j] - patches[:, 1, i, j]) for i in range(3) for j in range(3))
        torch.testing.assert_close(change(x)[:, 2, prefix + 4] - x[:, 2, prefix + 4], change.gate * middle)


def test_an_exported_change_takes_any_number_of_clips():
    change, x = Change(4, 1), torch.randn(3, 2, 5, 4)
    randomise(change)
    program = torch.export.export(change, (x[:2],), dynamic_shapes=({0: torch.export.Dim("b")},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), change(x))


def test_a_grid_shrinks_by_the_mean_of_cells():
    x = torch.arange(16.0).view(1, 1, 16, 1)
    assert shrink(x, 4).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert shrink(x, 16) is x


def test_a_kernel_without_a_middle_is_an_error():
    with refused("adapter.kernel=2"):
        toy_model("side", kernel=2)
