"""Measure a setting on this machine: the model's size, speed and memory, and the loader's speed, reader by reader.

    python -m aim.benchmark +experiment=k400                     # both
    python -m aim.benchmark +experiment=k400 what=loader         # how many cores keep a GPU busy?
    python -m aim.benchmark +experiment=k400 what=model          # needs no data

One process and one GPU are measured; the trunk's weights are random, as no speed depends on them. Leaves
`benchmark.json` in the run directory, by default runs/benchmark/NAME.
"""

from aim import command

if __name__ == "__main__":  # before the imports that take seconds: --help and a misspelt setting need none of them
    command.entrypoint("aim.benchmark", "config", "aim.engine.settings.Run")

import itertools
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from aim import config
from aim.data.lists import Lists
from aim.data.loader import Batch
from aim.data.readers.decord import Decord
from aim.data.readers.frames import Frames
from aim.data.readers.interface import BadVideo, Pick, Reader
from aim.data.readers.pyav import PyAV
from aim.data.readers.torchcodec import TorchCodec
from aim.engine import distributed, files, identity, results
from aim.engine.console import plain_console, plain_table
from aim.engine.distributed import World
from aim.engine.hardware import Device, autocast, settle
from aim.engine.optim import adamw
from aim.engine.settings import Run
from aim.engine.tracking import Display
from aim.engine.training import train_step
from aim.errors import UserError
from aim.models.classifier import VideoClassifier
from aim.models.flops import gmacs_per_view

STAGES = ("open", "decode", "resize and crop", "augment", "copy into the batch", "transfer to the GPU")
STAGE_VIDEOS = 32  # read one after the other in this process, for the stages
LOADER_BATCH = 8  # small, so that few seconds hold many batches
LOADER_SECONDS = 8.0
LONG_EPOCH = 100_000  # videos
GPU_STEPS, CPU_STEPS = (5, 20), (1, 3)  # to warm up, and to measure
CPU_GMACS = 200  # of a step, so that it takes seconds
RATES = (50, 100, 200, 400, 800)  # clips/s of a GPU, to read the cores off where none was measured


def main(cfg: DictConfig) -> None:
    """Measure, print, leave benchmark.json."""
    if distributed.is_rank():
        raise UserError("aim.benchmark measures one process; start it with python -m aim.benchmark, without torchrun")
    distributed.refuse_bare_slurm("aim.benchmark")
    settings = config.resolve(cfg)
    run = config.build(settings, Run).placed()
    run_dir = run.directory("benchmark")
    run.check_augmentation()
    lists = None if run.what == "model" else load_lists(run)
    # Decoding can be measured on a machine without the GPU that it is to feed.
    device: Device = "cpu" if run.what == "loader" and not torch.cuda.is_available() else run.device
    distributed.num_ranks(device, 1)
    with distributed.start(device, 0) as world:
        run = replace(run, precision=settle(settings, device))
        found: dict[str, Any] = {"name": run.name, "device": results.device_name(world.device)}
        if run.what != "loader":
            found["model"] = measure_model(run, len(lists.classes) if lists else run.data.num_classes or 1, world)
        if lists:
            trained = found.get("model", {}).get("train", {}).get("clips_per_second")
            found["loader"] = measure_loader(run, lists, world, trained)
    found |= {"precision": run.precision, "cores": distributed.num_cores(), "versions": results.versions()}
    found |= {"commit": results.commit(), "config_hash": identity.config_hash(settings)}
    files.write_json(run_dir / "benchmark.json", found)
    show(found, run_dir)


def load_lists(run: Run) -> Lists:
    """The data set's lists, with a way out for who has none."""
    try:
        return run.load_lists()
    except UserError as error:
        raise UserError(f"{error}; what=model needs no data") from error


