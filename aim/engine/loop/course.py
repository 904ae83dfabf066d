"""A training run under way: its progress, log and saves, and the pauses between its steps."""

import math
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from aim.data.loading.loader import Loader
from aim.engine.loop.ema import Average
from aim.engine.loop.evaluation import Evaluation, evaluate
from aim.engine.loop.optim import adamw
from aim.engine.loop.saving import Saver, State
from aim.engine.loop.selection import due, exhausted, foremost, judge
from aim.engine.machine import distributed
from aim.engine.machine.distributed import World
from aim.engine.machine.feeding import to_host
from aim.engine.machine.profiling import Profile, part
from aim.engine.run.settings import Run
from aim.engine.scores.balancing import balanced
from aim.engine.scores.guessing import chance
from aim.engine.scores.metrics import of_validation
from aim.engine.telling import bad_videos
from aim.engine.telling.progress import Report
from aim.engine.telling.tracking import Log
from aim.engine.telling.watching import Pace, Watch, cure_for_waiting
from aim.ground.errors import UserError
from aim.ground.signals import Interrupted, Stop
from aim.models.heads import Heads, Trained


@dataclass(frozen=True)
class Caller:
    """The folder of a run and its identity, and the caller's part in a validation."""

    run_dir: Path
    identity: Mapping[str, str]
    split: Mapping[str, int]  # clips that a rank may work through at once, and the train.accumulate asked for
    save_best: Callable[[], None]
    validated: Callable[[float, Evaluation, bool], None]  # after so many epochs, on every rank; whether it's the best
    log: Log


class Diverged(UserError):
    """The weights are lost: the loss, or a gradient, is not finite."""


