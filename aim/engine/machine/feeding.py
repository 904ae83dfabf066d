"""Asynchronous transfers to the device and back; the host stays one step ahead of the device.

The process only launches work on a GPU. A GPU whose results are awaited is idle until the next step is launched. So the
process stays a step ahead.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
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

    A GPU of CUDA gets a batch, labels and weights included, while it computes the step before; Apple's waits for it. On
    the CPU batches are passed on unchanged, valid until the next one is requested.
    """
    side = side_stream(device) if device.type == "cuda" else None
    while True:
        with part("waiting for data"):
            batch = next(batches, None)
        if batch is None:
            return
        if side is None:
            yield batch if device.type == "cpu" else Batch(*(each.to(device) for each in vars(batch).values()))
        else:
            sent, copied = _sent(batch, side)
            yield sent
            copied.synchronize()  # done long ago; from here on the loader may overwrite the block


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all epochs and tests: what one has freed, torch keeps for no other."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def registered(blocks: Sequence[Tensor]) -> Callable[[], None]:
    """Let GPUs read these blocks of shared memory where they lie; the call of the result ends that.

    Else each batch is copied into pinned memory first, as it is where the system refuses: it may limit locked memory.
    """
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    held = [block for block in blocks if int(runtime.cudaHostRegister(block.data_ptr(), block.nbytes, 0)) == 0]
    if len(held) < len(blocks):
        with suppress(RuntimeError):
            torch.zeros(1, device="cuda")  # raises the refusal here, and not at a later kernel

    def release() -> None:
        with suppress(RuntimeError):  # of a GPU that has failed
            torch.cuda.synchronize()
            for block in held:
                runtime.cudaHostUnregister(block.data_ptr())

    return release


def _sent(batch: Batch, side: torch.cuda.Stream) -> tuple[Batch, torch.cuda.Event]:
    """A copy of the batch on the stream's device, and its end, for which all work launched after this call waits."""
    now = torch.cuda.current_stream(side.device)

    def send(tensor: Tensor) -> Tensor:
        # A GPU can read only pinned memory on its own; what isn't is copied there, and torch keeps it for as long.
        pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
        sent = pinned.to(side.device, non_blocking=True)
        sent.record_stream(now)  # or its memory would be taken for the next batch while this stream still reads it
        return sent

    with part("copying to the device"):
        with torch.cuda.stream(side):
            sent = Batch(send(batch.video), send(batch.label), send(batch.index), send(batch.weight))
        now.wait_stream(side)
    return sent, side.record_event()


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
    if all(tensor.device.type != "cuda" for tensor in tensors):
        return lambda: [tensor.cpu() for tensor in tensors]  # of Apple's GPU, which has no events here, with that wait
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
