"""The demo's space-time trunk: its file, its training clips, and its start from the image trunk."""

import runpy
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange, repeat

from aim.models.families import FAMILIES
from aim.models.trunk import load_trunk
from aim.weights.trunk import fingerprint, read_tensors, weights_file
from tests.conftest import ROOT
from tests.models.toys import backbone


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return runpy.run_path(str(ROOT / "scripts" / "pretrain_video_trunk.py"))


def test_its_file_is_small_and_all_of_the_trunk() -> None:
    own = backbone("video_demo", None)
    trunk = load_trunk(own.name, own.weights, 64, own.options, FAMILIES)
    path = weights_file(own.weights)
    assert path.stat().st_size < 4e6
    assert trunk.fingerprint == fingerprint(read_tensors(path))
    # Four blocks of 12 d^2 + 13 d, a patch of 2 x 16 x 16 x 3 pixels, the last norm.
    assert sum(x.numel() for x in trunk.module.parameters()) == 4 * (12 * 128**2 + 13 * 128) + 1537 * 128 + 256


def test_a_clip_shows_what_is_said_of_it(script: dict[str, Any]) -> None:
    """The middle of a shape's pixels is near its place, in each frame."""
    clips = script["draw_clips"](np.random.default_rng(0), 20)
    body = clips.mask[:, :, 0]
    inside = ((clips.pose[..., :2] / 4).abs() < 0.25).all(-1)  # far from the edges, which would cut a shape
    at = (torch.arange(64) + 0.5) / 64 - 0.5
    across, down = (body.sum(axis) @ at / body.sum((2, 3)) for axis in (2, 3))
    away = (torch.stack([across, down], -1) - clips.pose[..., :2] / 4).norm(dim=-1)[inside]
    assert inside.sum() > 40
    assert away.max() < 0.5 * 0.3  # a shape's own middle isn't that of its circle
    assert (clips.pose[:, 1:] - clips.pose[:, :-1]).abs().mean((0, 1)).min() > 0.01  # all of it moves


def test_one_tubelet_at_most_is_hidden(script: dict[str, Any]) -> None:
    hidden = script["hide"](np.random.default_rng(0), 400)
    assert set(hidden.sum(1).tolist()) == {0, 1}
    assert 0.4 < hidden.any(1).float().mean() < 0.6
    assert (hidden.sum(0) > 30).all()


def test_at_first_it_sees_two_equal_frames_as_the_image_trunk_sees_one(script: dict[str, Any]) -> None:
    images = script["draw_clips"](np.random.default_rng(0), 8).video[:, 0]
    config = backbone("video_demo", None)
    trunk = script["FAMILY"].models[config.name](**config.options)
    script["start_from_stills"](trunk, images)
    own = backbone("demo", None)
    still = load_trunk(own.name, own.weights, 64, own.options, FAMILIES).module
    pixels = rearrange(images, "b h w c -> b c h w").float() / 127.5 - 1
    with torch.no_grad():
        ours = rearrange(trunk.patch_embed(repeat(pixels, "b c h w -> b c p h w", p=2)), "b d t h w -> b (t h w) d")
        theirs = still.norm_pre(still.patch_embed(pixels))
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.8
    assert torch.equal(trunk.blocks[3].mlp.fc1.weight, still.blocks[3].mlp.fc1.weight)
