"""This process among its ranks, with any launcher, and collectives."""

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from aim.engine.machine.peers import Peers
from aim.ground.errors import RankError, UserError, say
from aim.ground.signals import fatal_signals
from aim.models.freeze import num_parameters

T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(minutes=10)  # then a rank hangs, or its machine is gone without a word
PATIENCE = timedelta(hours=2)  # where ranks may be far apart: one downloads a trunk, or tests on a slower disk
MANY = 50_000_000  # trained numbers, 200 MB of gradients; AIM in a ViT-L has 38 M
# For drivers before 580, which torch for CUDA 13 needs, and GPUs that it has no code for.
OLDER_CUDA = "install NVIDIA's driver 580 or newer, or torch for an older CUDA (docs/running.md)"
# cuDNN before 9.26 is silently wrong there for one query (pytorch's issue 193893), and torch 2.15 keeps off it.
BLACKWELL, OF_BLACKWELL = 10, "2.15"
MEETING_SECONDS = 0.05  # between looks for ranks that aren't there yet


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device
    peers: Peers | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @contextmanager
    def first_on_node(self) -> Iterator[None]:
        """Let one process of each machine do something, a download say, before the others do it."""
        waits = self.size > 1 and os.environ.get("LOCAL_RANK", "0") != "0"
        if waits:
            meet()
        yield
        if not waits:
            meet()


