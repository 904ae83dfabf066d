"""Test a checkpoint with several views of every video.

    python -m aim.eval checkpoint=runs/k400/best.safetensors data.root=DIR
    python -m aim.eval checkpoint=runs/k400 data.root=DIR views.temporal=5 views.spatial=3

The checkpoint has the model, its input, data and views; the command gives only differences. Writes `results.json` and
`predictions.npz` (docs/predictions.md) into the run directory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig

from aim.data import cropping
from aim.data.lists import Lists, data_hash
from aim.engine.loop.testing import leave, test
from aim.engine.machine import distributed
from aim.engine.machine.distributed import say_once
from aim.engine.run import identity, replaced, results, retest
from aim.engine.run.job import Checked, Earlier, Job, started
from aim.engine.run.settings import Run, write_settings
from aim.engine.trained import checkpoint
from aim.engine.trained.checkpoint import Checkpoint
from aim.ground import config
from aim.ground.errors import UserError, check_all, say
from aim.ground.marks import Mark
from aim.ground.signals import Stop, stop_signals
from aim.models.flops import gmacs_per_view
from aim.weights.trunk import stretch_time


@dataclass(frozen=True)
class Settings(Run):
    """The values of configs/eval.yaml: the checkpoint, and a run's settings, as an experiment may be given for it.

    Those of the training come only from the checkpoint (`Mark.TRAINING`).
    """

    checkpoint: Annotated[str, Mark.MACHINE, Mark.PATH, Mark.COMMAND]
    stretch_time: Annotated[bool, Mark.COMMAND]


def main(cfg: DictConfig) -> None:
    """Test `checkpoint` with its own or the given protocol, unless the result exists already."""
    with started("aim.eval", config.resolve(cfg), check, tested_before) as job:
        if job is not None:
            for note in job.lists.notes:
                say(note)
            with stop_signals() as stop:
                build_and_test(job, stop)


def check(asked: Mapping[str, Any]) -> Checked[Settings]:
    """Find every error at once; raise them as one UserError. The checkpoint has the settings that aren't given."""
    if asked["checkpoint"] is None:
        raise UserError("checkpoint must be given: add checkpoint=FILE, the best.safetensors of a training run")
    saved = checkpoint.read_weights(asked["checkpoint"])
    settings = retest.of_checkpoint(saved.config, asked, config.task_overrides(), saved.path)
    run = config.build(settings, Settings).placed()
    ranks, lists = list[int](), list[Lists]()
    check_all(
        lambda: ranks.append(distributed.num_ranks(run.device, run.gpus)),
        run.backbone.check_weights,
        lambda: lists.append(run.load_lists()),
    )
    checkpoint.check_classes(saved, lists[0])
    content = {
        "checkpoint": saved.fingerprint,
        "data_hash": data_hash(lists[0].test, lists[0].classes),
        "settings": identity.config_hash(settings),
    }
    return Checked(run, settings, lists[0], ranks[0], content, directory(run, saved, asked), saved)


def directory(run: Settings, saved: Checkpoint, asked: Mapping[str, Any]) -> Path:
    """A test's folder: by default with the run's name, the checkpoint's hash, and differing settings."""
    trained = saved.run if saved.path.name == "best.safetensors" else saved.path.stem
    other = f",{asked['name']}" if asked["name"] not in ("custom", saved.config["name"]) else ""
    return run.directory("eval", f"{trained},checkpoint={saved.fingerprint[:8]}{other}")


def tested_before(checked: Checked[Settings]) -> Earlier:
    """Whether the folder holds the result of this test, which is shown.

    Raises UserError if it holds anything else.
    """
    run_dir = checked.run_dir
    done, last = run_dir / "results.json", run_dir / "last.pt"
    if not (done.exists() or last.exists()):
        return Earlier()
    found = results.read(done) if done.exists() else {}
    # By its settings in today's form: an earlier version may have written them.
    settings = identity.config_hash(config.load(run_dir / "config.yaml")) if done.exists() else ""
    if last.exists() or found.get("identity", {}) | {"settings": settings} != checked.content:
        raise UserError(
            f"{run_dir} holds a training run, or a test of another checkpoint, other data or settings; set run_dir=DIR"
        )
    changes = replaced.changes(run_dir, checked.run.data.folder, checked.lists.test)
    if changes.others:
        say_once(f"{run_dir} has an earlier test, which is made again: {changes}")
        return Earlier()
    if text := str(changes):
        say_once(f"warning: {run_dir} has an earlier test; {text}")
    results.show(found, run_dir)
    print(f"This test was already done; to do it again, delete {run_dir} or set run_dir=DIR.")
    return Earlier(finished=True)


def build_and_test(job: Job[Settings], stop: Stop) -> None:
    """Build the model, test it, write the result and its sources."""
    run, world, saved = job.run, job.world, job.start
    assert saved is not None, "a test has a checkpoint"
    if saved.precision == "fp8":
        say(f"trained in fp8, tested in {run.precision}")
    with world.first_on_node():
        model = run.model(len(job.lists.classes)).to(world.device)
    tensors = stretch_time(saved.tensors, model) if run.stretch_time else saved.tensors
    checkpoint.load_weights(model, replace(saved, tensors=tensors))
    if world.is_main:
        cropping.say_once(run.data.folder, job.lists.test, run.clip, run.views)
        (job.run_dir / "results.json").unlink(missing_ok=True)  # of other videos of the same names; a kill leaves none
        write_settings(job.settings, job.run_dir)
        replaced.note(job.run_dir, run.data.folder, job.lists.test)
    found, left = test(job, model, run.test_dataset(job.lists), stop, None, saved.calibration)
    if world.is_main:
        tested = {"num_missing": found.num_missing, "checkpoint": str(saved.path), "identity": dict(job.content)}
        if saved.chosen_by is not None:
            chose = saved.chosen_by == job.content["data_hash"]
            tested |= {"part": "validation" if chose else "test", "chose": ["weights"] * chose}
        if saved.calibrated_by is not None:
            tested["fits_temperature"] = saved.calibrated_by == job.content["data_hash"]
        leave(job, model, left, gmacs_per_view(model), **tested)
