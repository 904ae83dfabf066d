"""Scores every video exactly once, at any number of ranks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor

from aim.data.loader import Batch, Loader
from aim.engine import distributed
from aim.engine.console import Display
from aim.engine.feeding import on_device, one_late, to_host
from aim.engine.hardware import Precision, autocast
from aim.engine.metrics import Counts
from aim.models.classifier import VideoClassifier
from aim.signals import Interrupted, Stop


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
        batches = on_device(loader.epoch(0), device)
        for step, scores in enumerate(one_late(score(model, batches, device=device, precision=precision))):
            if stopped := bool(stop):
                break
            index, label, weight, probability = scores
            read = weight > 0
            num_missing += int((~read).sum())
            parts.append((index[read], label[read], probability[read]))
            display.update(step + 1, f"{loader.batch_size * (step + 1)} videos")
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


def score(
    model: VideoClassifier, batches: Iterator[Batch], *, device: torch.device, precision: Precision
) -> Iterator[Callable[[], list[Tensor]]]:
    """Begin to score batches on the device: of each what gives index, label, weight, and probabilities "b k"."""
    for batch in batches:
        video = rearrange(batch.video, "b v t c h w -> (b v) t c h w")
        with autocast(device, precision):
            logits = model(model.preprocess(video))
        probability = reduce(logits.float().softmax(1), "(b v) k -> b k", "mean", b=len(batch.video))
        yield to_host(batch.index, batch.label, batch.weight, probability)
