"""Where the demo's shapes are, by the pixels of the videos that were written."""

import torch

from aim.data.readers.pyav import PyAV
from aim.data.sources.moving_shapes import MovingShapes
from aim.explaining.truth import points_inside, shape_in, share_inside
from tests.toy import videos


def test_shares_and_hits_by_hand():
    mask = torch.tensor([[[True, False], [False, False]]])
    relevance = torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]])
    assert share_inside(relevance, mask) == 0.75  # what speaks against the class counts for nothing
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
