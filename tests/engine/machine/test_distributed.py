"""What ranks tell each other."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from aim.engine.machine import distributed
from aim.ground.errors import RankError
from tests.messages import refused
from tests.ranks import start


@pytest.mark.slow
def test_gradients_in_buckets_are_those_of_one_message(tmp_path: Path) -> None:
    process = start("buckets")
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (0, "alike\n" * 2), stderr


def test_few_gradients_go_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    with torch.device("meta"):
        model = torch.nn.Linear(1000, distributed.MANY // 1001)
    assert distributed.summing(model) is None


def test_alone_everything_is_shared_already() -> None:
    assert distributed.share({"a": 1}) == {"a": 1}
    assert distributed.gather(3) == [3]


def test_ranks_with_other_data_or_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {"data_hash": "a", "checkpoint": "b"}
    monkeypatch.setattr(distributed, "gather", lambda value: [value, value])
    distributed.agree(mine)
    monkeypatch.setattr(distributed, "gather", lambda value: [value, value, {**value, "checkpoint": "c"}])
    with refused("2", "0", "checkpoint"):
        distributed.agree(mine)


def test_ranks_that_meet_get_a_name_that_nobody_had_before() -> None:
    """In a store in which an earlier set of ranks, one more, has left all it ever wrote."""
    store, names = distributed.dist.HashStore(), list[set[str]]()
    for size in (3, 2, 2):
        found = list[str]()

        def meet(rank: int, size: int = size, found: list[str] = found) -> None:
            found.append(distributed.meeting(store, rank, size))

        ranks = [threading.Thread(target=meet, args=[rank], daemon=True) for rank in range(size)]
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(60)
        assert len(found) == size
        names.append(set(found))
    assert [len(each) for each in names] == [1, 1, 1]
    assert len(set.union(*names)) == 3


def test_a_rank_that_was_there_before_and_does_not_come_again_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = distributed.dist.HashStore()
    distributed.PrefixStore("aim/None", store).set("here/1", "an earlier one")
    monkeypatch.setattr(distributed, "COLLECTIVE_TIMEOUT", timedelta(seconds=0.1))
    with refused("1", "0:00:00.100000", error=distributed.dist.DistStoreError):
        distributed.meeting(store, 0, 2)


def test_ranks_that_do_not_meet_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(*_: object, **__: object) -> None:
        raise distributed.dist.DistNetworkError("timed out after 600 seconds\nand a page of details")

    monkeypatch.setattr(distributed, "rendezvous", alone)
    for key, value in (("RANK", "3"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(key, value)
    with (
        refused("3", "seconds", "command", error=RankError) as caught,
        distributed.start("cpu", 0),
    ):
        pass
    assert caught.value.code == 1


@pytest.mark.parametrize(("spins", "workers", "expected"), [("9", 0, 4), ("9", 9, 4), (None, 1, 3), (None, 9, 1)])
def test_threads_that_sleep_share_their_cores_and_those_that_spin_leave_some(
    monkeypatch: pytest.MonkeyPatch, spins: str | None, workers: int, expected: int
) -> None:
    """On four cores. Results depend on the number of threads, and `data.workers` may change in a run that goes on."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if spins:
        monkeypatch.setenv("GOMP_SPINCOUNT", spins)
    monkeypatch.setattr(distributed, "num_cores", lambda: 4)
    chosen = list[int]()
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    with distributed.start("cpu", workers):
        assert chosen == [expected]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # somebody knows better
    with distributed.start("cpu", workers):
        assert chosen == [expected]
