"""Capabilities of this machine: the meaning of `device=auto` and `precision=auto`."""

import math
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Literal

import torch

from aim.data.loading.memory import ACTIVATIONS, keep_freed_memory
from aim.engine.machine import distributed
from aim.ground.errors import UserError, say
from aim.models.attention import attend_by_products, compute_by_large_kernels
from aim.models.classifier import VideoClassifier
from aim.models.compiling import PACKAGES, lacking
from aim.models.float8 import to_float8
from aim.models.gpu import kernels
from aim.models.memory import store_frozen

Device = Literal["auto", "cuda", "mps", "cpu"]  # mps: the GPU of an Apple processor
Precision = Literal["auto", "bf16", "fp8", "fp32"]  # fp8: bf16, but for products of frozen weights in training
Untrained = Literal["auto", "bf16", "fp32"]  # of verbs without training
Computed = Literal[Untrained, "int8"]  # of verbs that take exported files, too
Gpu = Literal["a100", "h100", "h200", "b200", "l40s", "rtx4090", "t4"]  # that aim.benchmark can plan for

DRIVER = Path("/proc/driver/nvidia/version")
CPUINFO = Path("/proc/cpuinfo")
MEMINFO, CGROUP, CGROUPS = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# The files of a control group's limit and usage, and the part of the usage that can be reclaimed, by the controller
# that /proc/self/cgroup names: none in version 2, "memory" in version 1.
GROUPS = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
# As Linux calls them, on x86 and on ARM. Without any, bfloat16 is emulated, far slower than float32.
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
FP8_SINCE = (8, 9)  # compute capability: Ada


def resolve_device(asked: Device) -> Device:
    """The GPU of CUDA if there is one, else the CPU, unless one was asked for; Apple's is never taken unasked.

    A GPU that is there and doesn't work is not passed over: its first use raises the error.
    """
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() or DRIVER.exists() else "cpu"


def resolve_precision(asked: Precision, device: Device, before: Precision | None = None) -> Precision:
    """The precision `asked`; for auto the run's earlier one (`before`), or bf16 where the device computes in it.

    Raises UserError for bf16 on an older macOS.
    """
    if asked == "bf16" and device == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        raise UserError("precision=bf16 with device=mps needs macOS 14 or newer; use precision=fp32")
    if asked != "auto":
        return asked
    return before or ("bf16" if computes_in_bf16(device) else "fp32")


def computes_in_bf16(device: Device) -> bool:
    """Whether the device has instructions of its own for bfloat16; of Apple's GPUs nobody has measured it."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False
    try:
        lines = CPUINFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(BF16_FLAGS & set(line.split()) for line in lines if line.startswith(("flags", "Features")))


def check_fp8(device: Device) -> None:
    """Raise UserError if the device has no products in float8. A GPU that doesn't work has its own error later."""
    if device == "cuda" and not torch.cuda.is_available():
        return
    numbers = range(torch.cuda.device_count()) if device == "cuda" else ()
    lacking = [n for n in numbers if torch.version.cuda is None or torch.cuda.get_device_capability(n) < FP8_SINCE]
    if lacking or device != "cuda":
        found = torch.cuda.get_device_name(lacking[0]) if lacking else "Apple's" if device == "mps" else "the CPU"
        needed = "an NVIDIA GPU of compute capability {}.{} (Ada, Hopper) or newer".format(*FP8_SINCE)
        raise UserError(f"precision=fp8 needs {needed}, and this is {found}; use precision=auto")


def use_threads(number: int | None) -> None:
    """Let torch compute with so many threads on a CPU; None: a core each, or OMP_NUM_THREADS. Raises UserError."""
    if number is None:
        return
    if number < 1:
        raise UserError(f"threads={number}; use 1 or more")
    torch.set_num_threads(number)


def peak_memory(device: torch.device) -> int:
    """The bytes that this process held at its largest moment: of tensors on CUDA, else of everything in main memory.

    0 where the system doesn't tell, as Windows.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_memory() -> float:
    """The bytes of main memory that are free on this machine, or to its batch job where that has fewer.

    Infinite where nothing says so, as outside of Linux.
    """
    free = [math.inf]
    with suppress(OSError, ValueError, KeyError):
        free.append(1024 * numbers(MEMINFO)["MemAvailable:"])
    with suppress(OSError):
        for line in CGROUP.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers in GROUPS:
                free += left_of_groups(CGROUPS / controllers / name.strip("/"), *GROUPS[controllers])
    return min(free)


def left_of_groups(group: Path, most: str, taken: str, cache: str) -> Iterator[int]:
    """The bytes that are free in a control group and in those around it, each of which may have a limit."""
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError, KeyError):
            used = int((folder / taken).read_text()) - numbers(folder / "memory.stat")[cache]
            yield int((folder / most).read_text()) - used


def numbers(path: Path) -> dict[str, int]:
    """The names and numbers that the kernel lists in a file."""
    return {name: int(number) for name, number, *_ in map(str.split, path.read_text().splitlines())}


def settle(asked: Mapping[str, Any], device: Device, before: Precision | None = None) -> Precision:
    """The precision of all ranks, as rank 0 resolves it (`before`: of the run so far); auto is reported in a line."""
    precision = distributed.share(resolve_precision(asked["precision"], device, before))
    notes = []
    if asked["device"] == "auto":
        notes.append("device=auto is cuda" if device == "cuda" else "device=auto is cpu (no GPU)")
    if asked["precision"] == "auto":
        why = " (bf16 is emulated here)" if precision == "fp32" and device != "mps" else ""
        notes.append(f"precision=auto is {precision}{', with which the run began' if before else why}")
    if notes:
        say("; ".join(notes))
    return precision


def settle_compile(asked: bool | Literal["gpu"], device: Device) -> bool | Literal["gpu"]:
    """`train.compile` of all ranks: false where a GPU's rank can't compile, and the others would only wait for it."""
    if device != "cuda" or not asked:
        return asked
    lacks = distributed.gather((lacking(), socket.gethostname()))
    for rank, (what, host) in enumerate(lacks):
        if what:
            say(
                f"warning: train.compile={str(asked).lower()} needs a C compiler and Python's headers, and rank {rank} "
                f"on {host} has no {what}: going on without it, at half the speed or so; install {PACKAGES} there"
            )
            return False
    return asked


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Matrix products in bfloat16 (for fp8 those that aren't of frozen weights), or everything in float32."""
    assert precision != "auto", "resolved before"
    return torch.autocast(device.type, torch.bfloat16, enabled=precision != "fp32")


def suit(model: VideoClassifier, precision: Precision, device: str) -> None:
    """Prepare a model for `precision` on the device: types of weights, attention, memory; for all verbs alike."""
    if device == "cpu":
        keep_freed_memory(*ACTIVATIONS)
    if precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False  # as torch has it for products, but not for convolutions
    else:
        store_frozen(model, torch.bfloat16)
        if precision == "fp8":
            to_float8(model.backbone.plain_blocks())
        if device == "cpu":
            attend_by_products(model)
    if device == "mps":
        attend_by_products(
            model
        )  # torch's fused one is wrong there for views of a tensor until 2.12 (its issue 181133)
    if device == "cuda":
        pretended = next(model.parameters()).is_meta or not torch.cuda.is_available()
        if pretended or kernels() is not None:
            compute_by_large_kernels(model)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
