"""Cost of a model on this machine: parameters, GMACs, clips/s and memory."""

import statistics
import time
from collections.abc import Mapping
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
from aim.ground.console import Display
from aim.models.classifier import VideoClassifier
from aim.models.flops import gmacs_per_view
from aim.models.freeze import num_parameters

GPU_STEPS, CPU_STEPS = (5, 20), (1, 3)  # to warm up, and to measure
CPU_GMACS = 200  # of a step, so that it takes seconds


def measure_model(run: Run, num_classes: int, world: World) -> dict[str, Any]:
    """Parameters, GMACs, clips/s and memory, of training and of the test, on uint8 clips that lie on the device."""
    run = replace(run, backbone=replace(run.backbone, weights="random"))
    model = run.model(num_classes).to(world.device)
    on_gpu = world.device.type == "cuda"
    gmacs = gmacs_per_view(model)
    clips = run.train.clips_at_once(1) if on_gpu else max(1, min(run.train.clips_at_once(1), int(CPU_GMACS / gmacs)))
    warm_up, steps = GPU_STEPS if on_gpu else CPU_STEPS
    batch = make_batch(model, clips, world.device)
    optimizer = adamw(model, run.optim)

    def train() -> None:
        train_step(model, optimizer, [batch], run.train, run.precision, world.device, task=run.task, stop=False)

    @torch.inference_mode()
    def test() -> None:
        with autocast(world.device, run.precision):
            model(model.preprocess(rearrange(batch.video, "b v t c h w -> (b v) t c h w")))

    tuned, total = num_parameters(model)
    found: dict[str, Any] = {
        "params_total": total,
        "params_tuned": tuned,
        "gmacs_per_view": round(gmacs, 3),
        "clips_per_step": clips,
        "saved_mib_per_clip": round(saved_mib_per_clip(run, model, world.device), 1),
    }
    with Display("model", 2 * (warm_up + steps), visible=True) as display:
        for i, (name, step) in enumerate((("train", train), ("test", test))):
            model.train(name == "train")
            if on_gpu:
                torch.cuda.reset_peak_memory_stats(world.device)
            seconds = []
            for n in range(warm_up + steps):
                began = time.perf_counter()
                step()
                synchronize(world.device)
                seconds.append(time.perf_counter() - began)
                display.update(i * (warm_up + steps) + n + 1, name)
            found[name] = {"clips_per_second": round(clips / statistics.median(seconds[warm_up:]), 3)}
            if on_gpu:
                found[name]["peak_mib"] = round(torch.cuda.max_memory_allocated(world.device) / 2**20)
    return found


def saved_mib_per_clip(run: Run, model: VideoClassifier, device: torch.device) -> float:
    """What a forward pass keeps for the backward one, in MiB a clip: of two clips, less that of one."""
    model.train()
    return (kept_bytes(run, model, device, 2) - kept_bytes(run, model, device, 1)) / 2**20


def model_rows(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The model's numbers as text."""
    rows = [
        ("parameters", f"{model['params_tuned'] / 1e6:.2f} of {model['params_total'] / 1e6:.2f} M tuned"),
        ("GMACs per view", f"{model['gmacs_per_view']:.2f}"),
        ("kept for the backward pass", f"{model['saved_mib_per_clip']:.0f} MiB a clip"),
    ]
    for name in ("train", "test"):
        peak = f", at most {model[name]['peak_mib'] / 1024:.1f} GiB" if "peak_mib" in model[name] else ""
        speed = f"{model[name]['clips_per_second']:.2f} clips/s, {model['clips_per_step']} at once{peak}"
        rows.append((name, speed))
    return rows