class Course:
    """A training run from its restored state to its end; `stack` closes what it opens."""

    def __init__(
        self,
        model: Trained,
        loader: Loader,
        val_loader: Loader,
        run: Run,
        caller: Caller,
        world: World,
        stop: Stop,
        stack: ExitStack,
    ) -> None:
        self.model, self.loader, self.val_loader = model, loader, val_loader
        self.run, self.caller, self.world, self.stop = run, caller, world, stop
        training, run_dir = run.train, caller.run_dir
        self.optimizer = adamw(model, run.optim)
        self.average = Average(model, training.ema)
        self.steps_per_epoch = steps_per_epoch = training.steps_per_epoch(len(loader.dataset))
        self.total = total = steps_per_epoch * training.epochs
        self.is_due = partial(due, training.eval_every, steps_per_epoch=steps_per_epoch, total=total)
        self.summing = distributed.summing(model)
        self.best_by = of_validation(run.task.metrics, training.best_by)

        self.saver = stack.enter_context(
            Saver(run_dir, model, self.optimizer, self.average, caller.identity, world, caller.split)
        )
        self.state = state = self.saver.restore()
        state.plan(training.epochs)
        self.newest, self.pace, self.met = Newest(state, run_dir, self.lose), Pace(world.device), False
        listed = torch.from_numpy(loader.dataset.labels).to(world.device)
        self.task = balanced(run.task, training.balance, training.balance_by, listed, model.head.out_features)
        labels = listed[torch.from_numpy(loader.order(0, len(listed)) % len(listed))].cpu()  # as they come
        self.watch = Watch(
            step=state.step, chance=chance(run.task, labels, model.head.out_features), clips=training.batch_size,
            warm_up=run.optim.warmup_epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch, total=total,
            cure=cure_for_waiting(loader.workers, world.size),
        )  # fmt: skip
        self.report = Report(
            run_dir, caller.log, step=state.step, rested=state.rested, total=total, steps_per_epoch=steps_per_epoch,
            batch_size=training.batch_size, device=world.device, watch=self.watch, visible=world.is_main,
        )  # fmt: skip
        stack.enter_context(self.report)
        self.profile = Profile(run_dir / "profile", world.device) if training.profile and world.is_main else None
        if self.profile:
            stack.callback(self.profile.close)
        if state.step:
            self.report.display.say(f"continues at step {state.step} of {total}")
            self.lose()

    def lose(self) -> bool:
        """Go on without the heads that have diverged, if others are left; whether there were any."""
        lost = self.model.give_up() if isinstance(self.model, Heads) else []
        for place in lost:
            for name, parameter in self.model.named_parameters():
                if name.startswith(f"copies.{place}."):
                    self.optimizer.state.pop(parameter, None)
                    self.average.mean.get(name, parameter.detach()).zero_()
            lr, decay = self.run.optim.heads[place]
            self.report.warn(
                f"the head of optim.lr={lr:g} and optim.weight_decay={decay:g} has diverged, and is given up at "
                f"{self.where()}; the others continue"
            )
        if lost:
            self.summing = None  # of all heads' gradients
        return bool(lost)

    def where(self) -> str:
        """The step that is being done."""
        return f"step {self.state.step + 1} of {self.total}"

    def meets(self) -> None:
        """This rank has done its own part of a step. In the first one of a process it may have compiled for long."""
        self.pace.meets()
        if not self.met:
            self.met = True
            distributed.meet()

    def ended(self) -> bool:
        """Whether there is no step left to do."""
        return self.state.step >= self.total or exhausted(self.state, self.run.train.patience)

    def pauses(self) -> bool:
        """Whether there is more to do after the newest step than the next one."""
        state = self.state
        ends_epoch = state.step > state.rested and state.step % self.steps_per_epoch == 0
        # A run that has become shorter may be at its end, where a validation wasn't due before.
        return ends_epoch or (state.step > state.validated and self.is_due(state.step))

    def wrap_up(self) -> None:
        """Validate if it is time, keep the best weights, save."""
        state, report, world = self.state, self.report, self.world
        self.newest.read()
        report.pause()
        self.saver.save(state)
        improved = not self.run.train.eval_every
        with self.average.in_place():
            if self.is_due(state.step):
                improved = self.validate()
            if improved and world.is_main:
                self.caller.save_best()
        bad_videos.gathered(self.caller.run_dir, self.loader, self.val_loader)
        if text := self.watch.ranks(distributed.gather((socket.gethostname(), self.pace.seconds))):
            report.warn(text)
        state.rested = state.step
        self.saver.save(state)
        report.resume()
        if self.newest.stopping:
            raise self.stopped()

    def validate(self) -> bool:
        """Score the weights in place, of several heads each; whether the best is the best so far."""
        run, state, world = self.run, self.state, self.world
        found = evaluate(
            self.model, self.val_loader, task=run.task, device=world.device, precision=run.precision, stop=self.stop,
            title="val",
        )  # fmt: skip
        heads = found.heads
        val = heads[foremost([each.scores for each in heads], self.best_by) if len(heads) > 1 else 0]
        improved = judge(state, val.scores, self.best_by, state.step / self.steps_per_epoch)
        state.validated = state.step
        by = dict.fromkeys([*(each for each in run.task.metrics if each.main), self.best_by])
        told = ", ".join(f"{each.validated_words} {each.text(val.scores[str(each.validated)])}" for each in by)
        self.report.validated(state.step, val.scores, told, improved=improved, one_answer=val.one_answer)
        self.caller.validated(self.report.epoch(state.step), found, improved)
        return improved

    def tell(self, lr: float) -> None:
        """Log the newest step if it is time, and move the display and the profile on."""
        state = self.state
        if state.step % self.run.train.log_every == 0 or state.step == self.total:
            self.newest.read()
            self.report.line(state.step, lr, self.loader.waited, state.window)
            state.window = State().window
        self.report.tick(state.step)
        ends_epoch = state.step % self.steps_per_epoch == 0
        if self.profile and (said := self.profile.tick(ends_epoch=ends_epoch)):
            self.report.display.say(said)

    def save(self) -> None:
        """Begin to write the newest step's state."""
        self.newest.read()
        self.saver.save(self.state)

    def stopped(self) -> Interrupted:
        """How a run ends that a signal has stopped, once it is saved."""
        self.saver.finish()
        return Interrupted(
            f"stopped by a signal; saved at step {self.state.step} of {self.total} in {self.caller.run_dir}"
        )

    def finish(self) -> None:
        """Say why training ends early, if it does, and wait for the last save."""
        if self.state.step < self.total:
            epoch = round(self.state.best_epoch, 3)
            self.report.display.say(f"training ends: no better validation since epoch {epoch:g} (train.patience)")
        self.saver.finish()


class Newest:
    """The sums of the newest step, which are read one step later: a GPU has the next step by then, and never waits."""

    def __init__(self, state: State, run_dir: Path, lose: Callable[[], bool]) -> None:
        self.state, self.run_dir = state, run_dir
        self.lose, self.lost = lose, 0  # the last step whose sums may still have those of a lost head
        self.sums: Callable[[], list[Tensor]] | None = None
        self.stopping = False  # a rank was asked to stop

    def take(self, sums: Tensor) -> None:
        """Count a step as done, and read the one before."""
        self.read()
        self.sums, self.state.step = to_host(sums), self.state.step + 1

    def read(self) -> None:
        """Add the newest sums to the state's. Raises Diverged where they tell that the weights are lost."""
        if self.sums is None:
            return
        with part("reading results"):
            (sums,), self.sums = self.sums(), None
        *window, norm, stops = sums.tolist()
        self.stopping = stops > 0
        for name, value in (("loss", window[0]), ("gradient's norm", norm)):
            if not math.isfinite(value):
                if self.lose():
                    self.lost = self.state.step + 1  # is under way
                if self.state.step <= self.lost:
                    return
                raise Diverged(
                    f"the {name} became {value} at step {self.state.step}; use a lower optim.lr or precision=fp32 "
                    f"(that is another run), or repeat the command to continue from the last save in {self.run_dir}"
                )
        new = [*window, norm, 1.0]
        self.state.window = [old + value for old, value in zip(self.state.window, new, strict=True)]
