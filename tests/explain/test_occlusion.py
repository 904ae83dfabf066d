"""Occlusion where the evidence for the decision is known, and against captum's."""

from itertools import pairwise

import pytest
import torch
from captum.attr import Occlusion

from aim.engine.scores.tasks import SINGLE_LABEL
from aim.explain.occlusion import Decision, blurred, grid, of_space_time, of_time
from tests.messages import refused

GRID = grid((4, 8, 8), (4, 4, 4), 4)


def clip() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def smooth_model(video: torch.Tensor) -> torch.Tensor:
    """Probabilities that depend on all pixels."""
    weight = torch.randn(3, *video.shape[1:], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return torch.einsum("k t c h w, b t c h w -> b k", weight, video.double() / 255).div(20).softmax(1)


def one_spot(video: torch.Tensor) -> torch.Tensor:
    """The brighter the upper left cell of the third frame, the surer of class 1."""
    bright = video[:, 2, :, :2, :2].double().mean((1, 2, 3)) / 255
    return torch.stack([-bright, bright], 1).softmax(1)


def of(predict, video=None, filling=None, batch_size=5) -> Decision:
    video = clip() if video is None else video
    return Decision(predict, video, 1, GRID, torch.zeros_like(video) if filling is None else filling, batch_size)


def test_evidence_is_the_logits_lead_and_never_saturates():
    logits = torch.tensor([[1.0, 3.0, -2.0], [0.0, 40.0, 1.0]], dtype=torch.float64)
    expected = logits[:, 1] - torch.stack([logits[:, 0], logits[:, 2]], 1).logsumexp(1)
    torch.testing.assert_close(SINGLE_LABEL.evidence(logits.softmax(1), 1), expected)
    assert SINGLE_LABEL.evidence(logits.float().softmax(1), 1)[1] > 38  # where 1 - p is 0


def test_space_time_occlusion_is_captums():
    decision = of(smooth_model, filling=blurred(clip()))

    def forward(video: torch.Tensor) -> torch.Tensor:
        return SINGLE_LABEL.evidence(smooth_model(video), 1)

    expected = Occlusion(forward).attribute(
        clip()[None].double(),
        sliding_window_shapes=(2, 3, 4, 4),
        strides=(1, 1, 2, 2),
        baselines=decision.filling[None].double(),
    )
    found = GRID.spread(of_space_time(decision))
    torch.testing.assert_close(found.float(), expected[0, :, 0].float(), rtol=1e-5, atol=1e-6)
    assert found.std() > 1e-3


def test_what_alone_counts_is_found():
    video = torch.full((4, 3, 8, 8), 255, dtype=torch.uint8)
    relevance = of_space_time(of(one_spot, video))
    assert relevance[2, 0, 0] == relevance.max()
    assert relevance[0].abs().max() == 0  # no window over it reaches the third frame
    assert relevance[:, 2:].abs().max() == relevance[:, :, 2:].abs().max() == 0
    torch.testing.assert_close(relevance[2, 0, 0].double(), torch.tensor(2.0, dtype=torch.float64))


def test_the_frame_that_brings_something_new_is_found():
    video = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    video[2:] = 255
    assert of_time(of(one_spot, video)).tolist() == pytest.approx([0, 0, 2, 0])  # the third looks like the second
    still = of(one_spot, clip()).still()
    for i, instead in enumerate((1, 0, 1, 2)):
        assert torch.equal(still[i, i], clip()[instead])
        assert torch.equal(still[i, [j for j in range(4) if j != i]], clip()[[j for j in range(4) if j != i]])


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batches_change_nothing(batch_size):
    expected = of_space_time(of(smooth_model))
    torch.testing.assert_close(of_space_time(of(smooth_model, batch_size=batch_size)), expected)


@pytest.mark.parametrize(
    ("pixels", "tokens", "cells", "expected", "multiple"),
    [
        ((8, 224, 224), (8, 14, 14), 8, (8, 8, 8), (1, 16)),  # ViT/16
        ((8, 518, 518), (8, 37, 37), 8, (8, 8, 8), (1, 14)),  # DINOv2
        ((32, 224, 224), (16, 7, 7), 8, (8, 8, 8), (4, 1)),  # a Swin's tubelets
        ((8, 64, 64), (8, 4, 4), 8, (8, 8, 8), (1, 8)),  # the demo: halves of tokens
        ((1, 224, 224), (1, 14, 14), 4, (1, 4, 4), (1, 16)),
        ((8, 224, 224), (8, 14, 14), None, (8, 14, 14), (1, 16)),
        ((4, 6, 6), (4, 2, 2), 8, (4, 6, 6), (1, 1)),
    ],
)
def test_cells_are_whole_tokens_where_there_are_enough(pixels, tokens, cells, expected, multiple):
    found = grid(pixels, tokens, cells)
    assert found.shape == expected
    for size, borders, unit in zip(pixels, found.borders, (multiple[0], multiple[1], multiple[1]), strict=True):
        assert borders[0] == 0
        assert borders[-1] == size
        assert all(a < b and b % unit == 0 for a, b in pairwise(borders))
    assert found.spread(torch.zeros(found.shape)).shape == pixels
    assert found.windows().any(0).all()


def test_a_single_cell_is_an_error():
    with refused("cells=1", "clip", "2"):
        grid((8, 64, 64), (8, 4, 4), 1)
