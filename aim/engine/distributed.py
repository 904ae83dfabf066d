"""Ranks: started by ourselves or by torchrun, and sums over them. The only user of torch.distributed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from aim.clock import seconds_since_start
from aim.errors import UserError

T = TypeVar("T")

INTERRUPTED = 75  # exit code: EX_TEMPFAIL of sysexits.h, try again later
NOTHING_LOST = "stopped by a signal outside of training, nothing was lost"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)  # what batch systems send before they kill, and Ctrl-C


class Interrupted(Exception):
    """A signal asked the run to stop, and its state is saved."""


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @contextmanager
    def first_on_node(self) -> Iterator[None]:
        """Let one process of each machine do something, a download say, before the others do it."""
        waits = self.size > 1 and os.environ.get("LOCAL_RANK", "0") != "0"
        if waits:
            dist.barrier()
        yield
        if self.size > 1 and not waits:
            dist.barrier()


def num_ranks(device: str, gpus: int | None) -> int:
    """How many ranks a run has: the visible GPUs, or `gpus` of them; on the CPU one, or `gpus`; or torchrun's number.

    Raises UserError for more GPUs than are visible, and for CUDA that is asked for and doesn't work.
    """
    if is_rank():
        return int(os.environ["WORLD_SIZE"])
    if gpus is not None and gpus < 1:
        raise UserError(f"gpus={gpus} is not a number of ranks; use 1 or more")
    if device == "cpu":
        return gpus or 1
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        visible = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"device=cuda, but CUDA doesn't work here ({reason}); mend it, or use device=cpu") from error
    if gpus is not None and gpus > visible:
        raise UserError(f"gpus={gpus}, but {visible} are visible; use gpus={visible}, or check CUDA_VISIBLE_DEVICES")
    return gpus or visible


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_rank() -> bool:
    """Whether a launcher, ours or torchrun, has started this process as a rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_launched() -> bool:
    """Whether `launch` has started this process: then its parent has checked everything and holds the lock."""
    return "AIM_STARTED" in os.environ


def rank() -> int:
    """The rank of this process, 0 where there are no others."""
    return int(os.environ.get("RANK", "0"))


def refuse_bare_slurm(module: str) -> None:
    """Refuse to run as one of several SLURM tasks that nobody has told about each other.

    Each would train alone and write into the same folder.
    """
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    in_step = "SLURM_STEP_ID" in os.environ
    if tasks > 1 and in_step and not is_rank():
        raise UserError(
            f"SLURM started {tasks} tasks of this command; start one a node, which starts a rank a GPU: "
            "srun --ntasks-per-node=1 torchrun --nnodes=$SLURM_NNODES --nproc-per-node=gpu --rdzv-backend=c10d "
            f"--rdzv-endpoint=$HEAD_NODE:29500 -m {module} ... (as in scripts/train.slurm)"
        )


def launch(module: str, overrides: Sequence[str], ranks: int) -> int:
    """Run `python -m module overrides` as `ranks` processes on this machine; return the exit code.

    SIGTERM and SIGUSR1 are passed on; Ctrl-C reaches the ranks by itself. When one rank fails, the others are killed:
    they would wait for it for ever. A rank that a signal ends before it can answer has lost nothing: INTERRUPTED.
    """
    asked = Stop()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common: dict[str, Any] = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    common |= {"MASTER_ADDR": "127.0.0.1", "AIM_STARTED": time.time() - seconds_since_start()}
    if "OMP_NUM_THREADS" not in os.environ:
        common["OMP_NUM_THREADS"] = max(1, num_cores() // ranks)
    children: list[subprocess.Popen[bytes]] = []

    def forward(number: int, _: FrameType | None) -> None:
        asked.asked = True
        for child in children if number != signal.SIGINT else ():
            child.send_signal(number)

    previous = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        for rank in range(ranks):
            own = {"RANK": rank, "LOCAL_RANK": rank, **common}
            environment = os.environ | {key: str(value) for key, value in own.items()}
            children.append(subprocess.Popen([sys.executable, "-m", module, *overrides], env=environment))
        while any(child.poll() is None for child in children):
            if any(child.poll() for child in children):
                time.sleep(1.0)  # the others may be about to fail with a clearer message
                break
            time.sleep(0.1)
        codes = [child.poll() for child in children]
        failed = [code for code in codes if code]
        if asked and failed and all(-code in SIGNALS for code in failed):
            print(f"aim: {NOTHING_LOST}; the same command continues", file=sys.stderr)
            return INTERRUPTED
        return INTERRUPTED if asked and INTERRUPTED in failed else next(iter(failed), 0)
    finally:
        for child in children:
            child.kill()
            child.wait()
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def start(device: str, workers: int) -> Iterator[World]:
    """Join the ranks that the environment names, or be the only one; leave them at the end.

    On a CPU torch leaves one core to each of the `workers` that decode: its threads wait for each other by spinning,
    and one that shares its core slows all the others down.
    """
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, num_cores() - workers))
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if device == "cuda" else torch.device("cpu")
    if local.type == "cuda":
        torch.cuda.set_device(local)
    if size > 1:
        # Objects and CPU tensors go by gloo, so that NCCL never sees them. Rank 0 may decode a whole test set alone.
        backend = "cpu:gloo,cuda:nccl" if local.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(hours=1))
    try:
        yield World(rank, size, local)
    finally:
        if size > 1:
            dist.destroy_process_group()


class Stop:
    """False until a signal asks to stop."""

    def __init__(self) -> None:
        self.asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def stop_signals(*, at_once: bool = False) -> Iterator[Stop]:
    """Turn SIGTERM, SIGUSR1 and the first Ctrl-C inside the block into a wish that the loop can read.

    With `at_once` the first of them raises Interrupted instead, for where there is nothing to save.
    """
    stop = Stop()

    def ask(number: int, _: FrameType | None) -> None:
        again, stop.asked = stop.asked, True
        if at_once and not again:
            raise Interrupted(NOTHING_LOST)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)  # the second one means it

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Leave the program with exit code INTERRUPTED and one line when a signal stops what is inside."""
    try:
        with stop_signals(at_once=True):
            yield
    except Interrupted as error:
        if rank() == 0:
            print(f"aim: {error}; the same command continues", file=sys.stderr)
        sys.exit(INTERRUPTED)


def sum_(tensors: Sequence[Tensor]) -> None:
    """Sum each tensor over the ranks, in place and in one message."""
    if not dist.is_initialized() or not tensors:
        return
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    dist.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, total in zip(tensors, parts, strict=True):
        tensor.copy_(total.view_as(tensor))


def broadcast_(tensors: Sequence[Tensor]) -> None:
    """Give every rank the tensors of rank 0."""
    if dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def share(value: T) -> T:
    """Rank 0's value on every rank."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
    return values[0]


def gather(value: Any) -> list[Any]:
    """The values of all ranks, in the order of ranks, on every rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
