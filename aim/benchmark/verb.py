"""Measure a setting on this machine: the model's size, speed and memory, and the loader's speed, reader by reader.

    python -m aim.benchmark +experiment=k400                     # both
    python -m aim.benchmark +experiment=k400 what=loader         # how many cores keep a GPU busy?
    python -m aim.benchmark +experiment=k400 what=model          # needs no data
    python -m aim.benchmark +experiment=k400 what=plan gpu=h100  # needs neither data nor that GPU

One process and one GPU are measured; the trunk's weights are random, as no speed depends on them. Leaves
`benchmark.json`, or `plan.json`, in the run directory, by default runs/benchmark/NAME.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from omegaconf import DictConfig

from aim.benchmark.loader import loader_notes, loader_table, measure_loader
from aim.benchmark.model import measure_model, model_rows
from aim.benchmark.plan_table import memory_head, memory_rows, plan_notes, plan_rows
from aim.data.lists import Lists
from aim.engine.machine import distributed
from aim.engine.machine.hardware import Device, Gpu, settle
from aim.engine.run import identity, results
from aim.engine.run.plan import plan, training_videos
from aim.engine.run.settings import Run
from aim.engine.run.sizing import settled
from aim.ground import config, files
from aim.ground.console import plain_console, plain_table
from aim.ground.errors import UserError
from aim.ground.marks import Mark


@dataclass(frozen=True)
class Settings(Run):
    """The values of configs/benchmark.yaml: a run's, and what of it is measured."""

    what: Annotated[Literal["model", "loader", "plan", "all"], Mark.MACHINE]
    gpu: Annotated[Gpu | None, Mark.MACHINE]


def main(cfg: DictConfig) -> None:
    """Measure or plan, print, leave benchmark.json or plan.json."""
    if distributed.is_rank():
        raise UserError("aim.benchmark measures one process; start it with python -m aim.benchmark, without torchrun")
    distributed.refuse_bare_slurm("aim.benchmark")
    asked = config.resolve(cfg)
    videos, _, _ = training_videos(config.build(asked, Settings))
    settings = settled(asked, videos, None)
    run = config.build(settings, Settings)
    run.check_augmentation()
    if run.what == "plan":
        found = {"name": run.name, **plan(run, run.gpu)}
    elif run.gpu is None:
        found = measure(run.placed(), settings)
    else:
        raise UserError(f"gpu={run.gpu} is a GPU to plan for, but what={run.what} measures this machine; add what=plan")
    found |= {"versions": results.versions(), "commit": results.commit(), "config_hash": identity.config_hash(settings)}
    path = run.directory("benchmark") / ("plan.json" if run.what == "plan" else "benchmark.json")
    files.write_json(path, found)
    show(found, path)


def measure(run: Settings, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What this machine does with a run."""
    run.check_precision()
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
    return found | {"precision": run.precision, "cores": distributed.num_cores()}


def load_lists(run: Run) -> Lists:
    """The data set's lists, with a way out for who has none."""
    try:
        return run.load_lists()
    except UserError as error:
        raise UserError(f"{error}; what=model and what=plan need no data") from error


def show(found: Mapping[str, Any], path: Path) -> None:
    """Print what was measured or planned."""
    console = plain_console()
    if "gpu" in found:
        console.print(f"{found['name']} on {found['gpus']} x {found['gpu']}, {found['precision']}: a plan")
        console.print(plain_table(plan_rows(found), overflow="fold"))
        console.print(plain_table(memory_rows(found), memory_head(found), overflow="fold"))
        console.print("\n".join(plan_notes(found)))
    else:
        console.print(f"{found['name']} on {found['device']}, {found['cores']} cores, {found['precision']}")
    if model := found.get("model"):
        console.print(plain_table(model_rows(model)))
    if loader := found.get("loader"):
        console.print(loader_table(loader))
        console.print("\n".join(loader_notes(loader)))
    console.print(f"written to {path}")
