"""Measure a setting on this machine: the model's size, speed and memory, and the loader's speed, reader by reader.

    python -m aim.benchmark +experiment=k400                     # both
    python -m aim.benchmark +experiment=k400 what=loader         # the cores that keep a GPU busy
    python -m aim.benchmark +experiment=k400 what=model          # needs no data
    python -m aim.benchmark +experiment=k400 what=plan gpu=h100  # needs neither data nor that GPU

One process and one GPU are measured; the trunk's weights are random, as no speed depends on them. Each number is shown
as soon as it is measured. Writes `benchmark.json`, or `plan.json`, into the run directory, by default
runs/benchmark/NAME; after Ctrl-C or an error with the measurements so far and `interrupted`.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig

from aim.benchmark.loader import loader_note, loader_table, measure_loader
from aim.benchmark.model import measure_model
from aim.benchmark.plan_table import memory_rows, plan_notes, plan_rows
from aim.data.lists import Lists
from aim.engine.machine import distributed
from aim.engine.machine.hardware import Device, Gpu, settle
from aim.engine.run import identity, results
from aim.engine.run.plan import plan, training_videos
from aim.engine.run.settings import Run
from aim.engine.run.sizing import settled
from aim.ground import config, files
from aim.ground.console import plain_console, plain_table
from aim.ground.errors import UserError, say
from aim.ground.marks import Mark
from aim.ground.signals import INTERRUPTED, Interrupted


@dataclass(frozen=True)
class Settings(Run):
    """The values of configs/benchmark.yaml: a run's, and the measurement."""

    what: Annotated[Literal["model", "loader", "plan", "all"], Mark.MACHINE]
    gpu: Annotated[Gpu | None, Mark.MACHINE]


def main(cfg: DictConfig) -> None:
    """Measure or plan, print, write benchmark.json or plan.json."""
    if distributed.is_rank():
        raise UserError("aim.benchmark measures one process; start it with python -m aim.benchmark, without torchrun")
    distributed.refuse_bare_slurm("aim.benchmark")
    asked = config.resolve(cfg)
    videos, _, _ = training_videos(config.build(asked, Settings))
    settings = settled(asked, videos, None)
    run = config.build(settings, Settings)
    run.check_augmentation()
    if run.what != "plan" and run.gpu is not None:
        raise UserError(f"gpu={run.gpu} is a GPU to plan for, but what={run.what} measures this machine; add what=plan")
    path = run.directory("benchmark") / ("plan.json" if run.what == "plan" else "benchmark.json")
    found: dict[str, Any] = {"name": run.name, "versions": results.versions(), "commit": results.commit()}
    found["config_hash"] = identity.config_hash(settings)
    with kept(found, path):
        if run.what == "plan":
            found |= plan(run, run.gpu)
        else:
            measure(run.placed(), settings, found)
    show(found, path)


@contextmanager
def kept(found: dict[str, Any], path: Path) -> Iterator[None]:
    """Write the findings of the block into a file; if it ends early, those so far."""
    try:
        yield
    except BaseException as error:
        if any(found.get(part) for part in ("model", "loader")):
            files.write_json(path, found | {"interrupted": True})
            say(f"the measurements so far are written to {path}")
            if isinstance(error, Interrupted):
                sys.exit(INTERRUPTED)
        raise
    files.write_json(path, found)


def measure(run: Settings, settings: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Measure a run on this machine, part by part, and show each."""
    run.check_precision()
    lists = None if run.what == "model" else load_lists(run)
    # Decoding can be measured without the GPU.
    device: Device = "cpu" if run.what == "loader" and not torch.cuda.is_available() else run.device
    distributed.num_ranks(device, 1)
    with distributed.start(device, 0) as world:
        run = replace(run, precision=settle(settings, device))
        found |= {"device": results.device_name(world.device), "cores": distributed.num_cores()}
        found |= {"precision": run.precision}
        console = plain_console()
        console.print(f"{found['name']} on {found['device']}, {found['cores']} cores, {found['precision']}")
        if run.what != "loader":
            num_classes = len(lists.classes) if lists else run.data.num_classes or 1
            for line in measure_model(run, num_classes, world, found.setdefault("model", {})):
                console.print(line)
        if lists:
            trained = found.get("model", {}).get("train", {}).get("clips_per_second")
            for line in measure_loader(run, lists, world, trained, found.setdefault("loader", {})):
                console.print(line)


def load_lists(run: Run) -> Lists:
    """The data set's lists, or an error with a way out."""
    try:
        return run.load_lists()
    except UserError as error:
        raise UserError(f"{error}; what=model and what=plan need no data") from error


def show(found: Mapping[str, Any], path: Path) -> None:
    """Print the plan, or the comparison of readers."""
    console = plain_console()
    if "gpu" in found:
        console.print(f"{found['name']} on {found['gpus']} x {found['gpu']}, {found['precision']}: a plan")
        console.print(plain_table(plan_rows(found), overflow="fold"))
        console.print(plain_table(memory_rows(found), ["train.memory", *found["memory"]], overflow="fold"))
        console.print("\n".join(plan_notes(found)))
    if loader := found.get("loader"):
        console.print(loader_table(loader))
        console.print(loader_note(loader))
    console.print(f"written to {path}")
