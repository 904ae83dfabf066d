"""Test a checkpoint with several views of every video.

    python -m aim.eval +experiment=k400 checkpoint=runs/k400/best.safetensors

Leaves `results.json` and `predictions.npz` (index, label, probability "n k", path) in the run directory.
"""

import sys
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce
from omegaconf import DictConfig
from torch import Tensor

from aim import checkpoint, config, distributed, results
from aim.data.lists import Lists
from aim.data.loader import Loader
from aim.distributed import Interrupted, Stop
from aim.errors import UserError
from aim.metrics import Counts
from aim.models.classifier import VideoClassifier
from aim.models.weights import stretch_time
from aim.run import Precision, Run, autocast
from aim.tracking import Display


@dataclass
class Evaluation:
    """A test's outcome: the counts, and every video's probabilities by its place in the list."""

    counts: Counts
    index: Tensor  # int64 "n", ascending
    label: Tensor  # int64 "n"
    probability: Tensor  # float32 "n k", the mean over views
    num_missing: int  # videos that could not be read; only with data.on_error=skip


@torch.inference_mode()
def evaluate(
    model: VideoClassifier,
    loader: Loader,
    *,
    device: torch.device,
    precision: Precision,
    stop: Stop | None = None,
    title: str = "test",
) -> Evaluation:
    """Score every video of the loader exactly once at any number of ranks; views are averaged as probabilities.

    Raises Interrupted, on all ranks, when `stop` becomes true on one.
    """
    was_training = model.training
    model.eval()
    k = model.head.out_features
    parts = [(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0, k))]
    num_missing, stopped = 0, False
    with Display(title, loader.steps_per_epoch, visible=distributed.rank() == 0) as display:
        for step, batch in enumerate(loader.epoch(0)):
            if stopped := bool(stop):
                break
            b = len(batch.video)
            video = rearrange(batch.video.to(device), "b v t c h w -> (b v) t c h w")
            with autocast(device, precision):
                logits = model(model.preprocess(video))
            probability = reduce(logits.float().softmax(1), "(b v) k -> b k", "mean", b=b).cpu()
            read = batch.weight > 0
            num_missing += int((~read).sum())
            parts.append((batch.index[read].clone(), batch.label[read].clone(), probability[read]))
            display.update(step + 1, f"{b * (step + 1)} videos")
    model.train(was_training)
    mine = [torch.cat(column) for column in zip(*parts, strict=True)]
    ranks = distributed.gather((*(column.numpy() for column in mine), num_missing, stopped))
    if any(rank[4] for rank in ranks):  # all together: a rank that left alone would tear the others' connections
        raise Interrupted(f"stopped by a signal during the {title}, which will be done again")
    index, label, probability = (torch.from_numpy(np.concatenate([rank[i] for rank in ranks])) for i in range(3))
    order = index.argsort()
    assert len(index) == len(set(index.tolist())), "a video was counted twice"
    return Evaluation(
        Counts.of(probability, label), index[order], label[order], probability[order], sum(rank[3] for rank in ranks)
    )


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
