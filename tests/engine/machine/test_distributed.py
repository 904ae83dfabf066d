"""Notes between ranks."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch.torch_version import TorchVersion

from aim.engine.machine import distributed, peers
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


def test_buffers_are_not_sent_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are equal on all ranks, and under precision=fp8 the whole trunk."""

    class Averaging(torch.nn.Module):
        broadcast_buffers = True

        def __init__(self, *_: object, **__: object) -> None:
            super().__init__()
            made.append(self)

    made = list[Averaging]()
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "DistributedDataParallel", Averaging)
    with torch.device("meta"):
        distributed.summing(torch.nn.Linear(1000, distributed.MANY // 1000))
    assert [each.broadcast_buffers for each in made] == [False]


def test_nccl_connects_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would connect, and fail, only in the first sum, after minutes of loading."""

    def fails(tensor: torch.Tensor) -> None:
        raise distributed.dist.DistBackendError(
            f"NCCL error in: {tensor.device}\nLast error:\nno socket interface found"
        )

    for key, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(key, value)
    store = distributed.dist.HashStore()
    monkeypatch.setattr(distributed, "rendezvous", lambda *_, **__: iter([(store, 0, 2)]))
    monkeypatch.setattr(distributed, "meeting", lambda *_: "name")
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(distributed.dist, "all_reduce", fails)
    monkeypatch.setattr(peers, "FAILING_SECONDS", 0.1)
    with refused("NCCL", "socket", "NCCL_SOCKET_IFNAME", error=RankError), distributed.start("cpu", 0):
        pass


OLD = "The NVIDIA driver on your system is too old (found version 12020). Please update\nand more"


@pytest.mark.parametrize(
    ("capability", "name", "version", "expected"),
    [
        ((7, 0), "Tesla V100", "2.15.0+cu132", ["0", "7.0", "7.5", "580", "docs/running.md", "device=cpu"]),
        ((10, 0), "B200", "2.11.0", ["0", "2.11.0", "2.15"]),
        (None, "", "2.15.0", ["12020", "580", "docs/running.md", "device=cpu"]),
    ],
)
def test_a_driver_or_gpu_that_torch_has_no_code_for_is_one_line_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int] | None,
    name: str,
    version: str,
    expected: list[str],
) -> None:
    def init() -> None:
        if capability is None:
            raise RuntimeError(OLD)

    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_100a", "compute_120"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    monkeypatch.setattr(torch, "__version__", TorchVersion(version))
    with refused("device=cuda", *expected) as caught:
        distributed.num_ranks("cuda", None)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("RANK", "0")  # one of torchrun's ranks, unchecked
    with refused("device=cuda", *expected), distributed.start("cuda", 0):
        pass


def test_a_rank_without_a_gpu_of_its_own_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "visible_gpus", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "5")
    with refused("5", "--nproc-per-node=4", "CUDA_VISIBLE_DEVICES"), distributed.start("cuda", 0):
        pass


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
    """In a store that keeps the notes of an earlier set of ranks, one more."""
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
    """On four cores. Results depend on the number of threads, and `data.workers` may change in a continued run."""
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
