"""The training loop."""

import math
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from aim.data.loading.loader import Batch, Loader
from aim.engine.loop.ema import Average
from aim.engine.loop.evaluation import Evaluation, evaluate
from aim.engine.loop.faults import explained
from aim.engine.loop.mixing import mix
from aim.engine.loop.optim import adamw, learning_rate, set_learning_rate
from aim.engine.loop.saving import Saver, State
from aim.engine.loop.selection import due, exhausted, judge
from aim.engine.machine import distributed
from aim.engine.machine.distributed import World
from aim.engine.machine.feeding import on_device, to_host
from aim.engine.machine.hardware import Precision, autocast
from aim.engine.machine.profiling import Profile, part
from aim.engine.run.settings import Optim, Training
from aim.engine.scores.metrics import of_validation
from aim.engine.scores.tasks import Task
from aim.engine.telling import bad_videos
from aim.engine.telling.progress import Report
from aim.engine.telling.tracking import Log
from aim.engine.telling.watching import Pace, Watch, cure_for_waiting
from aim.ground.errors import UserError
from aim.ground.signals import Interrupted, Stop
from aim.models.classifier import VideoClassifier


def train(
    model: VideoClassifier,
    loader: Loader,
    val_loader: Loader,
    *,
    task: Task,
    training: Training,
    optim: Optim,
    precision: Precision,
    seed: int,
    run_dir: Path,
    world: World,
    split: Mapping[str, int],
    save_best: Callable[[], None],
    validated: Callable[[float, Evaluation], None],
    identity: Mapping[str, str],
    log: Log,
    stop: Stop,
) -> State:
    """Train what is trainable to the last epoch, from where `last.pt` stands.

    Everything that varies with time is a function of the step, so a run that was killed and continued ends with the
    weights of an unbroken one. Raises Interrupted after a signal, UserError for a loss or gradient that is not finite.
    """
    optimizer = adamw(model, optim)
    average = Average(model, training.ema)
    steps_per_epoch = training.steps_per_epoch(len(loader.dataset))
    total = steps_per_epoch * training.epochs
    is_due = partial(due, training.eval_every, steps_per_epoch=steps_per_epoch, total=total)
    summing = distributed.summing(model)
    best_by = of_validation(task.metrics, training.best_by)

    with ExitStack() as stack:
        saver = stack.enter_context(Saver(run_dir, model, optimizer, average, identity, world, split))
        state = saver.restore()
        state.plan(training.epochs)
        newest, pace = Newest(state, run_dir), Pace(world.device)
        classes = model.head.out_features
        watch = Watch(
            step=state.step, classes=classes, chance=task.chance(classes),
            warm_up=optim.warmup_epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch, total=total,
            cure=cure_for_waiting(loader.workers, world.size),
        )  # fmt: skip
        report = Report(
            run_dir, log, step=state.step, rested=state.rested, total=total, steps_per_epoch=steps_per_epoch,
            batch_size=training.batch_size, device=world.device, watch=watch, visible=world.is_main,
        )  # fmt: skip
        stack.enter_context(report)
        profile = Profile(run_dir / "profile", world.device) if training.profile and world.is_main else None
        if profile:
            stack.callback(profile.close)
        if state.step:
            report.display.say(f"goes on at step {state.step} of {total}")

        def rest() -> None:
            """Validate if it is time, keep the best weights, save."""
            newest.read()
            report.pause()
            saver.save(state)
            improved = not training.eval_every
            with average.in_place():
                if is_due(state.step):
                    val = evaluate(
                        model, val_loader, task=task, device=world.device, precision=precision, stop=stop, title="val"
                    )
                    improved = judge(state, val.scores, best_by, state.step / steps_per_epoch)
                    state.validated = state.step
                    report.validated(state.step, val.scores, (task.metrics[0], best_by), improved=improved)
                    if world.is_main:
                        validated(report.epoch(state.step), val)
                if improved and world.is_main:
                    save_best()
            bad_videos.gathered(run_dir, loader, val_loader)
            if text := watch.ranks(distributed.gather((socket.gethostname(), pace.seconds))):
                report.warn(text)
            state.rested = state.step
            saver.save(state)
            report.resume()
            if newest.stopping:
                raise stopped(state, total, run_dir, saver)

        def rests() -> bool:
            """Whether there is more to do after the newest step than the next one."""
            ends_epoch = state.step > state.rested and state.step % steps_per_epoch == 0
            # A run that has become shorter may be at its end, where a validation wasn't due before.
            return ends_epoch or (state.step > state.validated and is_due(state.step))

        stack.enter_context(explained(lambda: f"step {state.step + 1} of {total}", training, world))
        if rests():  # it was stopped before
            rest()
        while state.step < total and not exhausted(state, training.patience):
            epoch, done = divmod(state.step, steps_per_epoch)
            batches = on_device(loader.epoch(epoch, start=done * training.accumulate), world.device)
            for parts in chunks(batches, training.accumulate):
                lr = learning_rate(state.step, optim, steps_per_epoch=steps_per_epoch, epochs=training.epochs)
                set_learning_rate(optimizer, lr)
                torch.manual_seed(seed_of(seed, state.step, world.rank))  # of a GPU, too, which needn't hear of it
                pace.begins(loader.waited)
                sums = train_step(
                    model, optimizer, parts, training, precision, world.device,
                    task=task, stop=bool(stop), summing=summing, meets=pace.meets,
                )  # fmt: skip
                newest.take(sums)
                average.update(state.step)
                if state.step % training.log_every == 0 or state.step == total:
                    newest.read()
                    report.line(state.step, lr, loader.waited, state.window)
                    state.window = State().window
                report.tick(state.step)
                if profile and (said := profile.tick(ends_epoch=state.step % steps_per_epoch == 0)):
                    report.display.say(said)
                stopping = newest.stopping  # of a step that all ranks have read; the clock below is each one's own
                if stopping or saver.is_due(training.save_minutes):
                    newest.read()
                    saver.save(state)
                if stopping:
                    raise stopped(state, total, run_dir, saver)
                if rests():
                    rest()
                    if exhausted(state, training.patience):
                        break
        if state.step < total:
            report.display.say(
                f"training ends: no better validation since epoch {round(state.best_epoch, 3):g} (train.patience)"
            )
        saver.finish()
    average.swap()  # for the test
    return state


