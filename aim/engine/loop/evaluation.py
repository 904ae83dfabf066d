"""Scores every video exactly once, at any number of ranks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from numpy.typing import NDArray
from torch import Tensor

from aim.data.dataset import VideoDataset
from aim.data.lists import data_hash
from aim.data.loading.loader import Batch, Loader
from aim.data.transforms import Views
from aim.engine.machine import distributed
from aim.engine.machine.feeding import on_device, one_late, to_host
from aim.engine.machine.hardware import Precision, autocast
from aim.engine.machine.sharding import in_step, is_sharded
from aim.engine.scores import guessing
from aim.engine.scores.guessing import OneAnswer
from aim.engine.scores.predictions import Predictions, spans
from aim.engine.scores.tasks import Task
from aim.ground.console import SLOW, Display
from aim.ground.kinds import written
from aim.ground.signals import Interrupted, Stop
from aim.models.compiling import is_compiled
from aim.models.heads import Trained


@dataclass
class Evaluation:
    """A test's outcome: every video's probabilities by its place in the list."""

    task: Task
    index: Tensor  # int64 "n", ascending
    label: Tensor  # int64 "n", or as the task has it
    probability: Tensor  # float32 "n k", the mean over views; of h heads "n h k"
    log_probability: Tensor  # float16 "n v k", of each view; of h heads "n v h k"
    seconds: NDArray[np.float32]  # "n v 2", when the first and the last frame of each view are shown; NaN if unknown
    num_missing: int  # videos that could not be read; only with data.on_error=skip

    @property
    def heads(self) -> "list[Evaluation]":
        """The outcome of each of several heads; of a model itself."""
        if self.probability.ndim == 2:
            return [self]
        each = zip(self.probability.unbind(1), self.log_probability.unbind(2), strict=True)
        return [replace(self, probability=probability, log_probability=views) for probability, views in each]

    @property
    def scores(self) -> dict[str, float]:
        """The metrics of a validation, under their names in the log."""
        probability, label = self.probability.numpy(), self.label.numpy()
        metrics = [metric for metric in self.task.metrics if metric.validated is not None]
        return {str(metric.validated): metric.validation(probability, label) for metric in metrics}

    @property
    def one_answer(self) -> OneAnswer | None:
        """The class that (nearly) all videos are taken for."""
        return guessing.one_answer(self.task, self.probability, self.label)

    def predictions(self, dataset: VideoDataset, classes: Sequence[str], **about: Any) -> Predictions:
        """The predictions to write for the videos of `dataset`; `about` has the caller's own metadata."""
        assert isinstance(dataset.transform, Views)
        videos = [dataset.videos[i] for i in self.index.tolist()]
        where = {"root": str(dataset.root.resolve()), "data_hash": data_hash(dataset.videos, classes)}
        views = dataset.transform.protocol(dataset.clip.num_frames)
        return Predictions(
            index=self.index.numpy(),
            label=self.label.numpy(),
            path=np.array([video.path for video in videos], np.str_),
            span=spans(videos),
            probability=self.probability.numpy(),
            log_probability=self.log_probability.numpy(),
            seconds=self.seconds,
            classes=np.array(classes, np.str_),
            about={**where, "views": views, "task": written("task", self.task), **about},
        )


@torch.inference_mode()
def evaluate(
    model: Trained,
    loader: Loader,
    *,
    task: Task,
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
    k, v = model.head.out_features, loader.dataset.shape[0]
    parts = list[tuple[Tensor, ...]]()
    num_missing, stopped = 0, False
    together = is_sharded(model)  # then no rank may go ahead, or stay behind
    with Display(title, loader.batches_per_epoch, visible=distributed.rank() == 0, hint=SLOW) as display:
        planned = in_step(loader) if together else loader.epoch(0)
        batches = on_device(filled(planned, loader.batch_size) if is_compiled(model) else planned, device)
        for step, scores in enumerate(one_late(score(model, batches, task=task, device=device, precision=precision))):
            if stopped := any(distributed.gather(bool(stop))) if together else bool(stop):
                break
            index, label, weight, probability, views = scores
            read = weight > 0
            num_missing += int((~read & (index >= 0)).sum())
            parts.append((index[read], label[read], probability[read], views[read]))
            display.update(step + 1, f"{min(loader.batch_size * (step + 1), len(loader.dataset))} videos")
    model.train(was_training)
    nothing = torch.empty(0, dtype=torch.int64)
    no_label = torch.empty((0, k) if task.several else 0, dtype=torch.int64)
    parts = parts or [(nothing, no_label, torch.empty(0, k), torch.empty(0, v, k, dtype=torch.float16))]
    mine = [torch.cat(column).numpy() for column in zip(*parts, strict=True)]
    seconds = np.array([loader.seconds[i] for i in mine[0].tolist()], np.float32).reshape(-1, v, 2)
    distributed.meet()
    ranks = distributed.gather((*mine, seconds, num_missing, stopped))
    if any(rank[6] for rank in ranks):  # all together: a rank that left alone would tear the others' connections
        raise Interrupted(f"stopped by a signal during the {title}, which will be done again")
    some = [rank for rank in ranks if len(rank[0])] or ranks[:1]  # a rank without videos doesn't know a label's shape
    columns = [np.concatenate([rank[i] for rank in some]) for i in range(5)]
    order = columns[0].argsort()
    index, label, probability, views = (torch.from_numpy(column[order]) for column in columns[:4])
    assert len(index) == len(set(index.tolist())), "a video was counted twice"
    missing = sum(rank[5] for rank in ranks)
    return Evaluation(task, index, label, probability, views, columns[4][order], missing)


def filled(batches: Iterator[Batch], size: int) -> Iterator[Batch]:
    """Batches of one size, for each would be compiled anew: rows that are added, to the last one, hold nothing."""
    for batch in batches:
        if lacking := size - len(batch.index):
            video, label = (torch.cat([x, x.new_zeros(lacking, *x.shape[1:])]) for x in (batch.video, batch.label))
            index, weight = F.pad(batch.index, (0, lacking), value=-1), F.pad(batch.weight, (0, lacking))
            batch = Batch(video, label, index, weight)
        yield batch


def score(
    model: Trained, batches: Iterator[Batch], *, task: Task, device: torch.device, precision: Precision
) -> Iterator[Callable[[], list[Tensor]]]:
    """Start to score batches on the device.

    Each result gives index, label, weight, probabilities "b k", and their logarithms for each view, float16 "b v k"; of
    h heads "b h k" and "b v h k".
    """
    for batch in batches:
        video = rearrange(batch.video, "b v ... -> (b v) ...")
        with autocast(device, precision):
            logits = model(model.preprocess(video))
        logits = logits.float()
        probability = reduce(task.probability(logits), "... (b v) k -> b ... k", "mean", b=len(batch.video))
        views = rearrange(task.log_probability(logits).half(), "... (b v) k -> b v ... k", b=len(batch.video))
        yield to_host(batch.index, batch.label, batch.weight, probability, views)
