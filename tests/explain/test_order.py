"""The orders of frames."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aim.explain.order import ORDERS, indices, of_clip, of_videos


@pytest.mark.parametrize("num_frames", [2, 3, 8, 32])
def test_each_order_is_what_it_is_called(num_frames):
    straight = list(range(num_frames))
    for seed in range(10):
        as_is, backwards, mixed, first = indices(num_frames, np.random.default_rng(seed)).tolist()
        assert as_is == straight
        assert backwards == straight[::-1]
        assert sorted(mixed) == straight
        assert num_frames == 2 or mixed not in (straight, straight[::-1])
        assert first == [0] * num_frames


def blind(video: torch.Tensor) -> torch.Tensor:
    """Sees how bright the frames are, whatever their order."""
    bright = video.double().mean((1, 2, 3, 4)) / 255
    return torch.stack([bright, 1 - bright], 1)


def seeing(video: torch.Tensor) -> torch.Tensor:
    """Says whether it gets brighter."""
    means = video.double().mean((2, 3, 4))
    return (means[:, -1] - means[:, 0]).div(8).unsqueeze(1).mul(torch.tensor([-1.0, 1.0])).softmax(1)


def rising(t: int = 4) -> torch.Tensor:
    return (50 * torch.arange(t, dtype=torch.uint8)).view(t, 1, 1, 1).expand(t, 3, 2, 2)


def test_a_model_blind_to_order_gives_one_answer_but_for_frozen_clips():
    found = of_clip(blind, rising(), 3)
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
    assert found[3, 0] == 0
    as_is, backwards, mixed, first = of_clip(seeing, rising(), 30)[:, 1].tolist()
    assert as_is == pytest.approx(1 - backwards)
    assert as_is > 0.99
    assert backwards < mixed < as_is
    assert first == 0.5


def test_a_data_sets_videos_are_counted_once_and_what_reversal_turns_them_into():
    video = torch.stack([rising(), rising().flip(0), rising(), rising()])[:, None].repeat(1, 2, 1, 1, 1, 1)
    batches = [
        SimpleNamespace(
            video=video[part], label=torch.tensor([1, 0, 0, 1])[part],
            index=torch.arange(4)[part], weight=torch.tensor([1.0, 1.0, 1.0, 0.0])[part],
        )
        for part in (slice(0, 3), slice(3, 4))
    ]  # fmt: skip
    done: list[int] = []
    found = of_videos(seeing, SimpleNamespace(epoch=lambda _: iter(batches)), done.append)  # type: ignore[arg-type]
    assert done == [3, 3]
    assert found.top1[:2] == pytest.approx([200 / 3, 100 / 3])
    assert found.changed[:2] == [0, 100]
    assert sorted(found.reversals(5)) == [(0, 1, 1, 1), (1, 0, 2, 2)]
    shown = found.as_json(["falls", "rises"])
    assert shown["videos"] == 3
    assert list(shown["order"]) == list(ORDERS)
    assert shown["reversed"][0] == {"label": "rises", "becomes": "falls", "videos": 2, "of": 2}