def stopped(state: State, total: int, run_dir: Path, saver: Saver) -> Interrupted:
    """How a run ends that a signal has stopped, once it is saved."""
    saver.finish()
    return Interrupted(f"stopped by a signal; saved at step {state.step} of {total} in {run_dir}")


class Newest:
    """The sums of the newest step, which are read one step later: a GPU has the next step by then, and never waits."""

    def __init__(self, state: State, run_dir: Path) -> None:
        self.state, self.run_dir = state, run_dir
        self.sums: Callable[[], list[Tensor]] | None = None
        self.stopping = False  # a rank was asked to stop

    def take(self, sums: Tensor) -> None:
        """Count a step as done, and read the one before."""
        self.read()
        self.sums, self.state.step = to_host(sums), self.state.step + 1

    def read(self) -> None:
        """Add the newest sums to the state's. Raises UserError where they tell that the weights are lost."""
        if self.sums is None:
            return
        with part("reading results"):
            (sums,), self.sums = self.sums(), None
        *window, norm, stops = sums.tolist()
        for name, value in (("loss", window[0]), ("gradient's norm", norm)):
            if not math.isfinite(value):
                raise UserError(
                    f"the {name} became {value} at step {self.state.step}; use a lower optim.lr or precision=fp32 "
                    f"(that is another run), or repeat the command to continue from the last save in {self.run_dir}"
                )
        new = [*window, norm, 1.0]
        self.state.window = [old + value for old, value in zip(self.state.window, new, strict=True)]
        self.stopping = stops > 0


def train_step(
    model: VideoClassifier,
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
    weighted sum over the global weight, so a video that could not be read counts for nothing. `summing` is what
    `distributed.summing` makes of the model; `meets` is told when this rank has done its own part.
    """
    optimizer.zero_grad()
    sums = torch.zeros(5, device=device)
    sums[4] = float(stop)
    for batch in parts:
        with part("preprocessing"):
            clips = batch.video.shape[1]
            video = model.preprocess(rearrange(batch.video, "b v t c h w -> (b v) t c h w"))
            label, weight = batch.label.repeat_interleave(clips, 0), batch.weight.repeat_interleave(clips)
            video, target, weight = mix(
                task, video, label, weight, model.head.out_features, training.mixup, training.cutmix
            )
        with part("forward"):
            with autocast(device, precision):
                logits = (summing or model)(video)
            losses = task.loss(logits.float(), target, training.label_smoothing)
            loss = (losses * weight).sum()
            hits = (task.hits(logits, label) * weight).sum()
        with part("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        sums[:3] += torch.stack([loss.detach(), weight.sum(), hits])
    tuned = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    gradients = [p.grad for p in tuned]
    meets()
    with part("communication"):
        distributed.sum_([sums] if summing else [*gradients, sums])
    with part("optimizer"):
        torch._foreach_div_(gradients, sums[1].clamp(min=1.0))
        sums[3] = torch.nn.utils.get_total_norm(gradients)
        if training.clip_grad is not None:
            torch.nn.utils.clip_grads_with_norm_(tuned, training.clip_grad, sums[3])
        optimizer.step()
    return sums


def seed_of(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout, drop path and mixing on a rank."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def chunks(batches: Iterator[Batch], size: int) -> Iterator[Iterator[Batch]]:
    """Runs of `size` batches, the last one maybe shorter, none of them held back."""
    for first in batches:
        yield chain([first], islice(batches, size - 1))
