from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from aim.data.loading.loader import Batch
from aim.engine.machine import feeding
from aim.engine.machine.feeding import on_device, one_late, registered, to_host


def test_on_the_cpu_batches_are_passed_on_as_they_are() -> None:
    batches = [Batch(*(torch.full((2,), i) for _ in range(4))) for i in range(3)]
    passed = list(on_device(iter(batches), torch.device("cpu")))
    assert all(ours is theirs for ours, theirs in zip(passed, batches, strict=True))


def test_the_loader_goes_on_when_the_copy_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The block may be overwritten from then on, and the copy reads it in place."""
    events = list[str]()

    def batches() -> Iterator[int]:
        for i in range(2):
            events.append(f"fills {i}")
            yield i

    def sent(batch: int, side: object) -> tuple[int, SimpleNamespace]:
        return batch, SimpleNamespace(synchronize=lambda: events.append(f"copied {batch}"))

    monkeypatch.setattr(feeding, "side_stream", lambda device: device)
    monkeypatch.setattr(feeding, "_sent", sent)
    for batch in on_device(batches(), torch.device("cuda")):  # type: ignore[arg-type]
        events.append(f"step {batch}")
    assert events == ["fills 0", "step 0", "copied 0", "fills 1", "step 1", "copied 1"]


def test_all_epochs_copy_by_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch keeps the memory of batches for their stream: with one an epoch, that of 32 of them."""
    made = list[torch.device]()
    monkeypatch.setattr(torch.cuda, "Stream", made.append)
    monkeypatch.setattr(feeding, "side_stream", cache(feeding.side_stream.__wrapped__))
    for _ in range(2):
        assert [*on_device(iter(()), torch.device("cuda"))] == []
    assert made == [torch.device("cuda")]


@pytest.mark.parametrize("limit", [2, 1])
def test_blocks_are_registered_as_far_as_the_system_allows_and_let_go(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    held, cleared = list[int](), list[object]()

    def register(address: int, size: int, flags: int) -> int:
        assert (size, flags) == (12, 0)
        if len(held) == limit:
            return 801
        held.append(address)
        return 0

    runtime = SimpleNamespace(cudaHostRegister=register, cudaHostUnregister=held.remove)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: cleared.append(device))
    blocks = [torch.ones(3) for _ in range(2)]
    release = registered(blocks)
    assert held == [block.data_ptr() for block in blocks[:limit]]
    assert cleared == ["cuda"] * (2 - limit)
    release()
    assert held == []


def test_on_the_cpu_there_is_nothing_to_fetch() -> None:
    a, b = torch.zeros(2), torch.ones(3)
    fetched = to_host(a, b)()
    assert fetched[0] is a
    assert fetched[1] is b


def test_what_was_begun_is_read_when_the_next_has_been_begun() -> None:
    events = []

    def begin() -> Iterator[Callable[[], int]]:
        for i in range(3):
            events.append(f"begin {i}")
            yield lambda i=i: events.append(f"read {i}") or i

    assert list(one_late(begin())) == [0, 1, 2]
    assert events == ["begin 0", "begin 1", "read 0", "begin 2", "read 1", "read 2"]
    assert list(one_late([])) == []
