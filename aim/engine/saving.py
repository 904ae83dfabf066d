"""How far a run is, and its saves: `last.pt` is written on the first rank, and every rank gets what stands in it."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch

from aim.clock import seconds_since_start
from aim.engine import checkpoint, distributed
from aim.engine.distributed import World
from aim.engine.identity import check_same
from aim.errors import UserError
from aim.models.classifier import VideoClassifier


@dataclass
class State:
    """How far a run is; with the weights and the optimizer's moments all that `last.pt` needs."""

    step: int = 0
    validated: int = 0  # epochs
    best_top1: float = -1.0  # of the validations so far, in percent
    best_epoch: int = 0
    seconds: float = 0.0  # of the processes before this one
    window: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # loss, weight, hits since the last log line
    schedule: list[list[int]] = field(default_factory=list)  # (step, epochs): from it on the rate is that of so many

    def plan(self, epochs: int) -> None:
        """Note from which step on the run is one of so many epochs."""
        if not self.schedule or self.schedule[-1][1] != epochs:
            self.schedule = [*(plan for plan in self.schedule if plan[0] < self.step), [self.step, epochs]]


class Saver:
    """Writes `last.pt` on the first rank, and gives every rank what stands in it."""

    def __init__(
        self,
        run_dir: Path,
        model: VideoClassifier,
        optimizer: torch.optim.Optimizer,
        identity: Mapping[str, str],
        world: World,
        clips: int,
    ) -> None:
        self.path, self.model, self.optimizer, self.world = run_dir / "last.pt", model, optimizer, world
        self.identity, self.clips = dict(identity), clips  # clips: what a rank may work through at once
        self.saved_at = time.monotonic()

    @property
    def minutes(self) -> float:
        """Since the last save."""
        return (time.monotonic() - self.saved_at) / 60

    def save(self, state: State) -> None:
        """Write what a run needs to go on. Every rank calls it."""
        self.saved_at = time.monotonic()
        if self.world.is_main:
            now = replace(state, seconds=state.seconds + seconds_since_start())
            tensors = checkpoint.trained_tensors(self.model)
            saved = {**asdict(now), "model": tensors, "optimizer": self.optimizer.state_dict()}
            checkpoint.save_last(self.path, saved | {"identity": self.identity, "clips": self.clips})

    def restore(self) -> State:
        """Go on from what the first rank finds, or begin; the other nodes may not see its folder.

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
        self.optimizer.load_state_dict(saved["optimizer"])
        return State(**{f.name: saved[f.name] for f in fields(State)})
