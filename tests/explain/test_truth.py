"""The places of the demo's shapes, by the pixels of the written videos, and whether maps find them."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, wilcoxon

from aim.data.demo.moving_shapes import MovingShapes
from aim.data.readers.pyav import PyAV
from scripts.explain_demo import points_inside, shape_in, share_inside
from tests.conftest import ROOT
from tests.toy import videos

METHODS = ("occlusion", "gradient")
FROZEN = "frozen trunk, linear head"


def test_shares_and_hits_by_hand():
    mask = torch.tensor([[[True, False], [False, False]]])
    relevance = torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]])
    assert share_inside(relevance, mask) == 0.75  # evidence against the class counts 0
    assert points_inside(relevance, mask)
    assert not points_inside(-relevance, mask)
    assert share_inside(torch.zeros(1, 2, 2), mask) == 0


def test_the_mask_is_where_the_video_has_the_shapes_colours(unbroken, toy_cache):
    source = MovingShapes(num_train=24, num_val=16, size=32, num_frames=9, seed=0)
    for path in videos(toy_cache):
        frames = PyAV()(path, range).float()
        mask = shape_in(source, "/".join(path.parts[-3:]))
        assert 0.02 < mask.float().mean() < 0.4
        # Pixels that the shape leaves or enters change by far more than those that it never covers.
        moved, never = mask[1:] ^ mask[:-1], ~mask.any(0)
        change = (frames[1:] - frames[:-1]).abs().amax(1)
        assert change[moved].mean() > 20 * change[:, never].mean() + 10


@pytest.mark.parametrize("method", METHODS)
def test_the_maps_that_the_readme_counts_find_the_shape_beyond_chance(method):
    """More than the shape's share of the pixels, and than the map of another video."""
    found = json.loads((ROOT / "scripts" / "results" / "explain.json").read_text(encoding="utf-8"))
    maps, count = found[method], len(found["videos"])
    assert count >= 24
    for chance in (found["pixels"], maps["inside_of_another"]):
        assert wilcoxon(maps["inside"], chance, alternative="greater").pvalue < 1e-4
    for share in (np.mean(found["pixels"]), np.mean(maps["hits_of_another"])):
        assert binomtest(sum(maps["hits"]), count, share, alternative="greater").pvalue < 1e-2
    assert maps["deletion_area"] < maps["deletion_by_chance"]
    assert maps["insertion_area"] > maps["insertion_by_chance"]


def test_the_order_that_the_readme_counts_matters_to_the_adapters_alone():
    order = json.loads((ROOT / "scripts" / "results" / "explain.json").read_text(encoding="utf-8"))["order"]
    aim, frozen = (
        {name: row["top1"] for name, row in model["order"].items()} for model in (order["AIM"], order[FROZEN])
    )
    assert aim["as it is"] > 95
    assert aim["reversed"] < 5
    assert max(frozen.values()) <= 50
    assert frozen["as it is"] == frozen["reversed"] == frozen["shuffled"]
