"""ST-Adapter's size, start and sense of time."""

import pytest
import torch

from tests.messages import refused
from tests.models.checks import assert_it_starts_as_the_image_model, order_matters, toy_model, tuned
from tests.models.test_trunks import FAMILIES
from tests.models.toys import randomise


def size(dim, width, volume, depth, per_block=1):
    """Down, depthwise convolution, up, each with its bias."""
    return depth * per_block * ((dim + 1) * width + (volume + 1) * width + (width + 1) * dim)


def test_the_size_is_the_published_one():
    count = tuned("st_adapter", "clip_vit_b16")
    assert count == size(768, 384, 3, 12) == 7_110_144  # "7 M" of the paper
    assert tuned("st_adapter", "clip_vit_b16", before=["attention", "mlp"]) == 2 * count  # the public code's for SSv2
    assert tuned("st_adapter", "clip_vit_b16", kernel=[3, 3, 3]) == size(768, 384, 27, 12)


def test_the_form_of_adatad_has_a_pointwise_layer_and_a_scale():
    assert tuned("adatad", "clip_vit_b16") == size(768, 192, 3, 11) + 11 * (193 * 192 + 1)  # all blocks but the last


@pytest.mark.parametrize("trunk", FAMILIES)
def test_the_form_of_adatad_starts_as_the_image_model_and_sees_order(trunk, tmp_path):
    assert_it_starts_as_the_image_model("adatad", trunk, tmp_path)
    assert order_matters("adatad", trunk)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_it_starts_as_the_image_model(trunk, tmp_path):
    assert_it_starts_as_the_image_model("st_adapter", trunk, tmp_path)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_the_order_of_frames_matters(trunk):
    assert order_matters("st_adapter", trunk)
    assert not order_matters("st_adapter", trunk, kernel=[1, 3, 3])


@pytest.mark.parametrize("trunk", ["clip_vit_b16", "dinov2_reg_vit_s14"])
@pytest.mark.parametrize(("kernel", "reach"), [([3, 1, 1], (1, 0, 0)), ([3, 3, 1], (1, 1, 0)), ([1, 1, 3], (0, 0, 1))])
def test_a_patch_is_heard_where_the_kernel_reaches_and_never_by_the_class_token(trunk, kernel, reach):
    model = toy_model("st_adapter", trunk, kernel=kernel).double()
    randomise(model)
    adapter = model.backbone.trunk.blocks[0].adapters["attention"]
    prefix, t, h, w = model.backbone.trunk.num_prefix_tokens, 4, 4, 4
    x = torch.randn(t, prefix + h * w, 32, dtype=torch.float64)
    changed = x.clone()
    changed[1, prefix + 1 * w + 2] += 1.0  # frame 1, row 1, column 2
    changed[1, :prefix] += 1.0
    with torch.no_grad():
        difference = (adapter(changed) - changed) - (adapter(x) - x)
    assert not difference[:, :prefix].any()
    heard = difference[:, prefix:].abs().amax(-1).view(t, h, w) > 1e-9
    expected = {
        (1 + i, 1 + j, 2 + k)
        for i in range(-reach[0], reach[0] + 1)
        for j in range(-reach[1], reach[1] + 1)
        for k in range(-reach[2], reach[2] + 1)
        if 2 + k < w
    }
    assert {tuple(place) for place in heard.nonzero().tolist()} == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"before": ["norm"]}, ["adapter.before=['norm']"]),
        ({"before": []}, ["adapter.before=[]", "[attention]"]),
        ({"kernel": [2, 1, 1]}, ["adapter.kernel=[2, 1, 1]", "[3, 1, 1]"]),
    ],
)
def test_a_setting_that_makes_no_sense_is_an_error(wrong, message):
    with refused(*message):
        toy_model("st_adapter", **wrong)
