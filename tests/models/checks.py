"""Checks for every adapter."""

import torch
from einops import rearrange, repeat

from aim.engine.run.step import kept_by
from aim.models.classifier import build
from tests.models.test_trunks import plain
from tests.models.toys import FRAMES, SIZE, adapter, backbone, randomise, toy


def video() -> torch.Tensor:
    return torch.rand(2, 3, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def toy_model(name, trunk="clip_vit_b16", weights="random", **overrides):
    torch.manual_seed(0)
    cfg = toy(trunk, str(weights))
    return build(cfg, adapter(name, **overrides), num_classes=5, num_frames=FRAMES, size=SIZE, dropout=0.0)


def tuned(name, trunk, **overrides):
    """The number of trained parameters at full size and 8 frames, without the head."""
    with torch.device("meta"):
        cfg = adapter(name, **overrides)
        model = build(backbone(trunk), cfg, num_classes=400, num_frames=8, size=224, dropout=0.5)
    head = sum(p.numel() for p in model.head.parameters())
    return sum(p.numel() for p in model.parameters() if p.requires_grad) - head


def assert_it_starts_as_the_image_model(name, trunk, tmp_path):
    """Frame by frame, and not only because all weights are small."""
    path = tmp_path / "trunk.safetensors"
    image_model = plain(trunk, path)
    model = toy_model(name, trunk, path).eval()
    tubelet = toy(trunk).tubelet
    frames = video()[:, :, : FRAMES // tubelet]
    with torch.no_grad():
        ours = model.backbone(repeat(frames, "b c t h w -> b c (t r) h w", r=tubelet))
        theirs = rearrange(image_model(rearrange(frames, "b c t h w -> (b t) c h w")), "(b t) d -> b t d", b=2)
    assert theirs.std() > 0.01
    # A tubelet of two equal frames sums two halves of a weight: equal but for rounding.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    randomise(model)
    with torch.no_grad():
        assert (model.backbone(repeat(frames, "b c t h w -> b c (t r) h w", r=tubelet)) - theirs).abs().max() > 1e-3
    assert set(model.saved_names()) >= set(model.trainable)
    assert not [key for key in model.saved_names() if "adapters" not in key and not key.startswith("head.")]


def order_matters(name, trunk, **overrides) -> bool:
    """Whether a reversed clip gives other features than the clip, all weights being random."""
    model = toy_model(name, trunk, **overrides).eval()
    randomise(model)
    tubelet = toy(trunk).tubelet
    clip = rearrange(video(), "b c (t r) h w -> b c t r h w", r=tubelet)
    with torch.no_grad():
        forwards, backwards = (
            model.backbone(rearrange(x, "b c t r h w -> b c (t r) h w")).mean(1) for x in (clip, clip.flip(2))
        )
    difference = ((forwards - backwards).abs().max() / forwards.abs().max()).item()
    assert difference < 2e-6 or difference > 2e-5, difference
    return difference > 2e-5


def saved_bytes(model) -> int:
    """Bytes that a forward pass keeps for the backward pass, weights aside."""
    clips = video()
    return kept_by(lambda: model(clips))
