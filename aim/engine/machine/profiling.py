"""Profile of training: `train.profile=true` writes a Chrome trace and a table for some steps of rank 0."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerAction, ProfilerActivity, profile, record_function, schedule

from aim.ground import files

Part = Literal[
    "waiting for data", "copying to the device", "preprocessing", "forward", "backward", "communication", "optimizer",
    "reading results",
]  # fmt: skip
PARTS: tuple[str, ...] = get_args(Part)
DECODING = ("waiting for data",)
MODEL = ("forward", "backward", "optimizer")  # on a CPU; on a GPU its kernels tell
NO_WORK = ("nccl", "Memcpy", "Memset")  # events of a GPU that aren't computation of the model

WARM_UP, STEPS = 3, 10
STEP = "ProfilerStep"  # torch's name of a step, in front
SILENT = "6"  # above all levels of torch's profiler
OPERATIONS = 25  # rows of the second table

Interval = tuple[float, float]


def part(name: Part) -> record_function:
    """Count the block as this part of a step; costs next to nothing without a profile."""
    return record_function(name)


class Profile:
    """A profile of STEPS steps after the first WARM_UP of a process, fewer where an epoch ends."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.on_gpu, self.said = folder, device.type == "cuda", ""
        if not self.on_gpu:
            os.environ.setdefault("KINETO_LOG_LEVEL", SILENT)  # it reports the lack of a GPU as an error
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.on_gpu else [])]
        plan = schedule(skip_first=WARM_UP - 1, wait=0, warmup=1, active=STEPS, repeat=1)
        self.profiler = profile(activities=activities, schedule=plan, on_trace_ready=self._write)
        self.profiler.start()

    def tick(self, *, ends_epoch: bool) -> str | None:
        """A step is done: begin, continue, or write. The line to print, once."""
        if self.said:
            return None
        records = self.profiler.current_action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)
        if records and ends_epoch:
            self.profiler.stop()
        elif records or not ends_epoch:  # a profile doesn't begin with a validation
            self.profiler.step()
        return self.said or None

    def close(self) -> None:
        """Stop without writing, where training was left in the middle."""
        if not self.said:
            self.profiler.on_trace_ready = None
            self.profiler.stop()

    def _write(self, profiler: profile) -> None:
        text, summary = table(profiler.events() or [], on_gpu=self.on_gpu)  # type: ignore[no-untyped-call]
        by = "self_cuda_time_total" if self.on_gpu else "self_cpu_time_total"
        text += "\n" + profiler.key_averages().table(sort_by=by, row_limit=OPERATIONS)
        files.write_atomically(self.folder / "trace.json", lambda file: profiler.export_chrome_trace(str(file)))
        files.write_text(self.folder / "profile.txt", text)
        self.said = f"profile in {self.folder}: {summary}"


def table(events: Iterable[FunctionEvent], *, on_gpu: bool) -> tuple[str, str]:
    """The parts of the process's time, as text, and the share that was neither model nor decoding, as its first line.

    That is when no process waited for data and, on a CPU, none of the model's parts ran, or, on a GPU, no kernel but
    those of communication.
    """
    spans: dict[str, list[Interval]] = {name: [] for name in PARTS}
    steps, kernels = list[Interval](), list[Interval]()
    for event in events:
        span = (event.time_range.start, event.time_range.end)
        if event.device_type != DeviceType.CPU:
            kernels += [span] if is_kernel(event) else []
        elif event.name.startswith(STEP):
            steps.append(span)
        elif event.name in spans:
            spans[event.name].append(span)
    seconds = covered(steps)
    model = kernels if on_gpu else [span for name in MODEL for span in spans[name]]
    useful = covered(model + [span for name in DECODING for span in spans[name]])
    rows = {name: covered(found) for name, found in spans.items() if found}
    rows["rest"] = seconds - sum(rows.values())
    if on_gpu:
        rows["(the GPU computes)"] = covered(kernels)
    neither = max(0.0, 1 - useful / seconds)
    each = 1000 * seconds / len(steps)
    summary = f"{len(steps)} steps of rank 0, {each:.1f} ms each; neither model nor decoding: {neither:.1%}"
    return "\n".join([summary, *_rows(rows, seconds, len(steps)), ""]), summary


def is_kernel(event: FunctionEvent) -> bool:
    """Whether a GPU's event is computation of the model; the spans of a step's parts there are annotations."""
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
