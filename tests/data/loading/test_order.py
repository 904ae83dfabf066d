from typing import Any

import numpy as np
import pytest

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.loading.loader import AGAIN
from aim.data.loading.order import Listed, Shuffled, Weighted
from tests.data.loading.test_loader import TEST, copies, loader, same


def test_the_order_of_a_list_is_the_same_in_every_epoch() -> None:
    for epoch in (0, 3):
        assert Listed()(epoch, 4).tolist() == [0, 1, 2, 3]


def test_a_permutation_depends_on_the_seed_and_the_epoch() -> None:
    orders = [Shuffled(seed)(epoch, 50) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order.tolist()) for order in orders}) == 4
    for order in orders:
        assert sorted(order.tolist()) == list(range(50))
    assert np.array_equal(orders[1], Shuffled(0)(1, 50))
    assert all(order.dtype == np.int64 for order in [*orders, Listed()(0, 50)])


# 13 videos in the loader's order before the module existed. None: an empty slot.
@pytest.mark.parametrize(
    ("batch_size", "epoch", "start", "settings", "expected"),
    [
        (4, 0, 0, {}, [[6, 8, 0, 7], [4, 1, 10, 3], [12, 2, 5, 9], [11, None, None, None]]),
        (4, 1, 2, {}, [[10, 3, 4, 2], [5, None, None, None]]),
        (2, 0, 0, {"rank": 1, "world_size": 2}, [[0, 7], [10, 3], [5, 9], [None, None]]),
        (1, 3, 1, {"rank": 2, "world_size": 3, "step_size": 6}, [[8], [10], [9], [None]]),
        (4, 0, 0, TEST, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]),
        (2, 0, 1, {**TEST, "rank": 1, "world_size": 3}, [[7, 10]]),
    ],
)
def test_a_seed_gives_the_videos_that_it_always_gave(
    batch_size: int, epoch: int, start: int, settings: dict[str, Any], expected: list[list[int | None]]
) -> None:
    with loader(batch_size=batch_size, workers=0, **settings) as made:
        found = [
            [i if weight else None for i, weight in zip(batch.index.tolist(), batch.weight.tolist(), strict=True)]
            for batch in made.epoch(epoch, start)
        ]
    assert found == expected


def test_videos_come_in_proportion_to_their_weights_and_again_with_other_clips() -> None:
    weight = np.array([1.0] * 90 + [10.0] * 9 + [90.0])
    order = Weighted(0, tuple(weight.tolist()))
    counts = np.zeros(100)
    for epoch in range(200):
        places = order(epoch, 100)
        index, again = places % 100, places // 100
        times = np.bincount(index, minlength=100)
        expected = 100 * weight / weight.sum()
        assert len(places) == 100
        assert (np.abs(times - expected) < 1).all()
        assert sorted(again[index == 99].tolist()) == list(range(times[99]))
        counts += times
    assert counts / 200 == pytest.approx(expected, rel=0.35)
    assert np.array_equal(order(3, 100), Weighted(0, tuple(weight.tolist()))(3, 100))
    assert not np.array_equal(order(3, 100), order(4, 100))
    assert sorted(Weighted(0, (2.0,) * 50)(1, 50).tolist()) == list(range(50))


def test_a_video_that_comes_again_has_the_clip_of_another_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[tuple[str, int]]()
    plain = VideoDataset.read_video

    def read_video(self: VideoDataset, video: Video, epoch: int, index: int) -> Any:
        seen.append((video.path, epoch))
        return plain(self, video, epoch, index)

    monkeypatch.setattr(VideoDataset, "read_video", read_video)
    order = Weighted(0, (1.0,) * 12 + (30.0,))
    with loader(batch_size=13, workers=0, order=order, step_size=13) as made:
        batches = copies(made.epoch(5))
    assert sorted(epoch for path, epoch in seen if path == "12.mp4")[:3] == [5, 5 + AGAIN, 5 + 2 * AGAIN]
    assert len(set(seen)) == 13
    assert all(epoch == 5 for path, epoch in seen if path != "12.mp4")
    with loader(batch_size=13, workers=2, order=order, step_size=13) as made:
        assert same(batches, copies(made.epoch(5)))
