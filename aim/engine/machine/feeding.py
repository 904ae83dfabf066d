"""Asynchronous transfers to the device and back; the host stays one step ahead of the device.

Work on a GPU is only begun by the process, which goes on at once. It would be idle while the process, having waited
for it, begins the next step; so the process stays a step ahead of it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from aim.data.loading.loader import Batch
from aim.engine.machine.profiling import part

T = TypeVar("T")


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on the device.

    A GPU gets one, labels and weights included, while it works on what was begun before. On the CPU they are passed on
    as they are, valid until the next is asked for.
    """
    side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    while True:
        with part("waiting for data"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch if side is None else _sent(batch, side)


def _sent(batch: Batch, side: torch.cuda.Stream) -> Batch:
    """A copy of the batch on the stream's device, which what is begun from now on waits for."""
    now = torch.cuda.current_stream(side.device)

    def send(tensor: Tensor) -> Tensor:
        # Pinned memory is what a GPU can read on its own. torch keeps it until that is over; the loader's own may be
        # overwritten at once.
        sent = tensor.pin_memory().to(side.device, non_blocking=True)
        sent.record_stream(now)  # or its memory would be taken for the next batch while this stream still reads it
        return sent

    with part("copying to the device"):
        with torch.cuda.stream(side):
            sent = Batch(send(batch.video), send(batch.label), send(batch.index), send(batch.weight))
        now.wait_stream(side)
    return sent


def to_host(*tensors: Tensor) -> Callable[[], list[Tensor]]:
    """Begin to copy tensors from the device; the result waits for these copies, and for nothing begun after them.

    A plain `.cpu()` or `.tolist()` that comes later would wait for the step begun in between as well.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return lambda: list(tensors)
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]  # to pinned memory
    copied = torch.cuda.current_stream(tensors[0].device).record_event()

    def read() -> list[Tensor]:
        copied.synchronize()
        return copies

    return read


def one_late(begun: Iterable[Callable[[], T]]) -> Iterator[T]:
    """What each of them gives, asked for when the next one has been begun."""
    before = None
    for read in begun:
        if before is not None:
            yield before()
        before = read
    if before is not None:
        yield before()