# ------------------------------------------------------------------------------------------------------------ the model
def measure_model(run: Run, num_classes: int, world: World) -> dict[str, Any]:
    """Parameters, GMACs, clips/s and memory, of training and of the test, on uint8 clips that lie on the device."""
    run = replace(run, backbone=replace(run.backbone, weights="random"))
    model = run.model(num_classes).to(world.device)
    on_gpu = world.device.type == "cuda"
    gmacs = gmacs_per_view(model)
    clips = run.local_batch_size(1) if on_gpu else max(1, min(run.local_batch_size(1), int(CPU_GMACS / gmacs)))
    warm_up, steps = GPU_STEPS if on_gpu else CPU_STEPS
    batch = make_batch(model, clips, world.device)
    optimizer = adamw(model, run.optim)

    def train() -> None:
        train_step(model, optimizer, [batch], run.train, run.precision, world.device, stop=False)

    @torch.inference_mode()
    def test() -> None:
        with autocast(world.device, run.precision):
            model(model.preprocess(rearrange(batch.video, "b v t c h w -> (b v) t c h w")))

    found: dict[str, Any] = {
        "params_total": sum(parameter.numel() for parameter in model.parameters()),
        "params_tuned": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
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


def make_batch(model: VideoClassifier, clips: int, device: torch.device) -> Batch:
    """Noise on the device, in the loader's form."""
    shape = (clips, 1, model.num_frames, 3, model.size, model.size)
    video = torch.randint(256, shape, dtype=torch.uint8, device=device)
    return Batch(video, torch.zeros(clips, dtype=torch.int64), torch.arange(clips), torch.ones(clips))


def saved_mib_per_clip(run: Run, model: VideoClassifier, device: torch.device) -> float:
    """What a forward pass keeps for the backward one, in MiB a clip: of two clips, less that of one."""
    own = {tensor.untyped_storage().data_ptr() for tensor in chain(model.parameters(), model.buffers())}

    def saved_by(clips: int) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        video = model.preprocess(make_batch(model, clips, device).video[:, 0])
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast(device, run.precision):
            logits = model(video)
        del logits  # it has kept all of them alive, and their addresses apart
        return sum(sizes.values())

    model.train()
    return (saved_by(2) - saved_by(1)) / 2**20


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ----------------------------------------------------------------------------------------------------------- the loader
@dataclass
class Watch:
    """A reader that notes when its file was open, and keeps what it has read."""

    reader: Reader
    opened: float = 0.0
    done: float = 0.0
    frames: Tensor | None = None

    def __call__(
        self, path: str | Path, pick: Pick, short_side: int | None = None, *, span: tuple[float, float] | None = None
    ) -> Tensor:
        """See `video.Reader`: it asks for indices as soon as it knows the number of frames."""

        def noting(num_frames: int) -> "Sequence[int] | NDArray[np.int64]":
            self.opened = time.perf_counter()
            return pick(num_frames)

        self.frames = None
        self.frames = self.reader(path, noting, short_side, span=span)
        self.done = time.perf_counter()
        return self.frames


def measure_loader(run: Run, lists: Lists, world: World, trained: float | None) -> dict[str, Any]:
    """Clips/s of each reader: stage by stage in this process on one core, and of all decoding processes together."""
    found: dict[str, Any] = {"workers": run.data.workers, "augment": vars(run.augment), "readers": {}}
    threads = torch.get_num_threads()
    for name, reader in readers(run.reader).items():
        this = replace(run, reader=reader, train=replace(run.train, accumulate=1, batch_size=batch_size(run)))
        try:
            torch.set_num_threads(1)  # as in the decoding processes
            stages = measure_stages(this, lists, world, name)
            torch.set_num_threads(threads)
            in_all = measure_in_all(this, lists, world, name)
        except UserError as error:
            found["readers"][name] = {"error": str(error)}
            continue
        on_core = [seconds for stage, seconds in stages.items() if stage != STAGES[-1] and seconds is not None]
        found["readers"][name] = {
            "stages_ms": {stage: seconds and round(1000 * seconds, 3) for stage, seconds in stages.items()},
            "clips_per_second_per_core": round(1 / sum(on_core), 2),
            "clips_per_second": round(in_all, 2),
        }
    good = readable(found)
    if not good:
        raise UserError("; ".join(f"{name}: {each['error']}" for name, each in found["readers"].items()))
    speeds = {name: each["clips_per_second_per_core"] for name, each in good.items()}
    found["fastest"] = fastest = max(speeds, key=lambda name: speeds[name])
    rates = [trained] if trained and world.device.type == "cuda" else RATES
    found["cores_needed"] = {f"{rate:g}": math.ceil(rate / speeds[fastest]) for rate in rates}
    return found


def readable(loader: Mapping[str, Any]) -> dict[str, Any]:
    """The readers that could be measured."""
    return {name: each for name, each in loader["readers"].items() if "error" not in each}


def batch_size(run: Run) -> int:
    """Clips of a small batch: whole videos."""
    return math.ceil(LOADER_BATCH / run.train.clips_per_video) * run.train.clips_per_video


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
    """Median seconds of each stage for one clip, measured in this process, one video after the other."""
    with closing(run.train_loader(lists, world)) as loader:
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
    """Seconds that a clip takes to the GPU, as part of a batch; None without one."""
    if device.type != "cuda":
        return None
    batch = torch.stack([row] * LOADER_BATCH).share_memory_()  # type: ignore[no-untyped-call]
    times = []
    for _ in range(10):
        synchronize(device)
        began = time.perf_counter()
        batch.to(device)
        synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times) / (LOADER_BATCH * len(row))


def measure_in_all(run: Run, lists: Lists, world: World, title: str) -> float:
    """Clips/s of the training loader with its `data.workers` processes, once they run."""
    # A list long enough that no epoch ends while we measure.
    lists = replace(lists, train=lists.train * math.ceil(LONG_EPOCH / len(lists.train)))
    with closing(run.train_loader(lists, world)) as loader, Display(f"{title}, all", 100, visible=True) as display:
        batches = itertools.chain.from_iterable(map(loader.epoch, itertools.count()))
        for _ in range(loader.blocks + 1):  # those that were read while the others still started
            next(batches)
        clips, began, passed = 0.0, time.perf_counter(), 0.0
        while passed < LOADER_SECONDS:
            clips += float(next(batches).weight.sum()) * loader.dataset.clips
            passed = time.perf_counter() - began
            display.update(min(100, round(100 * passed / LOADER_SECONDS)), f"{run.data.workers} processes")
    return clips / passed


# ----------------------------------------------------------------------------------------------------------- the report
def show(found: Mapping[str, Any], run_dir: Path) -> None:
    """Print what was measured."""
    console = plain_console()
    console.print(f"{found['name']} on {found['device']}, {found['cores']} cores, {found['precision']}")
    if model := found.get("model"):
        console.print(plain_table(model_rows(model)))
    if loader := found.get("loader"):
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
        console.print(table)
        for name, each in loader["readers"].items():
            if "error" in each:
                console.print(f"{name}: {each['error']}")
        needs = ", ".join(f"{cores} for {rate}" for rate, cores in loader["cores_needed"].items())
        title = f"Cores to decode with for each GPU (reader={loader['fastest']}), by the clips/s that it trains"
        console.print(f"{title}: {needs}")
    console.print(f"written to {run_dir / 'benchmark.json'}")


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
