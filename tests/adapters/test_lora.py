"""LoRA's size, start and reach."""

import pytest
import torch
from torch.nn.utils import parametrize

from aim.adapters.interface import linears
from tests.messages import refused
from tests.models.checks import assert_it_starts_as_the_image_model, order_matters, toy_model, tuned
from tests.models.test_trunks import FAMILIES
from tests.models.toys import FRAMES, randomise


def test_the_size_is_the_published_one():
    # Table 2: RoBERTa-base, as wide and deep as a ViT-B, rank 8 for queries and values: 0.3 M.
    assert tuned("lora", "in21k_vit_b16", layers=["attn.q*", "attn.v*"]) == 12 * 2 * 2 * 768 * 8 == 294_912
    # Every layer: query, key, value and projection, and the two of the MLP.
    assert tuned("lora", "in21k_vit_b16") == 12 * 8 * (4 * (768 + 768) + 2 * (768 + 3072)) == 1_327_104
    assert tuned("lora", "in21k_vit_b16", rank=4, layers=["mlp.*"]) == 12 * 4 * 2 * (768 + 3072)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_it_starts_as_the_image_model(trunk, tmp_path):
    assert_it_starts_as_the_image_model("lora", trunk, tmp_path)


@pytest.mark.parametrize("trunk", FAMILIES)
@pytest.mark.parametrize("layers", ["attn.*", "mlp.*", "attn.v*"])
def test_what_is_trained_is_heard(trunk, layers):
    """Also where an attention reads its weight without calling the layer: every parameter gets a gradient."""
    model = toy_model("lora", trunk, layers=[layers])
    randomise(model)
    model(torch.rand(2, 3, FRAMES, 32, 32)).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


def test_a_part_of_qkv_changes_alone():
    model = toy_model("lora", layers=["attn.v"], rank=2, alpha=6)
    randomise(model)
    layer = model.backbone.trunk.blocks[0].attn.qkv
    low_rank = layer.parametrizations.weight[0]
    change = layer.weight - layer.parametrizations.weight.original
    assert not change[:64].any()
    torch.testing.assert_close(change[64:], 3 * low_rank.adapters["up"] @ low_rank.adapters["down"])
    assert torch.linalg.matrix_rank(change, rtol=1e-4) == 2
    changed = [
        name for name, part in linears(model.backbone.trunk.blocks[0]).items() if parametrize.is_parametrized(part)
    ]
    assert changed == ["attn.qkv"]


def test_a_layer_that_is_not_there_is_an_error():
    with refused("adapter.layers", "'atn.q'", "attn.q"):
        toy_model("lora", layers=["atn.q"])


def test_it_is_blind_to_the_order_of_frames():
    assert not order_matters("lora", "clip_vit_b16")
