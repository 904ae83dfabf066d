"""Test a checkpoint with several views of every video.

    python -m aim.eval +experiment=k400 checkpoint=runs/k400/best.safetensors

Leaves `results.json` and `predictions.npz` (index, label, probability "n k", path) in the run directory.
"""

import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from aim import config
from aim.data.lists import Lists
from aim.engine import checkpoint, distributed, results
from aim.engine.evaluation import Evaluation, evaluate
from aim.engine.settings import Run
from aim.errors import UserError
from aim.weights.trunk import stretch_time


def main(cfg: DictConfig) -> None:
    """Test `checkpoint` with the experiment's protocol."""
    distributed.refuse_bare_slurm("aim.eval")
    settings = config.resolve(cfg)
    run = config.build(settings, Run)
    if run.checkpoint is None:
        raise UserError("checkpoint must be given: add checkpoint=FILE, the best.safetensors of a training run")
    run_dir = run.directory("eval")
    with distributed.interruptible(), ExitStack() as stack:
        saved = checkpoint.read_weights(run.checkpoint)
        lists = run.load_lists()
        check_classes(saved, lists)
        run.backbone.check_weights()
        if not distributed.is_launched():
            ranks = distributed.num_ranks(run.device, run.gpus)
            if distributed.rank() == 0:
                stack.enter_context(checkpoint.locked(run_dir))
            if ranks > 1 and not distributed.is_rank():
                sys.exit(distributed.launch("aim.eval", config.task_overrides(), ranks))
        world = stack.enter_context(distributed.start(run.device, run.data.workers))
        with world.first_on_node():
            model = run.model(len(lists.classes)).to(world.device)
        if run.stretch_time:
            saved = replace(saved, tensors=stretch_time(saved.tensors, model))
        checkpoint.load_weights(model, saved)
        with closing(run.test_loader(lists, world)) as loader, distributed.stop_signals() as stop:
            test = evaluate(model, loader, device=world.device, precision=run.precision, stop=stop)
        if world.is_main:
            save_predictions(run_dir / "predictions.npz", test, lists)
            tested = {"num_missing": test.num_missing, "checkpoint": run.checkpoint}
            found = results.collect(run, settings, world, model, lists, test.counts, **tested)
            checkpoint.write_json(run_dir / "results.json", found)
            results.show(found, run_dir)


def check_classes(saved: checkpoint.Checkpoint, lists: Lists) -> None:
    """Raise UserError if the checkpoint was trained for other classes than the data has."""
    if saved.classes != lists.classes:
        pairs = enumerate(zip_longest(saved.classes, lists.classes, fillvalue="nothing"))
        i, (theirs, ours) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        raise UserError(
            f"{saved.path} knows {len(saved.classes)} classes and the data has {len(lists.classes)}; class {i} is "
            f"{theirs!r} there and {ours!r} here; use the data that it was trained for"
        )


def save_predictions(path: Path, test: Evaluation, lists: Lists) -> None:
    """Write every video's probabilities, "n k", with its label and path."""
    columns: dict[str, Any] = {
        "index": test.index.numpy(),
        "label": test.label.numpy(),
        "probability": test.probability.numpy(),
        "path": np.array([lists.val[i].path for i in test.index.tolist()]),
        "classes": np.array(lists.classes),
    }

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez_compressed(stream, **columns)

    checkpoint.write_atomically(path, write)


if __name__ == "__main__":
    config.entrypoint(main, "config")
