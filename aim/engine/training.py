"""The training loop."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from aim.data.loader import Batch, Loader
from aim.engine import bad_videos, distributed
from aim.engine.distributed import World
from aim.engine.evaluation import Evaluation, evaluate
from aim.engine.feeding import on_device, to_host
from aim.engine.hardware import Precision, autocast
from aim.engine.mixing import mix
from aim.engine.optim import Optim, adamw, learning_rate, set_learning_rate
from aim.engine.profiling import Profile, part
from aim.engine.reporting import Report
from aim.engine.saving import Saver, State
from aim.engine.settings import Training
from aim.engine.tracking import Log
from aim.errors import UserError
from aim.models.classifier import VideoClassifier
from aim.signals import Interrupted, Stop


def train(
    model: VideoClassifier,
    loader: Loader,
    val_loader: Loader,
    *,
    training: Training,
    optim: Optim,
    precision: Precision,
    seed: int,
    run_dir: Path,
    world: World,
    clips: int,
    save_best: Callable[[], None],
    validated: Callable[[int, Evaluation], None],
    identity: Mapping[str, str],
    log: Log,
    stop: Stop,
) -> State:
    """Train what is trainable to the last epoch, from where `last.pt` stands.

    Everything that varies with time is a function of the step, so a run that was killed and continued ends with the
    weights of an unbroken one. Raises Interrupted after a signal, UserError for a loss or gradient that is not finite.
    """
    optimizer = adamw(model, optim)
    saver = Saver(run_dir, model, optimizer, identity, world, clips)
    state = saver.restore()
    state.plan(training.epochs)
    steps_per_epoch = math.ceil(loader.steps_per_epoch / training.accumulate)
    total = steps_per_epoch * training.epochs
    newest = Newest(state, run_dir)
    summing = distributed.summing(model)

    with ExitStack() as stack:
        report = Report(
            run_dir, log, step=state.step, validated=state.validated, total=total, steps_per_epoch=steps_per_epoch,
            batch_size=training.batch_size, visible=world.is_main,
        )  # fmt: skip
        stack.enter_context(report)
        profile = Profile(run_dir / "profile", world.device) if training.profile and world.is_main else None
        if profile:
            stack.callback(profile.close)
        if state.step:
            report.display.say(f"goes on at step {state.step} of {total}")

        while True:
            epoch = state.step // steps_per_epoch
            if epoch > state.validated:  # it has just ended
                newest.read()
                report.pause()
                saver.save(state)
                if due(training.eval_every, epoch, training.epochs):
                    val = evaluate(model, val_loader, device=world.device, precision=precision, stop=stop, title="val")
                    if val.counts.top1 > state.best_top1:
                        state.best_top1, state.best_epoch = val.counts.top1, epoch
                    report.validated(state.step, epoch, val.counts.top1, state.best_epoch)
                    if world.is_main:
                        validated(epoch, val)
                if world.is_main and (state.best_epoch == epoch or not training.eval_every):
                    save_best()
                bad_videos.gathered(run_dir, loader, val_loader)
                state.validated = epoch
                saver.save(state)
                report.resume()
                if newest.stopping:
                    raise stopped(state, total, run_dir)
            if epoch == training.epochs:
                return state

            skipped = (state.step - epoch * steps_per_epoch) * training.accumulate
            batches = on_device(loader.epoch(epoch, start=skipped), world.device)
            for parts in chunks(batches, training.accumulate):
                lr = learning_rate(state.step, optim, steps_per_epoch=steps_per_epoch, epochs=training.epochs)
                set_learning_rate(optimizer, lr)
                torch.manual_seed(seed_of(seed, state.step, world.rank))  # of a GPU, too, which needn't hear of it
                sums = train_step(
                    model, optimizer, parts, training, precision, world.device, stop=bool(stop), summing=summing
                )
                newest.take(sums)
                if state.step % training.log_every == 0 or state.step == total:
                    newest.read()
                    report.line(state.step, lr, loader.waited, state.window)
                    state.window = [0.0, 0.0, 0.0]
                report.tick(state.step)
                if profile and (said := profile.tick(ends_epoch=state.step % steps_per_epoch == 0)):
                    report.display.say(said)
                stopping = newest.stopping  # of a step that all ranks have read; the clock below is each one's own
                if stopping or saver.minutes > training.save_minutes:
                    newest.read()
                    saver.save(state)
                if stopping:
                    raise stopped(state, total, run_dir)


def stopped(state: State, total: int, run_dir: Path) -> Interrupted:
    """How a run ends that a signal has stopped, once it is saved."""
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
        self.state.window = [old + new for old, new in zip(self.state.window, window, strict=True)]
        self.stopping = stops > 0


def train_step(
    model: VideoClassifier,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Batch],
    training: Training,
    precision: Precision,
    device: torch.device,
    *,
    stop: bool,
    summing: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """One step on this rank's parts, which lie on the device, of the global batch. A GPU is never waited for.

    Returns the global batch's loss, weight, hits, gradient norm, and how many ranks were asked to stop. The loss is the
    weighted sum over the global weight, so a video that could not be read counts for nothing. `summing` is what
    `distributed.summing` makes of the model.
    """
    optimizer.zero_grad()
    sums = torch.zeros(5, device=device)
    sums[4] = float(stop)
    for batch in parts:
        with part("preprocessing"):
            clips = batch.video.shape[1]
            video = model.preprocess(rearrange(batch.video, "b v t c h w -> (b v) t c h w"))
            label, weight = batch.label.repeat_interleave(clips), batch.weight.repeat_interleave(clips)
            video, target, weight = mix(video, label, weight, model.head.out_features, training.mixup, training.cutmix)
        with part("forward"):
            with autocast(device, precision):
                logits = (summing or model)(video)
            losses = F.cross_entropy(logits.float(), target, reduction="none", label_smoothing=training.label_smoothing)
            loss = (losses * weight).sum()
            hits = ((logits.argmax(1) == label) * weight).sum()
        with part("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        sums[:3] += torch.stack([loss.detach(), weight.sum(), hits])
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    with part("communication"):
        distributed.sum_([sums] if summing else [*gradients, sums])
    with part("optimizer"):
        torch._foreach_div_(gradients, sums[1].clamp(min=1.0))
        sums[3] = torch.nn.utils.get_total_norm(gradients)
        optimizer.step()
    return sums


def due(every: int, epoch: int, epochs: int) -> bool:
    """Whether something that happens every so many epochs (0: never), and after the last, happens after this one."""
    return every > 0 and (epoch % every == 0 or epoch == epochs)


def seed_of(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout, drop path and mixing on a rank."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def chunks(batches: Iterator[Batch], size: int) -> Iterator[Iterator[Batch]]:
    """Runs of `size` batches, the last one maybe shorter, none of them held back."""
    for first in batches:
        yield chain([first], islice(batches, size - 1))
