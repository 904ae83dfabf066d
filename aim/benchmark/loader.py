"""Throughput of a data loader: clips/s of each reader, stage by stage on one core, and of all processes together."""

import itertools
import math
import statistics
import time
import timeit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from rich.table import Table
from torch import Tensor

from aim.data.lists import Lists
from aim.data.loading.memory import CLIPS, keep_freed_memory
from aim.data.readers.decord import Decord
from aim.data.readers.frames import Frames
from aim.data.readers.interface import BadVideo, Pick, Reader, Source
from aim.data.readers.pyav import PyAV
from aim.data.readers.torchcodec import TorchCodec
from aim.engine.machine.distributed import World
from aim.engine.machine.hardware import synchronize
from aim.engine.run.settings import Run
from aim.ground.console import Display, plain_table
from aim.ground.errors import UserError

STAGES = ("open", "decode", "resize and crop", "augment", "copy into the batch", "transfer to the GPU")
STAGE_VIDEOS = 32  # read one after another in this process, for the stages
LOADER_BATCH = 8  # small: many batches in few seconds
LOADER_SECONDS = 8.0
LONG_EPOCH = 100_000  # videos
RATES = (50, 100, 200, 400, 800)  # clips/s of a GPU, for the required cores if none was measured


@dataclass
class Watch:
    """A reader that notes the time of opening, and keeps its frames."""

    reader: Reader
    opened: float = 0.0
    done: float = 0.0
    frames: Tensor | None = None

    def __call__(self, path: Source, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        """See `video.Reader`: it asks for indices as soon as it knows the number of frames."""

        def noting(num_frames: int) -> "Sequence[int] | NDArray[np.int64]":
            self.opened = time.perf_counter()
            return pick(num_frames)

        self.frames = None
        self.frames = self.reader(path, noting, span=span)
        self.done = time.perf_counter()
        return self.frames


def measure_loader(run: Run, lists: Lists, world: World, trained: float | None, found: dict[str, Any]) -> Iterator[str]:
    """Clips/s of each reader: stage by stage in this process on one core, and of all decoding processes together.

    They are added to `found` reader by reader, and printed.
    """
    threads, each = torch.get_num_threads(), run.train.clips_per_video
    small = replace(run.train, accumulate=1, batch_size=math.ceil(LOADER_BATCH / each) * each)  # of whole videos
    for name, reader in readers(run.reader).items():
        this = replace(run, reader=reader, train=small)
        try:
            torch.set_num_threads(1)  # as in the decoding processes
            keep_freed_memory(*CLIPS)
            stages = measure_stages(this, lists, world, name)
            torch.set_num_threads(threads)
            in_all = measure_in_all(this, lists, world, name)
        except UserError as error:
            found.setdefault("readers", {})[name] = {"error": str(error)}
            yield f"{name}: {error}"
            continue
        on_core = [seconds for stage, seconds in stages.items() if stage != STAGES[-1] and seconds is not None]
        per_core = 1 / sum(on_core)
        found.setdefault("readers", {})[name] = {
            "stages_ms": {stage: seconds and round(1000 * seconds, 3) for stage, seconds in stages.items()},
            "clips_per_second_per_core": round(per_core, 2),
            "clips_per_second": round(in_all, 2),
        }
        yield f"{name}: {per_core:.1f} clips/s per core, {in_all:.1f} of data.workers={run.data.workers}"
    found |= {"workers": run.data.workers, "augment": vars(run.augment)}
    good = readable(found)
    if not good:
        raise UserError("; ".join(f"{name}: {each['error']}" for name, each in found["readers"].items()))
    speeds = {name: each["clips_per_second_per_core"] for name, each in good.items()}
    found["fastest"] = fastest = max(speeds, key=lambda name: speeds[name])
    rates = [trained] if trained and world.device.type == "cuda" else RATES
    found["cores_needed"] = {f"{rate:g}": math.ceil(rate / speeds[fastest]) for rate in rates}


def readable(loader: Mapping[str, Any]) -> dict[str, Any]:
    """The measurable readers."""
    return {name: each for name, each in loader["readers"].items() if "error" not in each}


def readers(configured: Reader) -> dict[str, Reader]:
    """The configured reader, and those that read the same files."""
    if isinstance(configured, Frames):
        return {"frames": configured}
    found: dict[str, Reader] = {}
    for name, kind in (("decord", Decord), ("pyav", PyAV), ("torchcodec", TorchCodec)):
        reader = configured if isinstance(configured, kind) else kind()
        if not isinstance(reader, Decord) or reader.installed:
            found[name] = reader
    return found


def measure_stages(run: Run, lists: Lists, world: World, title: str) -> dict[str, float | None]:
    """Median seconds of each stage for one clip, measured in this process, one video after another."""
    with closing(run.train_loader(run.train_dataset(lists), world)) as loader:
        dataset = loader.dataset
    watch = Watch(dataset.reader)
    watched, clips = replace(dataset, reader=watch), dataset.clips
    crop_alone = replace(run.augment, flip=0.0, lighting=0.0, color_jitter=0.0, rand_augment=0, erasing=0.0)
    row = torch.empty(dataset.shape, dtype=torch.uint8)
    places = np.random.default_rng(run.seed).permutation(len(dataset))[:STAGE_VIDEOS].tolist()
    times: list[list[float]] = []
    bad = ""
    with Display(f"{title}, stages", len(places) + 1, visible=True) as display:
        for step, index in enumerate([places[0], *places]):  # the first once more, to warm up
            began = time.perf_counter()
            try:
                video = watched.read(0, index)
                read = time.perf_counter()
                if watch.frames is None:
                    raise BadVideo(f"{dataset.path(index)}: only PyAV reads it")
            except BadVideo as error:
                bad = str(error)
                continue
            row.copy_(video)
            copied = time.perf_counter()
            for clip in rearrange(watch.frames, "(v t) c h w -> v t c h w", v=clips):
                crop_alone(clip, run.clip.size, np.random.default_rng(index))
            cropped = min(time.perf_counter() - copied, read - watch.done)
            read_ends = (began, watch.opened, watch.done)
            reading = [end - start for start, end in itertools.pairwise(read_ends)]
            if step:
                times.append([*reading, cropped, read - watch.done - cropped, copied - read])
            display.update(step + 1, "one core")
    if not times:
        raise UserError(f"none of {len(places)} videos could be read; the last: {bad}")
    found = [statistics.median(column) / clips for column in zip(*times, strict=True)]
    return dict(zip(STAGES, [*found, transfer_seconds(row, world.device)], strict=True))


def transfer_seconds(row: Tensor, device: torch.device) -> float | None:
    """Seconds of a clip's copy to the GPU, as part of a batch; None without one."""
    if device.type != "cuda":
        return None
    batch = torch.stack([row] * LOADER_BATCH).share_memory_()  # type: ignore[no-untyped-call]
    synchronize(device)

    def copy() -> None:
        batch.to(device)
        synchronize(device)

    return statistics.median(timeit.repeat(copy, number=1, repeat=10)) / (LOADER_BATCH * len(row))


def measure_in_all(run: Run, lists: Lists, world: World, title: str) -> float:
    """Clips/s of the training loader with its `data.workers` processes, once they run."""
    # A long list, so no epoch ends during the measurement.
    lists = replace(lists, train=lists.train * math.ceil(LONG_EPOCH / len(lists.train)))
    with (
        closing(run.train_loader(run.train_dataset(lists), world)) as loader,
        Display(f"{title}, all", 100, visible=True) as display,
    ):
        batches = itertools.chain.from_iterable(map(loader.epoch, itertools.count()))
        for _ in range(loader.blocks + 1):  # those read while other processes still started
            next(batches)
        clips, began, passed = 0.0, time.perf_counter(), 0.0
        while passed < LOADER_SECONDS:
            clips += float(next(batches).weight.sum()) * loader.dataset.clips
            passed = time.perf_counter() - began
            display.update(min(100, round(100 * passed / LOADER_SECONDS)), f"{run.data.workers} processes")
    return clips / passed


def loader_table(loader: Mapping[str, Any]) -> Table:
    """The readers' numbers, for a terminal."""
    good = readable(loader)
    rows = []
    for stage in STAGES:
        times = [each["stages_ms"][stage] for each in good.values()]
        rows.append([stage, *("no GPU here" if ms is None else f"{ms:.2f}" for ms in times)])
    table = plain_table(rows, ["ms a clip, on one core", *good])
    table.add_section()
    table.add_row("clips/s per core", *(f"{each['clips_per_second_per_core']:.1f}" for each in good.values()))
    in_all = (f"{each['clips_per_second']:.1f}" for each in good.values())
    table.add_row(f"clips/s of data.workers={loader['workers']}", *in_all)
    return table


def loader_note(loader: Mapping[str, Any]) -> str:
    """The cores that a GPU needs."""
    needs = ", ".join(f"{cores} for {rate}" for rate, cores in loader["cores_needed"].items())
    title = f"Cores to decode with for each GPU (reader={loader['fastest']}), by the clips/s that it trains"
    return f"{title}: {needs}"
