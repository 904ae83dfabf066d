from collections.abc import Callable, Iterator

import torch

from aim.data.loading.loader import Batch
from aim.engine.machine.feeding import on_device, one_late, to_host


def test_on_the_cpu_batches_are_passed_on_as_they_are() -> None:
    batches = [Batch(*(torch.full((2,), i) for _ in range(4))) for i in range(3)]
    passed = list(on_device(iter(batches), torch.device("cpu")))
    assert all(ours is theirs for ours, theirs in zip(passed, batches, strict=True))


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
