"""Prediction of a run's memory, time and decoding cores on a GPU that need not be here. No data is needed.

Bytes and operations are counted on fake tensors; the rest depends on the assumptions named below.
"""

import math
import os
from dataclasses import asdict, replace
from typing import Any, get_args

import torch

from aim.data.demo.moving_shapes import MovingShapes
from aim.engine.machine.hardware import Gpu, free_memory
from aim.engine.run.gpus import GAPS, GPUS, Sheet
from aim.engine.run.settings import Run
from aim.engine.run.step import Cost, cost_of_step, peak_of_step
from aim.ground.errors import UserError, check_least
from aim.models.memory import Memory

# Of a GPU's rate, by estimate and not measured: a compiled step's products, the bytes between them and its attention,
# one after the other, are 23 % for a ViT-B/16 on an H100.
UTILISATION = 0.25
CORE_DOWNLOADED, CORE_PREPARED = 15.01, 162.66  # clips/s of 8 frames, measured: scripts/results/bench_loader.json
FRAMES_MEASURED = 8
# Training videos of the data sets that are named here, by their number of classes; data/README.md says whose counts.
PUBLISHED = {400: 241_258, 700: 535_000, 174: 168_913, 48: 15_027}
UNKNOWN = 10_000  # videos, to multiply from where nobody knows how many there are
# Yang et al., ICLR 2023, table 6; its first author, in the public issue 23: the hours are of the clock.
PAPER = {"k400": "7 GB a GPU for 8 clips, and 15 h on 8 GPUs that it doesn't name"}
GIB = 2**30


def plan(run: Run, gpu: Gpu | None) -> dict[str, Any]:
    """Everything that can be said of a run beforehand. Raises UserError for a batch that can't be divided."""
    if gpu is None:
        raise UserError(f"what=plan needs a GPU to plan for; add gpu=NAME, one of {', '.join(GPUS)}")
    check_least(run, 1, "gpus")
    sheet, gpus = GPUS[gpu], run.gpus or 1
    run = replace(run, precision=sheet.precision(run.precision, gpu))
    videos, source, classes = training_videos(run)
    run.check_batch(gpus)
    clips = run.train.clips_at_once(gpus)
    costs = {name: cost_of_step(of_setting, classes, clips) for name, of_setting in memory_settings(run).items()}
    plans = {name: on_gpu(cost, run, gpus, sheet, videos) for name, cost in costs.items()}
    return {
        "gpu": gpu, "gpus": gpus, "precision": run.precision, "sheet": asdict(sheet),
        "assumed": {"utilisation": UTILISATION, "clips_per_second_per_core": [CORE_DOWNLOADED, CORE_PREPARED]},
        "clips_at_once": clips, "videos": videos, "videos_from": source, "epochs": run.train.epochs,
        "usable_gib": round(sheet.usable_bytes / GIB, 2), "paper": PAPER.get(run.name, "not published"),
        "memory": plans,
    }  # fmt: skip


def memory_settings(run: Run) -> dict[str, Run]:
    """The run with each value of train.memory."""
    return {name: replace(run, train=replace(run.train, memory=name)) for name in get_args(Memory)}


def training_videos(run: Run) -> tuple[int, str, int]:
    """How many there are, where that is from, and the number of classes; nothing is downloaded or generated."""
    classes = run.data.num_classes
    if isinstance(run.data.lists, MovingShapes):
        return round(run.data.share * run.data.lists.num_train), "generated", classes or 1
    try:
        lists = run.load_lists()
    except UserError:
        if classes in PUBLISHED:
            return round(run.data.share * PUBLISHED[classes]), "published", classes
        return round(run.data.share * UNKNOWN), f"no lists in {run.data.root or 'data.root'}", classes or 1
    return len(lists.train), "listed", len(lists.classes)


