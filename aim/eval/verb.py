"""Test a checkpoint with several views of every video.

    python -m aim.eval checkpoint=runs/k400/best.safetensors data.root=DIR
    python -m aim.eval checkpoint=runs/k400 data.root=DIR views.temporal=5 views.spatial=3

The checkpoint says what the model is and sees, on which data and with which views it was tested; the command what shall
be otherwise. Leaves `results.json` and `predictions.npz` (docs/predictions.md) in the run directory.
"""

import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig

from aim.data.lists import Lists, data_hash
from aim.engine.loop.evaluation import evaluate
from aim.engine.loop.faults import explained_test
from aim.engine.machine import distributed, hardware
from aim.engine.machine.distributed import World
from aim.engine.machine.launcher import launch
from aim.engine.run import identity, results, retest
from aim.engine.run.settings import Run, write_settings
from aim.engine.scores import predictions
from aim.engine.telling import bad_videos
from aim.engine.trained import checkpoint
from aim.engine.trained.checkpoint import Checkpoint
from aim.ground import config, files, lease
from aim.ground.errors import UserError, check_all, say
from aim.ground.marks import Mark
from aim.ground.signals import interruptible, stop_signals
from aim.models.flops import gmacs_per_view
from aim.shell import command
from aim.weights.trunk import stretch_time


@dataclass(frozen=True)
class Settings(Run):
    """The values of configs/eval.yaml: a run's, and which checkpoint is tested."""

    checkpoint: Annotated[str, Mark.MACHINE, Mark.PATH, Mark.COMMAND]
    stretch_time: Annotated[bool, Mark.COMMAND]


def main(cfg: DictConfig) -> None:
    """Test `checkpoint` with its own protocol, or the one that is asked for."""
    distributed.refuse_bare_slurm("aim.eval")
    asked = config.resolve(cfg)
    if asked["checkpoint"] is None:
        raise UserError("checkpoint must be given: add checkpoint=FILE, the best.safetensors of a training run")
    with interruptible(), ExitStack() as after_all, ExitStack() as stack:  # the lease outlives the ranks
        start = distributed.start(hardware.resolve_device(asked["device"]), asked["data"]["workers"])
        world = stack.enter_context(start) if distributed.is_rank() else None
        saved = checkpoint.read_weights(asked["checkpoint"])
        wanted = retest.of_checkpoint(saved.config, asked, config.task_overrides(), saved.path)
        run = config.build(wanted, Settings).placed()
        ranks, lists = check(run, saved)
        if world is None:
            if ranks > 1:
                sys.exit(launch(command.again("aim.eval"), ranks, run.restarts))
            world = stack.enter_context(start)
        content = {
            "checkpoint": saved.fingerprint,
            "data_hash": data_hash(lists.test, lists.classes),
            "settings": identity.config_hash(wanted),
        }
        distributed.agree(content)
        run_dir = directory(run, saved, asked)
        if world.is_main:
            after_all.enter_context(lease.held(run_dir))  # before it nothing is written
            check_free(run_dir, content)
        run = replace(run, precision=hardware.settle(wanted, run.device)).with_reader()
        if saved.precision == "fp8":
            say(f"trained in fp8, tested in {run.precision}")
        test(run, wanted, saved, lists, run_dir, world, content)


def directory(run: Settings, saved: Checkpoint, asked: Mapping[str, Any]) -> Path:
    """Where a test writes: by default under the run's name, the checkpoint's hash, and what is otherwise."""
    trained = saved.path.resolve().parent.name if saved.path.name == "best.safetensors" else saved.path.stem
    other = f",{asked['name']}" if asked["name"] not in ("custom", saved.config["name"]) else ""
    return run.directory("eval", f"{trained},checkpoint={saved.fingerprint[:8]}{other}")


def check(run: Settings, saved: Checkpoint) -> tuple[int, Lists]:
    """Find every problem at once; raise them as one UserError. Returns the number of ranks, and the data's lists."""
    ranks, lists = list[int](), list[Lists]()
    check_all(
        lambda: ranks.append(distributed.num_ranks(run.device, run.gpus)),
        run.backbone.check_weights,
        lambda: lists.append(run.load_lists()),
    )
    checkpoint.check_classes(saved, lists[0])
    return ranks[0], lists[0]


def test(
    run: Settings,
    wanted: Mapping[str, Any],
    saved: Checkpoint,
    lists: Lists,
    run_dir: Path,
    world: World,
    content: Mapping[str, str],
) -> None:
    """Build the model, test it, leave the result and what it was made of."""
    with world.first_on_node():
        model = run.model(len(lists.classes)).to(world.device)
    if run.stretch_time:
        saved = replace(saved, tensors=stretch_time(saved.tensors, model))
    checkpoint.load_weights(model, saved)
    if world.is_main:
        write_settings(wanted, run_dir)
    with (
        closing(run.test_loader(lists, world)) as loader,
        bad_videos.named(run_dir, loader),
        stop_signals() as stop,
        explained_test(run, world),
    ):
        found = evaluate(model, loader, task=run.task, device=world.device, precision=run.precision, stop=stop)
    if world.is_main:
        left = found.predictions(loader.dataset, lists.classes)
        predictions.write(run_dir / predictions.TEST, left, run.predictions)
        tested = {"num_missing": found.num_missing, "checkpoint": str(saved.path), "identity": content}
        result = results.collect(run, wanted, world, model, lists, left, gmacs_per_view(model), **tested)
        files.write_json(run_dir / "results.json", result)
        results.show(result, run_dir)


def check_free(run_dir: Path, content: Mapping[str, str]) -> None:
    """Raise UserError if the folder holds anything but an earlier test of the same."""
    done = run_dir / "results.json"
    before: Mapping[str, str] | None = None if (run_dir / "last.pt").exists() else content
    if done.exists():  # by what its settings are today, for a version before this one may have written them
        settings = identity.config_hash(config.load(run_dir / "config.yaml"))
        before = results.read(done).get("identity", {}) | {"settings": settings}
    if before != content:
        raise UserError(
            f"{run_dir} holds a training run, or a test of another checkpoint, other data or settings; set run_dir=DIR"
        )
