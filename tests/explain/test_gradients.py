"""Gradient x activation against captum's, and for every family of trunks and adapters."""

import pytest
import torch
from captum.attr import LayerGradientXActivation

from aim.engine.scores.tasks import SINGLE_LABEL
from aim.explain.gradients import gradient_x_activation
from tests.models.checks import toy_model
from tests.models.test_trunks import FAMILIES
from tests.models.toys import FRAMES, SIZE, names, randomise


def clip() -> torch.Tensor:
    return torch.randint(0, 256, (FRAMES, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def model_of(adapter, trunk="clip_vit_b16"):
    model = toy_model(adapter, trunk).eval()
    randomise(model)
    return model


def test_it_is_captums_product():
    model = model_of("aim")
    oracle = LayerGradientXActivation(
        lambda video: SINGLE_LABEL.evidence(model(video).double().softmax(1), 3), model.backbone.blocks[-1]
    )
    product = oracle.attribute(model.preprocess(clip()[None]), attribute_to_layer_input=True)
    expected = product[:, model.backbone.num_prefix_tokens :].norm(dim=-1).view(FRAMES, 4, 4)
    found = gradient_x_activation(model, clip(), 3)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-6)
    assert found.std() > 0.01 * found.mean()
    assert not found.requires_grad  # it would keep the activations


def some(of: list[str], first: list[str]) -> list[object]:
    """The first few; the others are slow tests."""
    return [name if name in first else pytest.param(name, marks=pytest.mark.slow) for name in of]


def moved_by(model, found):
    """Whether the map of another clip is another, and finite."""
    other = gradient_x_activation(model, clip().flip(0), 1)
    return bool(found.isfinite().all()) and not torch.allclose(found, other)


@pytest.mark.parametrize("trunk", some(FAMILIES, ["dinov2_reg_vit_s14", "swin_t"]))
def test_every_family_of_trunks_has_a_map(trunk):
    model = model_of("aim", trunk)
    found = gradient_x_activation(model, clip(), 1)
    assert found.shape == model.backbone.grid
    assert moved_by(model, found)


@pytest.mark.parametrize("name", some(names("adapter"), ["none", "side", "attentive_probe"]))
def test_every_adapter_has_a_map(name):
    model = model_of(name)
    found = gradient_x_activation(model, clip(), 1)
    assert found.shape == (FRAMES, 4, 4)
    assert moved_by(model, found)


def test_a_readout_of_stages_has_a_map():
    model = model_of("side", "swin_t")
    found = gradient_x_activation(model, clip(), 1)
    assert found.shape == model.backbone.grid == (FRAMES // 2, 4, 4)
    assert moved_by(model, found)
