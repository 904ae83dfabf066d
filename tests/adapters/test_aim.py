"""AIM's blocks against the second implementation of reference.py, and their sizes against the published ones."""

import pytest
import torch

from aim.adapters.aim import chosen
from aim.adapters.drop_path import DropPath
from aim.models.classifier import build
from aim.models.flops import gmacs_per_view
from tests.messages import refused
from tests.models.reference import aim_vit
from tests.models.toys import FRAMES, SIZE, adapter, backbone, randomise, toy

SSV2 = {"scale": 1.0, "temporal_in": True}
VARIANTS = [
    {},
    SSV2,
    {"temporal": False},
    {"spatial": False, "joint": False},
    {"temporal": False, "spatial": False},
    {"blocks": "first 1"},
    {"blocks": "every 2", "ratio": 0.125},
]


def video(dtype=torch.float64):
    return torch.rand(2, 3, FRAMES, SIZE, SIZE, dtype=dtype, generator=torch.Generator().manual_seed(1))


def toy_model(trunk="clip_vit_b16", name="aim", **overrides):
    torch.manual_seed(0)
    return build(toy(trunk), adapter(name, **overrides), num_classes=5, num_frames=FRAMES, size=SIZE, dropout=0.0)


def full_model(trunk, num_classes, num_frames, name="aim", **overrides):
    with torch.device("meta"):
        return build(
            backbone(trunk),
            adapter(name, **overrides),
            num_classes=num_classes,
            num_frames=num_frames,
            size=224,
            dropout=0.5,
        )


def tuned(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("trunk", ["clip_vit_b16", "in21k_vit_b16"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_model_equals_the_second_implementation(trunk, variant):
    model = toy_model(trunk, **variant).double().eval()
    randomise(model)
    clip = trunk.startswith("clip")
    with torch.no_grad():
        ours = model(video())
        scale = adapter(**variant).scale
        theirs = torch.stack([aim_vit(model.state_dict(), v, 2, scale, clip, 1e-5 if clip else 1e-6) for v in video()])
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if name.endswith("norm1.weight"))[0] += 0.1
        assert (model(video()) - theirs).abs().max() > 1e-6


def test_the_size_of_swin_is_the_published_one():
    assert tuned(full_model("swin_b", 400, 32)) == 9_172_080


def aim_count(dim, depth, classes, frames, adapters, ratio=0.25):
    """AIM's size by formula: bottlenecks, temporal embedding, last norm and head of a ViT."""
    hidden = int(dim * ratio)
    bottleneck = 2 * dim * hidden + hidden + dim
    return depth * adapters * bottleneck + frames * dim + 2 * dim + (dim + 1) * classes


@pytest.mark.parametrize("ratio", [0.0625, 0.125, 0.25, 0.5])
def test_the_size_by_bottleneck_ratio(ratio):
    model = full_model("clip_vit_b16", 400, 8, ratio=ratio)
    assert tuned(model) == aim_count(768, 12, 400, 8, adapters=3, ratio=ratio)


@pytest.mark.parametrize("blocks", ["first 6", "last 6", "every 2"])
def test_half_of_the_blocks_have_half_of_the_adapters(blocks):
    model = full_model("clip_vit_b16", 400, 8, blocks=blocks)
    assert tuned(model) == aim_count(768, 6, 400, 8, adapters=3)


# Table 1 of the paper, SSv2, in millions.
LADDER = [
    ({"name": "none"}, 0.1),
    ({"temporal": False, "joint": False}, 3.7),
    ({**SSV2, "joint": False}, 10.8),
    (SSV2, 14.3),
]


@pytest.mark.parametrize(("settings", "millions"), LADDER)
def test_the_components_have_the_published_sizes(settings, millions):
    assert round(tuned(full_model("in21k_vit_b16", 174, 8, **settings)) / 1e6, 1) == millions


def test_a_linear_probe_trains_the_head_alone():
    assert full_model("clip_vit_b16", 174, 8, name="none").trainable == ["head.weight", "head.bias"]


def test_timesformer_has_the_published_size():
    assert round(tuned(full_model("in21k_vit_b16", 174, 8, name="timesformer")) / 1e6) == 121


def test_multiply_adds_do_not_depend_on_where_the_model_is():
    with torch.device("meta"):
        meta = toy_model()
    assert gmacs_per_view(toy_model()) == gmacs_per_view(meta) > 0


def test_blocks_are_chosen_by_words():
    assert list(chosen("all", 6)) == [0, 1, 2, 3, 4, 5]
    assert list(chosen("first 2", 6)) == [0, 1]
    assert list(chosen("last 2", 6)) == [4, 5]
    assert list(chosen("every 2", 6)) == [1, 3, 5]
    for wrong in ("some", "last", "last 7", "first 0", "every x", "all 2"):
        with refused("adapter.blocks", "'last n'", "'every n'"):
            chosen(wrong, 6)


@pytest.mark.parametrize("shape", [(3, 4, 6, 8), (3, 4, 5, 7, 8)], ids=["vit", "swin"])
@pytest.mark.parametrize(
    ("axis", "varies"),
    [("clip", "b"), ("frame", "bt"), ("position", "n"), ("clip_position", "bn")],
)
def test_drop_path_draws_along_the_axis_it_names(shape, axis, varies):
    torch.manual_seed(0)
    b, t, *n, d = shape
    drop = DropPath(0.5, axis, t).train()
    y = drop(torch.ones(b * t, *n, d)).reshape(b, t, -1, d)
    assert set(y.unique().tolist()) == {0.0, 2.0}  # what stays is scaled up
    found = "".join(letter for letter, dim in zip("btnd", range(4), strict=True) if (y.amax(dim) != y.amin(dim)).any())
    assert found == varies
    assert torch.equal(drop.eval()(torch.ones(b * t, *n, d)), torch.ones(b * t, *n, d))


@pytest.mark.parametrize(
    ("trunk", "temporal", "joint"),
    [
        ("clip_vit_b16", "position", "position"),
        ("in21k_vit_b16", "frame", "frame"),
        ("swin_b", "clip_position", "frame"),
    ],
)
def test_the_published_axes_belong_to_the_trunk(trunk, temporal, joint):
    block = [m for m in toy_model(trunk).modules() if type(m).__name__ == "AIMBlock"][-1]
    assert (block.drop_temporal.axis, block.drop_joint.axis) == (temporal, joint)
    assert block.drop_joint.rate == pytest.approx(0.2)
    block = [m for m in toy_model(trunk, drop_path_axis="clip").modules() if type(m).__name__ == "AIMBlock"][-1]
    assert (block.drop_temporal.axis, block.drop_joint.axis) == ("clip", "clip")
    with refused("drop_path_axis='sample'"):
        toy_model(trunk, drop_path_axis="sample")


def test_adapters_start_as_nothing_and_small():
    model = toy_model()
    for name, parameter in model.named_parameters():
        if ".adapters." in name and ".down.weight" not in name:
            assert not parameter.any(), name
        elif ".adapters." in name:
            assert 0.01 < parameter.std() < 0.03, name
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=0.2)
    assert not model.head.bias.any()
