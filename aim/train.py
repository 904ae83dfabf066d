"""Train adapters in a frozen trunk, and test them.

    python -m aim.train +experiment=demo
    python -m aim.train +experiment=k400 adapter.ratio=0.125 train.batch_size=128
    torchrun --nproc-per-node=8 -m aim.train +experiment=k400      # the same ranks, started by torchrun

The same command continues an interrupted run. Exit codes: 0 done, 2 something to mend, 75 interrupted and saved.
"""

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.dictconfig import DictConfig

from aim import config
from aim.clock import seconds_since_start
from aim.data.lists import data_hash
from aim.engine import checkpoint, distributed, results
from aim.engine.distributed import World
from aim.engine.evaluation import evaluate
from aim.engine.settings import Run
from aim.engine.tracking import Log
from aim.engine.training import train, write_bad_videos
from aim.errors import UserError


def main(cfg: DictConfig) -> None:
    """Check what can be checked, start the ranks if there are to be several, train, test."""
    distributed.refuse_bare_slurm("aim.train")
    settings = config.resolve(cfg)
    run = config.build(settings, Run)
    run_dir = run.directory()
    with distributed.interruptible(), ExitStack() as stack:
        if not distributed.is_launched():
            ranks = distributed.num_ranks(run.device, run.gpus)
            if was_finished(run_dir, settings):
                return
            preflight(run, run_dir, settings, ranks)
            if distributed.rank() == 0:
                stack.enter_context(checkpoint.locked(run_dir))
            if ranks > 1 and not distributed.is_rank():
                sys.exit(distributed.launch("aim.train", config.task_overrides(), ranks))
        world = stack.enter_context(distributed.start(run.device, run.data.workers))
        train_and_test(run, settings, run_dir, world)


def was_finished(run_dir: Path, settings: Mapping[str, Any]) -> bool:
    """Show the result of a run that is already done. Raises UserError if the folder holds another run."""
    saved = run_dir / "config.yaml"
    if saved.exists() and any((run_dir / name).exists() for name in ("last.pt", "results.json")):
        before = config.experiment_settings(config.load(saved))
        now = config.experiment_settings(settings)
        changes = [
            f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        if changes:
            raise UserError(
                f"{run_dir} holds a run of another configuration: {'; '.join(changes[:5])}"
                + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
                + "; set run_dir=DIR, or delete the folder"
            )
    done = run_dir / "results.json"
    if not done.exists():
        return False
    if distributed.rank() == 0:
        results.show(json.loads(done.read_text(encoding="utf-8")), run_dir)
        print(f"This run was already finished; to train again, delete {run_dir} or set run_dir=DIR.")
    return True


def preflight(run: Run, run_dir: Path, settings: Mapping[str, Any], ranks: int) -> None:
    """Find every problem before ranks start and anything is written; raise them as one UserError."""
    problems = []

    def check_last() -> None:
        if (run_dir / "last.pt").exists():
            checkpoint.load_last(run_dir / "last.pt")

    def check_init() -> None:
        if run.init is not None:
            checkpoint.read_weights(run.init)

    checks = (
        lambda: run.local_batch_size(ranks),
        run.check_augmentation,
        run.backbone.check_weights,
        check_init,
        check_last,
        run.load_lists,
    )
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    run_dir.mkdir(parents=True, exist_ok=True)
    text = OmegaConf.to_yaml(OmegaConf.create(dict(settings)))
    checkpoint.write_atomically(run_dir / "config.yaml", lambda file: checkpoint.write_text(file, text))


def train_and_test(run: Run, settings: Mapping[str, Any], run_dir: Path, world: World) -> None:
    """Build the model and the loaders, train or continue, test with the experiment's protocol, leave results.json."""
    lists = run.load_lists()
    with world.first_on_node():
        model = run.model(len(lists.classes)).to(world.device)
    if run.init is not None:
        saved = checkpoint.read_weights(run.init)
        checkpoint.load_weights(model, saved, head=saved.classes == lists.classes)
    distributed.broadcast_(list(model.state_dict().values()))
    with ExitStack() as stack:
        log: Log = stack.enter_context(run.tracker.open(run_dir, run.name, settings)) if world.is_main else silent
        train_loader = stack.enter_context(closing(run.train_loader(lists, world)))
        val_loader = stack.enter_context(closing(run.val_loader(lists, world)))
        try:
            state = train(
                model,
                train_loader,
                val_loader,
                training=run.train,
                optim=run.optim,
                precision=run.precision,
                seed=run.seed,
                run_dir=run_dir,
                world=world,
                save_best=lambda: checkpoint.save_weights(run_dir / "best.safetensors", model, settings, lists.classes),
                identity={"data": data_hash([*lists.train, *lists.val], lists.classes), "trunk": model.fingerprint},
                log=log,
            )
        except UserError:
            write_bad_videos(run_dir, train_loader.bad)  # among them what stopped the run
            raise
    tested: dict[str, Any] = {"weights": "last"}
    if run.test == "best":
        checkpoint.load_weights(model, checkpoint.read_weights(run_dir / "best.safetensors"))
        chosen = {"by": "validation top-1, one view", "top1": state.best_top1, "epoch": state.best_epoch}
        tested = {"weights": "best", "selection": chosen}
    with closing(run.test_loader(lists, world)) as loader, distributed.stop_signals() as stop:
        test = evaluate(model, loader, device=world.device, precision=run.precision, stop=stop)
    if world.is_main:
        tested |= {"num_missing": test.num_missing, "seconds": round(state.seconds + seconds_since_start(), 1)}
        found = results.collect(run, settings, world, model, lists, test.counts, **tested)
        checkpoint.write_json(run_dir / "results.json", found)
        results.show(found, run_dir)


def silent(step: int, values: Mapping[str, float]) -> None:
    """The tracker of the other ranks."""


if __name__ == "__main__":
    config.entrypoint(main, "config")
