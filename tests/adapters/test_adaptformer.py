"""AdaptFormer's size, start and arithmetic."""

import pytest
import torch
from torch.nn.functional import relu

from tests.models.checks import assert_it_starts_as_the_image_model, order_matters, toy_model, tuned
from tests.models.test_trunks import FAMILIES
from tests.models.toys import randomise


def test_the_size_is_the_published_one():
    assert tuned("adaptformer", "in21k_vit_b16") == 12 * (2 * 768 * 64 + 64 + 768) == 1_189_632  # 1.19 M


@pytest.mark.parametrize("trunk", FAMILIES)
def test_it_starts_as_the_image_model(trunk, tmp_path):
    assert_it_starts_as_the_image_model("adaptformer", trunk, tmp_path)


def test_the_bottleneck_stands_beside_the_mlp():
    model = toy_model("adaptformer").double()
    randomise(model)
    block = model.backbone.trunk.blocks[1]
    x, inner, adapter = torch.randn(4, 17, 32, dtype=torch.float64), block.view.block, block.adapters["mlp"]
    with torch.no_grad():
        y = x + inner.attn(inner.norm1(x))
        z = inner.norm2(y)
        up = relu(z @ adapter.down.weight.T + adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias
        torch.testing.assert_close(block(x), y + inner.mlp(z) + 0.1 * up, rtol=1e-10, atol=1e-10)


def test_it_is_blind_to_the_order_of_frames():
    assert not order_matters("adaptformer", "clip_vit_b16")
