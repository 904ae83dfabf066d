from typing import Any

import numpy as np
import pytest

from aim.data.loading.order import Listed, Shuffled
from tests.data.loading.test_loader import TEST, loader


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


# Of 13 videos, as the loader gave them before orders had a module of their own. None: an empty slot.
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
