"""The side network's size, sense of time and memory."""

import pytest
import torch

from aim.adapters.side import shrink
from aim.models.classifier import plainly
from tests.messages import refused
from tests.models.checks import order_matters, saved_bytes, toy_model, tuned, video
from tests.models.test_trunks import FAMILIES


def size(dims, width, kernel=3):
    """Of a layer: projection, depthwise convolution, and a transformer block; then the last norm."""
    block = 12 * width**2 + 13 * width
    return sum((dim + 1) * width + (kernel + 1) * width + block for dim in dims) + 2 * width


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


@pytest.mark.parametrize("trunk", FAMILIES)
def test_the_order_of_frames_matters(trunk):
    assert order_matters("side", trunk)
    assert not order_matters("side", trunk, kernel=1)


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


def test_a_grid_shrinks_by_the_mean_of_cells():
    x = torch.arange(16.0).view(1, 1, 16, 1)
    assert shrink(x, 4).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert shrink(x, 16) is x


def test_a_kernel_without_a_middle_is_an_error():
    with refused("adapter.kernel=2"):
        toy_model("side", kernel=2)
