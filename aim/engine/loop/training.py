"""The training loop."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, islice

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from aim.data.loading.loader import Batch, Loader
from aim.engine.loop.course import Caller, Course
from aim.engine.loop.faults import explained
from aim.engine.loop.mixing import mix
from aim.engine.loop.optim import clip_gradients, learning_rate, set_learning_rate
from aim.engine.loop.saving import State
from aim.engine.machine import distributed
from aim.engine.machine.distributed import World
from aim.engine.machine.feeding import on_device
from aim.engine.machine.hardware import Precision, autocast
from aim.engine.machine.profiling import part
from aim.engine.run.recipe import Training
from aim.engine.run.settings import Run
from aim.engine.scores.tasks import Task
from aim.ground.signals import Stop
from aim.models.heads import Trained, over_heads


def train(
    model: Trained, loader: Loader, val_loader: Loader, *, run: Run, caller: Caller, world: World, stop: Stop
) -> State:
    """Train to the last epoch, from the position in `last.pt`.

    Everything that varies with time is a function of the step, so a run that was killed and continued ends with the
    weights of an unbroken one. Raises Interrupted after a signal, UserError for a loss or gradient that is not finite.
    """
    training, optim = run.train, run.optim
    with ExitStack() as stack:
        course = Course(model, loader, val_loader, run, caller, world, stop, stack)
        state, pace, steps_per_epoch = course.state, course.pace, course.steps_per_epoch
        stack.enter_context(explained(course.where, training, world))
        if course.pauses():  # it was stopped before
            course.wrap_up()
        while not course.ended():
            epoch, done = divmod(state.step, steps_per_epoch)
            batches = on_device(loader.epoch(epoch, start=done * training.accumulate), world.device)
            for parts in chunks(batches, training.accumulate):
                lr = learning_rate(state.step, optim, steps_per_epoch=steps_per_epoch, epochs=training.epochs)
                set_learning_rate(course.optimizer, lr)
                torch.manual_seed(seed_of(run.seed, state.step, world.rank))  # of a GPU, too, which needn't hear of it
                pace.begins(loader.waited)
                sums = train_step(
                    model, course.optimizer, parts, training, run.precision, world.device,
                    task=course.task, stop=bool(stop), summing=course.summing, meets=course.meets,
                )  # fmt: skip
                course.newest.take(sums)
                course.average.update(state.step)
                course.tell(lr)
                stopping = course.newest.stopping  # of a step that all ranks have read; the clock is each one's own
                if stopping or course.saver.is_due(training.save_minutes):
                    course.save()
                if stopping:
                    raise course.stopped()
                if course.pauses():
                    course.wrap_up()
                    if course.ended():
                        break
        course.finish()
    course.average.swap()  # for the test
    return state


def train_step(
    model: Trained,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Batch],
    training: Training,
    precision: Precision,
    device: torch.device,
    *,
    task: Task,
    stop: bool,
    summing: Callable[[Tensor], Tensor] | None = None,
    meets: Callable[[], None] = lambda: None,
) -> Tensor:
    """One step on this rank's parts, which lie on the device, of the global batch. A GPU is never waited for.

    Returns the global batch's loss, weight, hits, gradient norm, and how many ranks were asked to stop. The loss is the
    weighted sum over the global weight, so a video that could not be read counts for nothing; of several heads loss,
    hits and norm are means. `summing` is the forward pass of `distributed.summing`; `meets` is called when this rank
    has done its own part.
    """
    optimizer.zero_grad()
    sums = torch.zeros(5, device=device)
    sums[4] = float(stop)
    for batch in parts:
        with part("preprocessing"):
            clips = batch.video.shape[1]
            video = model.preprocess(rearrange(batch.video, "b v ... -> (b v) ..."))
            label, weight = batch.label.repeat_interleave(clips, 0), batch.weight.repeat_interleave(clips)
            video, target, weight = mix(
                task, video, label, weight, model.head.out_features, training.mixup, training.cutmix
            )
        with part("forward"):
            with autocast(device, precision):
                logits = (summing or model)(video)
            losses = over_heads(task.loss, logits.float(), target, training.label_smoothing)
            loss = (losses * weight).sum()
            hits = (over_heads(task.hits, logits, label) * weight).sum()
        with part("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        sums[:3] += torch.stack([loss.detach(), weight.sum(), hits])
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    meets()
    with part("communication"):
        distributed.sum_([sums] if summing else [*gradients, sums])
    with part("optimizer"):
        torch._foreach_div_(gradients, sums[1].clamp(min=1.0))
        sums[3] = clip_gradients(optimizer, training.clip_grad)
        optimizer.step()
    return sums


def seed_of(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout, drop path and mixing on a rank."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def chunks(batches: Iterator[Batch], size: int) -> Iterator[Iterator[Batch]]:
    """Runs of `size` batches, the last one maybe shorter, none of them held back."""
    for first in batches:
        yield chain([first], islice(batches, size - 1))
