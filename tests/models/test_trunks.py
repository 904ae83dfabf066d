"""Every image trunk of configs/backbone, at toy size: a new YAML is tested by being there."""

import copy
from dataclasses import replace

import pytest
import timm
import torch
from einops import rearrange, repeat
from safetensors.torch import save_file

from aim.models.classifier import build, plainly
from tests.messages import refused
from tests.models.toys import FRAMES, SIZE, adapter, backbone, composed, image_trunks, randomise, toy

TRUNKS = image_trunks()
PRETRAINED = [name for name in TRUNKS if composed("backbone", name).weights == "pretrained"]


# One of every family: class token, registers and layer scale, rotary positions, attention pooling, windows.
FAMILIES = ["clip_vit_b16", "dinov2_reg_vit_s14", "dinov3_vit_s16", "eva02_vit_b14", "siglip2_vit_b16", "swin_t"]


def video(frames: int = FRAMES) -> torch.Tensor:
    return torch.rand(2, 3, frames, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def plain(name, path=None):
    """The image model as timm has it, its random weights also written to `path`."""
    cfg = toy(name)
    trunk = timm.create_model(cfg.name, num_classes=0, **cfg.options).eval()
    randomise(trunk)
    if path:
        save_file(trunk.state_dict(), path)
    return trunk


def built(name, weights="random", adapter_config=None, frames=FRAMES):
    cfg = toy(name, str(weights))
    return build(cfg, adapter_config or adapter(), num_classes=5, num_frames=frames, size=SIZE, dropout=0.0)


@pytest.mark.parametrize("name", PRETRAINED)
def test_timm_has_weights_under_the_name(name):
    assert backbone(name).name in timm.list_pretrained(backbone(name).name)


@pytest.mark.parametrize("name", PRETRAINED)
def test_constants_are_those_of_the_weights(name):
    cfg = timm.get_pretrained_cfg(backbone(name).name)
    assert (tuple(backbone(name).mean), tuple(backbone(name).std)) == (cfg.mean, cfg.std)


@pytest.mark.parametrize("name", TRUNKS)
def test_a_received_file_may_set_what_ours_set(name):
    for settings in (backbone(name), toy(name)):
        settings.check_received(vars(settings))


@pytest.mark.parametrize("name", TRUNKS)
def test_the_model_starts_as_the_image_model_frame_by_frame(name, tmp_path):
    trunk = plain(name, tmp_path / "trunk.safetensors")
    model = built(name, tmp_path / "trunk.safetensors").eval()
    tubelet = toy(name).tubelet
    frames = video(FRAMES // tubelet)
    with torch.no_grad(), plainly(model):
        ours = model.backbone(repeat(frames, "b c t h w -> b c (t r) h w", r=tubelet))
        theirs = trunk(rearrange(frames, "b c t h w -> (b t) c h w"))
    theirs = rearrange(theirs, "(b t) d -> b t d", b=2)
    assert theirs.std() > 0.01
    # A tubelet of two equal frames sums two halves of a weight: equal but for rounding.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0 if tubelet == 1 else 1e-5)


@pytest.mark.parametrize("name", TRUNKS)
def test_one_step_changes_exactly_what_is_trainable(name):
    model = built(name, adapter_config=adapter(drop_path=0.0))
    randomise(model)
    before = copy.deepcopy(model.state_dict())
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    torch.nn.functional.cross_entropy(model(video()), torch.tensor([0, 1])).backward()
    optimizer.step()
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == set(model.trainable)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_frozen_trunk_is_deterministic_in_training(name):
    model = built(name, adapter_config=adapter("none")).train()
    assert torch.equal(model(video()), model(video()))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_order_of_frames_matters_with_temporal_adapters_alone(name):
    order = [2, 3, 0, 1]  # whole tubelets
    for temporal in (True, False):
        model = built(name, adapter_config=adapter(temporal=temporal)).eval()
        randomise(model)
        with torch.no_grad():
            ordered, shuffled = (model.backbone(x).mean(1) for x in (video(), video()[:, :, order]))
        difference = ((ordered - shuffled).abs().max() / ordered.abs().max()).item()
        assert (difference > 2e-5) if temporal else (difference < 2e-6), difference


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "swin_t"])
def test_attention_over_time_has_no_positions(name):
    """Rotary positions are of space alone: permuted frames give permuted features."""
    view = built(name).backbone.trunk.blocks[0].view
    randomise(view)
    x = torch.randn(2 * FRAMES, 5, 32, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 3, 1, 6, 4, 7, 5])  # within each of the two clips
    with torch.no_grad():
        torch.testing.assert_close(view.attend_time(x[order]), view.attend_time(x)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_close_to_float32(name):
    model = built(name).eval()
    randomise(model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = model.backbone(video()).float()
    with torch.no_grad():
        exact = model.backbone(video())
    assert (rounded - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_saved_is_what_the_trunk_does_not_give(name, tmp_path):
    plain(name, tmp_path / "trunk.safetensors")
    model = built(name, tmp_path / "trunk.safetensors")
    saved = set(model.saved_names())
    assert saved == set(model.trainable) | {key for key in model.state_dict() if key.endswith("temporal_bias")}
    assert set(built(name).saved_names()) == set(model.state_dict())  # a random trunk is in no file


def test_openai_weights_need_the_quickgelu_name():
    with refused("vit_base_patch16_clip_quickgelu_224", "backbone.name='vit_base_patch16_clip_224.openai'"):
        replace(backbone("clip_vit_b16"), name="vit_base_patch16_clip_224.openai")
