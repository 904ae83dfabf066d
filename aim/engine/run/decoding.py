"""The decoding processes of a rank for `data.workers=auto`: by its cores, and by the measured time of a clip."""

import math
import os
import re
import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import torch

from aim.data.lists import Lists
from aim.data.loading.order import Shuffled
from aim.engine.machine import distributed
from aim.engine.machine.distributed import World, num_cores
from aim.engine.run.gpus import GPUS
from aim.engine.run.plan import UTILISATION
from aim.engine.run.settings import Run
from aim.ground.errors import say
from aim.ground.marks import AUTO

SAMPLES = 6  # videos that are read for the time of a clip
SPARE = 1.25  # times as many as are needed on the average
ON_CPU = 4  # at most, for training itself takes the cores
TWO_WAYS = 4  # operations of a step for a multiply-add forward: one product there, one back to the tokens


def settled(run: Run, asked: Mapping[str, Any], lists: Lists, gmacs: float, world: World) -> Run:
    """The run with the number of processes that auto means here; rank 0 says it, and knows the `gmacs` of a view."""
    if asked["data"]["workers"] != AUTO:
        return run
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    most = max(1, num_cores() // ranks - 1)  # one core is for the rank itself
    seconds, wanted = distributed.share(
        (seconds_a_clip(run, lists), clips_wanted(run, gmacs, world.device)) if world.is_main else (0.0, 0.0)
    )
    if world.device.type == "cpu":
        most = min(most, ON_CPU)
    needed = math.ceil(SPARE * wanted * seconds) or most
    workers = min(most, needed)
    rate = f": a clip takes {1000 * seconds:.1f} ms to read, so {workers / seconds:.0f} clips/s" if seconds else ""
    here = f"{num_cores()} cores and {ranks} rank{'s' * (ranks > 1)} here"
    say(f"data.workers=auto is {workers} a rank ({here}){rate}")
    if needed > most:
        say(
            f"warning: this GPU trains about {wanted:.0f} clips/s by estimate, and will wait for its data; prepare the "
            f"videos once with aim.prepare, or give each rank {needed + 1} cores"
        )
    return replace(run, data=replace(run.data, workers=workers))


def seconds_a_clip(run: Run, lists: Lists) -> float:
    """The median time in which one process reads a clip of a training video; 0 where none could be read."""
    alone = replace(run, data=replace(run.data, workers=1))
    dataset = alone.train_dataset(lists)
    order, cpu = Shuffled(run.seed), World(0, 1, torch.device("cpu"))
    times = list[float]()
    with closing(alone.loader(dataset, 1, cpu, order=order, on_error=run.data.on_error)) as loader:
        began = 0.0
        for _, batch in zip(range(SAMPLES + 1), loader.epoch(0), strict=False):
            now = time.perf_counter()
            if began and batch.weight.any():  # the process has started by the first
                times.append(now - began)
            began = now
    return statistics.median(times) / dataset.clips if times else 0.0


def clips_wanted(run: Run, gmacs: float, device: torch.device) -> float:
    """The clips/s that a GPU of a known data sheet trains by estimate; 0 for others and the CPU."""
    if device.type != "cuda" or not gmacs:
        return 0.0
    name = torch.cuda.get_device_name(device).lower().replace("rtx ", "rtx")
    sheet = next((sheet for key, sheet in GPUS.items() if re.search(rf"{key}(?!\d)", name)), None)
    return 0.0 if sheet is None else sheet.tflops(run.precision) * 1000 * UTILISATION / (TWO_WAYS * gmacs)