def num_ranks(device: str, gpus: int | None) -> int:
    """How many ranks a run has: the visible GPUs, or `gpus` of them; on the CPU one, or `gpus`; or torchrun's number.

    Raises UserError for more GPUs than are visible, and for CUDA that is asked for and doesn't work.
    """
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("device=mps is the GPU of an Apple processor, and torch finds none here; use device=auto")
    if device == "mps" and (gpus or int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise UserError("device=mps is one GPU, and this is a run of several ranks; use gpus=1, or device=cpu")
    if is_rank():
        here = os.environ.get("LOCAL_WORLD_SIZE", str(gpus))
        if gpus is not None and str(gpus) != here:
            raise UserError(f"gpus={gpus}, but torchrun has started {here} ranks on this machine; leave gpus out")
        return int(os.environ["WORLD_SIZE"])
    if gpus is not None and gpus < 1:
        raise UserError(f"gpus={gpus} is not a number of ranks; use 1 or more")
    if device != "cuda":
        return gpus or 1
    visible = visible_gpus()
    if gpus is not None and gpus > visible:
        raise UserError(f"gpus={gpus}, but {visible} are visible; use gpus={visible}, or check CUDA_VISIBLE_DEVICES")
    check_gpus(range(gpus or visible))
    return gpus or visible


def visible_gpus() -> int:
    """The number of GPUs that this process sees. Raises UserError if CUDA doesn't work."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        return torch.cuda.device_count()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        cure = OLDER_CUDA if "driver" in reason and "too old" in reason else "fix it"
        raise UserError(f"device=cuda, but CUDA doesn't work here ({reason}); {cure}, or use device=cpu") from error


def check_gpus(numbers: Iterable[int]) -> None:
    """Raise UserError if torch has no code for one of these GPUs, or computes wrong on it."""
    built = [int(name.removeprefix("sm_").rstrip("af")) for name in torch.cuda.get_arch_list() if "sm_" in name]
    for number in numbers if built else ():
        major, minor = torch.cuda.get_device_capability(number)
        if 10 * major + minor < min(built):
            oldest = f"{min(built) // 10}.{min(built) % 10}"
            raise UserError(
                f"device=cuda, but GPU {number} ({torch.cuda.get_device_name(number)}) has compute capability "
                f"{major}.{minor}, and this torch is for {oldest} and newer; {OLDER_CUDA}, or use device=cpu"
            )
        if major >= BLACKWELL and torch.__version__ < OF_BLACKWELL:  # torch compares by numbers
            raise UserError(
                f"device=cuda, but attention on GPU {number} ({torch.cuda.get_device_name(number)}) may be wrong in "
                f"torch {torch.__version__}; install torch {OF_BLACKWELL} or newer"
            )


def num_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_rank() -> bool:
    """Whether a launcher, ours or torchrun, has started this process as a rank."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def say_once(text: str) -> None:
    """A line on stderr, unless `launch` has started this process: then its parent has checked and said everything."""
    if "AIM_STARTED" not in os.environ:
        say(text)


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


@contextmanager
def start(device: str, workers: int) -> Iterator[World]:
    """Join the ranks that the environment names, or be the only one; leave them at the end.

    On a CPU torch takes all cores, and shares them with the `workers` that decode, if its threads sleep where they wait
    for each other (`aim.ground.threads`). Where they spin, one that shares its core slows all the others down: then it
    leaves one core to each worker.
    """
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        spinning = "GOMP_SPINCOUNT" not in os.environ
        torch.set_num_threads(max(1, num_cores() - workers * spinning))
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if device == "cuda" else torch.device(device)
    peers = None
    with ExitStack() as stack:
        if size > 1:
            try:
                with fatal_signals():  # torch's C++ waits for the others, deaf to our handlers
                    store, rank, size = next(iter(rendezvous("env://", timeout=COLLECTIVE_TIMEOUT)))
                    name = meeting(store, rank, size)
            except dist.DistError as error:
                why = str(error).splitlines()[0]
                text = (
                    f"rank {rank} on {socket.gethostname()} hasn't met the others ({why}); the same command continues"
                )
                raise RankError(text, code=1) from error
            peers = Peers(store, name, rank, size)
            stack.push(peers.leave)
        if local.type == "cuda":
            if local.index >= (visible := visible_gpus()):
                raise UserError(
                    f"rank {rank} is the one for GPU {local.index} of {socket.gethostname()}, where {visible} are "
                    f"visible; use --nproc-per-node={visible}, or check CUDA_VISIBLE_DEVICES"
                )
            check_gpus([local.index])
            torch.cuda.set_device(local)
        if size > 1:
            # Objects and CPU tensors go by gloo, so that NCCL never sees them.
            backend = "cpu:gloo,cuda:nccl" if local.type == "cuda" else "gloo"
            store = PrefixStore(name, store)
            with fatal_signals():
                dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
                dist.all_reduce(torch.zeros(1, device=local))  # NCCL connects, and fails, only now
        yield World(rank, size, local, peers)


def meeting(store: Store, rank: int, size: int) -> str:
    """A name that the ranks that meet now have, and nobody had before.

    torchrun's store outlives the ranks: after a restart, and with more or fewer nodes, it still has the entries of
    earlier ranks. torchrun's count of restarts differs between nodes, and leaves out new nodes. So rank 0 draws the
    name, and offers it until each of the others has confirmed it. The ranks of a sweep meet job by job. Raises torch's
    DistError where a rank doesn't come.
    """
    until = time.monotonic() + COLLECTIVE_TIMEOUT.total_seconds()
    mine, store = secrets.token_hex(8), PrefixStore(f"aim/{os.environ.get('AIM_JOB')}", store)
    if rank > 0:
        store.set(f"here/{rank}", mine)
        name = store.get(f"name/{mine}").decode()
        store.set(f"heard/{mine}", name)
        return name
    for other in range(1, size):
        while True:
            here = store.get(f"here/{other}").decode()  # maybe of an earlier one
            store.set(f"name/{here}", mine)
            if store.check([f"heard/{here}"]) and store.get(f"heard/{here}").decode() == mine:
                break
            if time.monotonic() > until:
                raise dist.DistStoreError(f"rank {other} didn't come for {COLLECTIVE_TIMEOUT}")
            time.sleep(MEETING_SECONDS)
    return mine


def meet() -> None:
    """Wait for the other ranks, and for longer than elsewhere."""
    if dist.is_initialized():
        group = dist.new_group(timeout=PATIENCE, backend="gloo")
        assert isinstance(group, dist.ProcessGroup)
        dist.barrier(group)
        dist.destroy_process_group(group)


def sum_(tensors: Sequence[Tensor]) -> None:
    """Sum each tensor over the ranks, in place and in one message."""
    if not dist.is_initialized() or not tensors:
        return
    flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    dist.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    totals = [part.view_as(tensor) for tensor, part in zip(tensors, parts, strict=True)]
    torch._foreach_copy_(list(tensors), totals)


def summing(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """The model's forward pass, after which the backward pass sums gradients over the ranks while it goes on.

    torch's DDP sends them bucket by bucket. None where one message at the end is as good, for few and for one rank, and
    for a sharded model, whose hooks DDP knows nothing of.
    """
    trained, _ = num_parameters(model)
    if not dist.is_initialized() or trained < MANY or isinstance(model, FSDPModule):
        return None
    ranks = dist.get_world_size()
    averaging = DistributedDataParallel(model, init_sync=False, gradient_as_bucket_view=True, static_graph=True)
    averaging.broadcast_buffers = False  # they are equal, and in fp8 the whole trunk; the argument is going away

    met = False

    def forward(video: Tensor) -> Tensor:
        nonlocal met
        logits: Tensor = averaging(video)
        if not met:
            met = True
            meet()  # the first pass compiles, on a new node for longer than the backward pass waits for a rank
        # Scaled before DDP averages, which, unlike a sum, leaves the gradients of earlier parts unchanged.
        logits.register_hook(lambda gradient: gradient * ranks)  # type: ignore[no-untyped-call]
        return logits

    return forward


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


def agree(mine: Mapping[str, str]) -> None:
    """Raise UserError, on all ranks, if a rank's values differ from those of rank 0."""
    values = gather(dict(mine))
    for rank, found in enumerate(values):
        if differ := [key for key in mine if found.get(key) != values[0].get(key)]:
            raise UserError(
                f"rank {rank} has another {' and another '.join(differ)} than rank 0; give all ranks the same"
            )


def gather(value: Any) -> list[Any]:
    """The values of all ranks, in the order of ranks, on every rank."""
    if not dist.is_initialized():
        return [value]
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values
