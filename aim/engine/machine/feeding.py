"""Asynchronous transfers to the device and back; the host stays one step ahead of the device.

The process only launches work on a GPU. A GPU whose results are awaited is idle until the next step is launched. So the
process stays a step ahead.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor

from aim.data.loading.loader import Batch
from aim.engine.machine.profiling import part

T = TypeVar("T")
Begun = Callable[[], list[Tensor]]  # waits for what was begun on the device, and gives it


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on the device.

    A GPU gets a batch, labels and weights included, while it computes the step before. On the CPU batches are passed on
    unchanged, valid until the next one is requested.
    """
    side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    while True:
        with part("waiting for data"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch if side is None else _sent(batch, side)


def _sent(batch: Batch, side: torch.cuda.Stream) -> Batch:
    """A copy of the batch on the stream's device; all work launched after this call waits for it."""
    now = torch.cuda.current_stream(side.device)

    def send(tensor: Tensor) -> Tensor:
        # A GPU can read only pinned memory on its own. torch keeps it until the copy is done; the loader's block may
        # be overwritten at once.
        sent = tensor.pin_memory().to(side.device, non_blocking=True)
        sent.record_stream(now)  # or its memory would be taken for the next batch while this stream still reads it
        return sent

    with part("copying to the device"):
        with torch.cuda.stream(side):
            sent = Batch(send(batch.video), send(batch.label), send(batch.index), send(batch.weight))
        now.wait_stream(side)
    return sent


def through(batches: Iterator[Batch], device: torch.device, of: Callable[[Tensor], Tensor]) -> Iterator[Begun]:
    """Begin to compute on the device `of` all clips "(b v) t c h w" of batches.

    Each result gives index, weight, and what it is of each clip, "b v ...".
    """
    for batch in on_device(batches, device):
        found = of(rearrange(batch.video, "b v t c h w -> (b v) t c h w"))
        yield to_host(batch.index, batch.weight, rearrange(found, "(b v) ... -> b v ...", b=len(batch.video)))


def to_host(*tensors: Tensor) -> Callable[[], list[Tensor]]:
    """Start copies from the device; the result waits for these copies, and for nothing launched after them.

    A plain `.cpu()` or `.tolist()` would also wait for the step launched in between.
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
    """The result of each read, one read late: it is requested when the next one has been started."""
    before = None
    for read in begun:
        if before is not None:
            yield before()
        before = read
    if before is not None:
        yield before()
