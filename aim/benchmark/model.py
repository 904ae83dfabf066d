"""Cost of a model on this machine: parameters, GMACs, clips/s and memory."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from einops import rearrange

from aim.engine.loop.optim import adamw
from aim.engine.loop.training import train_step
from aim.engine.machine.distributed import World
from aim.engine.machine.hardware import autocast, synchronize
from aim.engine.run.settings import Run
from aim.engine.run.step import kept_bytes, make_batch
from aim.ground.amounts import tuned_of
from aim.ground.console import Display
from aim.models.flops import gmacs_per_view
from aim.models.freeze import num_parameters

GPU_STEPS, CPU_STEPS = (5, 20), (1, 3)  # to warm up, and to measure
CPU_GMACS = 200  # of a step, so that it takes seconds


def measure_model(run: Run, num_classes: int, world: World, found: dict[str, Any]) -> Iterator[str]:
    """Parameters, GMACs, clips/s and memory, of training and of the test, on uint8 clips on the device.

    They are added to `found` one by one, and printed.
    """
    run = replace(run, backbone=replace(run.backbone, weights="random"))
    model = run.model(num_classes).to(world.device)
    on_gpu = world.device.type == "cuda"
    gmacs = gmacs_per_view(model)
    clips = run.train.clips_at_once(1) if on_gpu else max(1, min(run.train.clips_at_once(1), int(CPU_GMACS / gmacs)))
    warm_up, steps = GPU_STEPS if on_gpu else CPU_STEPS
    batch = make_batch(model, clips, world.device, several=run.task.several)
    optimizer = adamw(model, run.optim)

    def train() -> None:
        train_step(model, optimizer, [batch], run.train, run.precision, world.device, task=run.task, stop=False)

    @torch.inference_mode()
    def test() -> None:
        with autocast(world.device, run.precision):
            model(model.preprocess(rearrange(batch.video, "b v t c h w -> (b v) t c h w")))

    tuned, total = num_parameters(model)
    found |= {"params_total": total, "params_tuned": tuned, "gmacs_per_view": round(gmacs, 3), "clips_per_step": clips}
    yield row("parameters", f"{tuned_of(tuned, total)} tuned")
    yield row("GMACs per view", f"{gmacs:.2f}")
    model.train()
    one, two = (kept_bytes(run, model, world.device, clips) for clips in (1, 2))
    found["saved_mib_per_clip"] = round((two - one) / 2**20, 1)
    yield row("kept for the backward pass", f"{found['saved_mib_per_clip']:.0f} MiB a clip")
    for name, step in (("train", train), ("test", test)):
        model.train(name == "train")
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(world.device)
        seconds = []
        with Display(name, warm_up + steps, visible=True) as display:
            for n in range(warm_up + steps):
                began = time.perf_counter()
                step()
                synchronize(world.device)
                seconds.append(time.perf_counter() - began)
                display.update(n + 1, "steps")
        found[name] = {"clips_per_second": round(clips / statistics.median(seconds[warm_up:]), 3)}
        peak = ""
        if on_gpu:
            found[name]["peak_mib"] = round(torch.cuda.max_memory_allocated(world.device) / 2**20)
            peak = f", at most {found[name]['peak_mib'] / 1024:.1f} GiB"
        yield row(name, f"{found[name]['clips_per_second']:.2f} clips/s, {clips} at once{peak}")


def row(name: str, text: str) -> str:
    """A line of a growing table."""
    return f"{name:<28}{text}"