def on_gpu(cost: Cost, run: Run, gpus: int, sheet: Sheet, videos: int) -> dict[str, Any]:
    """A step's cost as memory, time and cores on a GPU."""
    seconds, bound = step_seconds(cost, run, sheet)
    steps = run.train.steps_per_epoch(videos)
    rate = cost.clips * run.train.accumulate / seconds
    most = most_clips(cost, sheet.usable_bytes)
    frames = run.clip.num_frames / FRAMES_MEASURED
    return {
        **asdict(cost),
        "fits": cost.peak_bytes <= sheet.usable_bytes,
        "most_clips": most,
        "way_out": None if cost.clips <= most else way_out(run, gpus, most, more_gpus=True),
        "seconds_per_step": seconds, "bound_by": bound, "clips_per_second_per_gpu": rate,
        "hours": run.train.epochs * steps * seconds / 3600,
        # Of a downloaded file all frames up to those of the clip are decoded, however few these are.
        "cores_per_gpu": {
            "downloaded": math.ceil(rate / CORE_DOWNLOADED), "prepared": math.ceil(rate * frames / CORE_PREPARED)
        },
    }  # fmt: skip


def step_seconds(cost: Cost, run: Run, sheet: Sheet) -> tuple[float, str]:
    """The roofline of a step, its accumulated parts one after the other: the longer of computing and moving bytes.

    At least the weights are read in both directions, and kept tensors are written and read.
    """
    computing = (cost.flops - cost.fp8_flops) / (sheet.tflops(run.precision) * 1e12 * UTILISATION)
    if sheet.fp8_tflops is not None:
        computing += cost.fp8_flops / (sheet.fp8_tflops * 1e12 * UTILISATION)
    moving = 2 * (cost.weight_bytes + cost.clips * cost.kept_bytes) / (sheet.bandwidth_gb * 1e9)
    seconds = run.train.accumulate * max(computing, moving)
    return seconds, "computing" if computing >= moving else "memory bandwidth"


def most_clips(cost: Cost, usable: float) -> int:
    """The clips at once that fit."""
    return max(0, cost.clips + math.floor((usable - cost.peak_bytes) / cost.clip_bytes))


def way_out(run: Run, gpus: int, most: int, *, more_gpus: bool) -> str:
    """How to get by with `most` clips at once."""
    fitting = run.train.fitting(gpus, most)
    if fitting is None:
        return "use a smaller clip.num_frames, clip.size or backbone"
    parts = run.train.batch_size // gpus // fitting
    more = ", more GPUs" if more_gpus else ""
    return f"use train.accumulate={parts}{more} or a smaller train.batch_size"


def expected_memory(run: Run, num_classes: int, ranks: int, free: float) -> tuple[str, str | None]:
    """A line with the memory of a step and the `free` bytes of its device; and another if that is too much."""
    clips = run.train.clips_at_once(ranks)
    peak = peak_of_step(run, num_classes, clips)
    known = f", {free / GIB:.2f} are free" if math.isfinite(free) else ""
    line = f"memory: about {peak / GIB:.2f} GiB of tensors in a step of {clips} clips by estimate{known}"
    if peak <= free:
        return line, None
    leaner = [name for name, other in memory_settings(run).items() if peak_of_step(other, num_classes, clips) <= free]
    most = most_clips(cost_of_step(run, num_classes, clips), free)
    cure = f"use train.memory={leaner[0]}" if leaner else way_out(run, ranks, most, more_gpus=run.device == "cuda")
    gpu = "GPU " if run.device == "cuda" else ""
    needs = f"a step of {clips} clips at once needs about {peak / GIB:.1f} GiB of {gpu}memory by estimate"
    return line, f"{needs}, and {free / GIB:.1f} are free; {cure}"


def free_bytes(device: torch.device) -> float:
    """The bytes for a run's tensors on a device, on CUDA with those that are there already."""
    if device.type != "cuda":
        return free_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return (torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)) * (1 - GAPS)
