"""The attentive probe's size, sense of time and distance from the trunk."""

import pytest
import torch

from aim.adapters.attentive_probe import AttentivePooler, num_heads
from tests.messages import refused
from tests.models.checks import order_matters, saved_bytes, toy_model, tuned, video
from tests.models.test_trunks import FAMILIES
from tests.models.toys import randomise


def size(dim, frames, depth):
    """Of the pooler: query, q, k, v, projection, norm and MLP; of a block: the same with two norms and no query."""
    pooler = dim + 4 * (dim + 1) * dim + 2 * dim + (8 * dim + 5) * dim
    block = 4 * (dim + 1) * dim + 4 * dim + (8 * dim + 5) * dim
    return frames * dim + (depth - 1) * block + 2 * dim + pooler


@pytest.mark.parametrize(
    ("trunk", "dim", "depth"), [("clip_vit_b16", 768, 1), ("clip_vit_l14", 1024, 4), ("swin_b", 1024, 1)]
)
def test_the_size_by_formula(trunk, dim, depth):
    """V-JEPA 2 has depth 4; no paper's number is known, and its pooler lacks one projection, (dim + 1) * dim."""
    frames = 4 if trunk == "swin_b" else 8  # tubelets
    assert tuned("attentive_probe", trunk, depth=depth) == size(dim, frames, depth)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_the_order_of_frames_matters(trunk):
    assert order_matters("attentive_probe", trunk)


def test_without_its_embedding_of_time_it_is_blind_to_order():
    model = toy_model("attentive_probe", depth=2).eval()
    with torch.no_grad():
        assert (model(video()) - model(video().flip(2))).abs().max() > 1e-7
        model.backbone.adapters["readout"].time.zero_()
        torch.testing.assert_close(model(video()), model(video().flip(2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_the_trunk_keeps_nothing_for_the_backward_pass(trunk):
    model = toy_model("attentive_probe", trunk)
    seen = []
    model.backbone.adapters["readout"].register_forward_pre_hook(lambda _, inputs: seen.extend([*inputs[0], inputs[1]]))
    assert saved_bytes(model) > 0
    assert seen
    assert not any(tokens.requires_grad for tokens in seen)


def test_the_pooler_and_its_gradients_are_those_of_timm():
    probe = AttentivePooler(140, num_frames=2, depth=1).double()  # two heads
    randomise(probe)
    parameters = dict(probe.named_parameters())
    x = torch.randn(2, 2, 5, 140, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = probe.pool(probe.norm((x + probe.time[:, None]).flatten(1, 2)))
    found = probe([], x)[:, 0]
    torch.testing.assert_close(found, expected)
    pairs = zip(*(torch.autograd.grad(y.square().sum(), parameters.values()) for y in (found, expected)), strict=True)
    for name, (ours, timms) in zip(parameters, pairs, strict=True):
        torch.testing.assert_close(ours, timms, msg=lambda text, name=name: f"{name}: {text}")


def test_heads_divide_the_width():
    assert [num_heads(dim) for dim in (8, 128, 200, 768, 1152)] == [1, 2, 2, 12, 18]


def test_a_depth_of_zero_is_an_error():
    with refused("adapter.depth=0", "1"):
        toy_model("attentive_probe", depth=0)
