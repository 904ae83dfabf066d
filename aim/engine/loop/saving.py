"""Progress of a run and its saves: `last.pt` is written on the first rank, and every rank reads the same state."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from aim.engine.loop.ema import Average
from aim.engine.machine import distributed
from aim.engine.machine.distributed import World
from aim.engine.run.content import check_same
from aim.engine.trained import checkpoint
from aim.ground.clock import seconds_since_start
from aim.ground.errors import UserError
from aim.ground.signals import Interrupted
from aim.models.heads import Trained


@dataclass
class State:
    """How far a run is; with the weights, their mean and the optimizer's moments all that `last.pt` needs."""

    step: int = 0
    rested: int = 0  # the step up to which all that follows an epoch's end or a validation is done
    validated: int = 0  # the step after which the newest validation was
    best: float | None = None  # by train.best_by, of the validations so far
    best_epoch: float = 0.0
    in_vain: int = 0  # validations since the best one
    seconds: float = 0.0  # of the processes before this one
    # Loss, weight, hits, norms of gradients, steps: their sums since the last log line.
    window: list[float] = field(default_factory=lambda: [0.0] * 5)
    schedule: list[list[int]] = field(default_factory=list)  # (step, epochs): from it on the rate is that of so many

    def plan(self, epochs: int) -> None:
        """Note from which step on the run is one of so many epochs."""
        if not self.schedule or self.schedule[-1][1] != epochs:
            self.schedule = [*(plan for plan in self.schedule if plan[0] < self.step), [self.step, epochs]]


class Saver:
    """Writes `last.pt` during training, which waits only for the copy to memory, and for the save before.

    The error of a write is raised by the next call of any method.
    """

    def __init__(
        self,
        run_dir: Path,
        model: Trained,
        optimizer: torch.optim.Optimizer,
        average: Average,
        identity: Mapping[str, str],
        world: World,
        split: Mapping[str, int],
    ) -> None:
        self.path, self.model, self.optimizer, self.average = run_dir / "last.pt", model, optimizer, average
        self.identity, self.world = dict(identity), world
        self.split = dict(split)  # clips that a rank may work through at once, and the train.accumulate asked for
        self.saved_at = time.monotonic()
        self.writer = ThreadPoolExecutor(1, "aim-saver")
        self.writing: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        self.writer.shutdown()  # waits; whatever happened, a copy that was taken is written
        if isinstance(error, Interrupted):
            self.finish()  # a failed write must not pass for saved

    def is_due(self, minutes: float) -> bool:
        """Whether so much time has passed since the last save."""
        if self.writing is not None and self.writing.done():
            self.finish()
        return time.monotonic() - self.saved_at > 60 * minutes

    def save(self, state: State) -> None:
        """Start to write `last.pt`. Every rank calls it."""
        self.finish()
        self.saved_at = time.monotonic()
        if self.world.is_main:
            saved = {
                **asdict(replace(state, seconds=state.seconds + seconds_since_start())),
                "model": checkpoint.trained_tensors(self.model),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.average.mean,
                "identity": self.identity,
                **self.split,
            }
            self.writing = self.writer.submit(checkpoint.save_last, self.path, tree_map(copied, saved))

    def finish(self) -> None:
        """Wait until the save that was started is written."""
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def restore(self) -> State:
        """Continue from the first rank's `last.pt`, or begin; the other nodes may not see its folder.

        Raises UserError if it was trained on other data or another trunk.
        """
        found = self.world.is_main and self.path.exists()
        saved = distributed.share(checkpoint.load_last(self.path) if found else None)
        if saved is None:
            return State()
        if lacking := [f.name for f in fields(State) if f.name not in saved]:
            raise UserError(
                f"{self.path} is of another version (it lacks {', '.join(lacking)}); delete it, or set run_dir"
            )
        check_same(saved, self.identity, self.path.parent)
        checkpoint.put_tensors(self.model, saved["model"], str(self.path))
        for group in saved["optimizer"]["param_groups"]:
            group["fused"] = self.optimizer.defaults["fused"]  # of this device, and not of the one that saved
        self.optimizer.load_state_dict(saved["optimizer"])
        self.average.restore(saved["ema"])
        return State(**{f.name: saved[f.name] for f in fields(State)})


def copied(value: Any) -> Any:
    """A tensor's copy in the host's memory, which the next steps leave alone."""
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
