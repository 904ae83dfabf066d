"""Profile of training: `train.profile=true` writes a Chrome trace and a table for some steps of rank 0."""

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from aim.ground import files

Part = Literal[
    "waiting for data", "copying to the device", "preprocessing", "forward", "backward", "communication", "optimizer",
    "reading results",
]  # fmt: skip
PARTS: tuple[str, ...] = get_args(Part)
DECODING = ("waiting for data",)
MODEL = ("forward", "backward", "optimizer")  # on a CPU; on a GPU its kernels tell
NO_WORK = ("nccl", "Memcpy", "Memset")  # what a GPU does that is not the model's

WARM_UP, STEPS = 3, 10
SILENT = "6"  # above all levels of torch's profiler
OPERATIONS = 25  # rows of the second table

Interval = tuple[float, float]


def part(name: Part) -> record_function:
    """What is inside counts as this part of a step; next to nothing while nobody profiles."""
    return record_function(name)


class Profile:
    """Watches STEPS steps after the first WARM_UP of a process, fewer where an epoch ends; then writes what it saw."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.steps, self.began = folder, 0, 0.0
        on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
        if not on_gpu:
            os.environ.setdefault("KINETO_LOG_LEVEL", SILENT)  # it reports the lack of a GPU as an error
        self.on_gpu, self.running, self.done = bool(on_gpu), False, False
        self.profiler = profile(activities=[ProfilerActivity.CPU, *on_gpu])

    def tick(self, *, ends_epoch: bool) -> str | None:
        """A step is done: begin, go on, or write. What there is to say, once."""
        self.steps += 1
        if self.running and (ends_epoch or self.steps == STEPS):
            self._stop()
            return self._write()
        if not self.running and not self.done and self.steps >= WARM_UP and not ends_epoch:
            self.profiler.start()
            self.running, self.steps, self.began = True, 0, time.perf_counter()
        return None

    def close(self) -> None:
        """Stop without writing, where training was left in the middle."""
        if self.running:
            self._stop()

    def _stop(self) -> None:
        self.seconds = time.perf_counter() - self.began
        self.profiler.stop()
        self.running, self.done = False, True

    def _write(self) -> str:
        events = list(self.profiler.events() or [])  # type: ignore[no-untyped-call]
        text, neither = table(events, self.seconds, self.steps, on_gpu=self.on_gpu)
        by = "self_cuda_time_total" if self.on_gpu else "self_cpu_time_total"
        text += "\n" + self.profiler.key_averages().table(sort_by=by, row_limit=OPERATIONS)
        files.write_atomically(self.folder / "trace.json", lambda file: self.profiler.export_chrome_trace(str(file)))
        files.write_atomically(self.folder / "profile.txt", lambda file: files.write_text(file, text))
        return f"profile of {self.steps} steps in {self.folder}: {neither:.1%} was neither model nor decoding"


def table(events: Iterable[FunctionEvent], seconds: float, steps: int, *, on_gpu: bool) -> tuple[str, float]:
    """The parts of the process's time, as text, and the share that was neither model nor decoding.

    That is when no process waited for data and, on a CPU, none of the model's parts ran, or, on a GPU, no kernel but
    those of communication.
    """
    spans: dict[str, list[Interval]] = {name: [] for name in PARTS}
    kernels: list[Interval] = []
    for event in events:
        span = (event.time_range.start, event.time_range.end)
        if event.device_type == DeviceType.CPU and event.name in spans:
            spans[event.name].append(span)
        elif event.device_type != DeviceType.CPU and is_kernel(event):
            kernels.append(span)
    model = kernels if on_gpu else [span for name in MODEL for span in spans[name]]
    useful = covered(model + [span for name in DECODING for span in spans[name]])
    rows = {name: covered(found) for name, found in spans.items() if found}
    rows["rest"] = seconds - sum(rows.values())
    if on_gpu:
        rows["(the GPU computes)"] = covered(kernels)
    neither = max(0.0, 1 - useful / seconds)
    head = f"{steps} steps of rank 0, {1000 * seconds / steps:.1f} ms each; neither model nor decoding: {neither:.1%}\n"
    return head + "\n".join(_rows(rows, seconds, steps)) + "\n", neither


def is_kernel(event: FunctionEvent) -> bool:
    """Whether a GPU's event is work for the model; what the parts of a step span there is no event of its own."""
    return not (event.is_user_annotation or event.name in PARTS or event.name.startswith(NO_WORK))


def _rows(rows: Mapping[str, float], seconds: float, steps: int) -> list[str]:
    head = f"{'part of the process' + chr(39) + 's time':<26}{'ms a step':>10}{'share':>8}"
    return [head, *(f"{name:<26}{1000 * s / steps:>10.2f}{s / seconds:>8.1%}" for name, s in rows.items())]


def covered(spans: Iterable[Interval]) -> float:
    """The seconds that intervals of microseconds cover together; where they overlap counts once."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total / 1e6
