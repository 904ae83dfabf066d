"""How a run trains: the settings `train` and `optim`, as configs/config.yaml lists them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from aim.adapters.interface import Recipe
from aim.engine.scores.balancing import Balance, By
from aim.ground.errors import UserError, check_least
from aim.ground.marks import Auto, Before, Mark
from aim.models.memory import Memory


def steps_per_epoch(videos: int, clips_per_video: int, batch_size: int) -> int:
    """The optimizer's steps of an epoch, the last of them maybe with fewer clips."""
    return math.ceil(videos * clips_per_video / batch_size)


@dataclass(frozen=True)
class Training:
    """The values of `train` in configs/config.yaml. `batch_size` is global: over all ranks and accumulated parts."""

    epochs: Annotated[int, Auto(20), Mark.LENGTH, Mark.IDLE]  # auto by the videos: aim.engine.run.sizing
    batch_size: Annotated[int, Auto(32)]
    clips_per_video: int  # of a step's batch, from one decoding (repeated augmentation)
    accumulate: Annotated[int, Mark.MACHINE]  # parts that a step's batch is worked through in, to save memory
    label_smoothing: Annotated[float, Mark.IDLE]
    mixup: Annotated[float, Mark.IDLE]  # alpha of the beta distribution; 0 is off
    cutmix: Annotated[float, Mark.IDLE]
    eval_every: Annotated[float, Auto(1), Mark.IDLE]  # epochs; 0 is never
    eval_videos: Annotated[int | None, Before(None), Mark.IDLE]  # of a validation, always the same; None: all
    best_by: Annotated[str, Before("top1"), Mark.IDLE]  # of the validations: a metric of the task
    choose: Annotated[float, Before(0.2), Mark.IDLE]  # share of the training videos, without a third list
    balance: Annotated[Balance, Before("none"), Mark.IDLE]  # for rare classes: weights, turns, or logits
    balance_by: Annotated[By, Before("root"), Mark.IDLE]  # the weights of classes by their numbers of videos
    patience: Annotated[int | None, Before(None), Mark.IDLE]  # validations without a better one that end it
    ema: Annotated[float | None, Before(None), Mark.IDLE]  # decay of the mean weights, which replace them
    clip_grad: Annotated[float | None, Before(None), Mark.IDLE]  # norm of all gradients together
    features: Annotated[Literal["computed", "cached", "auto"], Before("computed")]  # of a trunk that is only read
    draws: Annotated[int, Before(4), Mark.IDLE]  # random clips of a training video of which features are kept
    features_gb: Annotated[float, Mark.MACHINE, Before(50.0)]  # that all kept features may take on this machine's disk
    log_every: Annotated[int, Auto(10), Mark.MACHINE]  # steps
    save_minutes: Annotated[float, Mark.MACHINE]
    shard: Annotated[bool, Mark.MACHINE, Before(False)]  # the frozen blocks over the ranks
    profile: Annotated[bool, Mark.MACHINE, Before(False)]  # leave a trace and a table of some steps in run_dir/profile
    memory: Annotated[Memory, Mark.MACHINE, Before("fast")]  # kept for the backward pass
    compile: Annotated[bool | Literal["gpu"], Mark.MACHINE, Before(False)]  # blocks; gpu: where there is one

    def __post_init__(self) -> None:
        counts = ("epochs", "batch_size", "clips_per_video", "accumulate", "draws", "log_every")
        check_least(self, 1, *counts, prefix="train.")
        if not 0 < self.choose <= 0.5:
            raise UserError(f"train.choose={self.choose:g}; use a share above 0, of 0.5 at most, such as 0.2")
        if not 0 <= self.eval_every < math.inf:
            raise UserError(f"train.eval_every={self.eval_every}; use a number of epochs, or 0 for never")
        for name in ("eval_videos", "patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"train.{name}={value}; use 1 or more, or null")
        if self.patience is not None and not self.eval_every:
            raise UserError(
                f"train.patience={self.patience} with train.eval_every=0: there is no validation to wait for"
            )
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError(f"train.ema={self.ema}; use a decay between 0 and 1, such as 0.999, or null")
        if self.clip_grad is not None and not self.clip_grad > 0:
            raise UserError(f"train.clip_grad={self.clip_grad}; use a norm above 0, such as 1.0, or null")

    def steps_per_epoch(self, videos: int) -> int:
        """The optimizer's steps in which each of so many videos comes once."""
        return steps_per_epoch(videos, self.clips_per_video, self.batch_size)

    def clips_at_once(self, ranks: int) -> int:
        """Clips that one rank works through at once; more than its share where the batch can't be divided."""
        each = self.clips_per_video
        return math.ceil(self.batch_size / (each * ranks * self.accumulate)) * each

    def fitting(self, ranks: int, most: int) -> int | None:
        """The most clips, but not more than that, which a rank's share of a batch can be worked through in at once."""
        clips, least = self.batch_size // ranks, 2 if self.mixup or self.cutmix else 1
        found = [n for n in range(least, most + 1) if clips % n == 0 and n % self.clips_per_video == 0]
        return max(found, default=None)


@dataclass(frozen=True)
class Optim:
    """The values of `optim` in configs/config.yaml (AIM, appendix; the public code's configs where it is silent).

    Several rates or decays are those of as many heads, each rate with each decay.
    """

    lr: Annotated[float | Sequence[float], Auto(Recipe.lr)]  # auto: of the adapter's recipe
    weight_decay: Annotated[float | Sequence[float], Auto(Recipe.weight_decay)]
    betas: Sequence[float]
    warmup_epochs: Annotated[float, Auto(1)]  # auto: the adapter's share of the run
    warmup_start: float  # the share of the rate at step 0
    schedule: Annotated[
        Literal["step", "epoch"], Auto(Recipe.schedule)
    ]  # the cosine falls at every step, or once an epoch as the public code's does
    no_decay: Sequence[str]  # glob patterns of parameters without weight decay
    lr_mult: Mapping[str, float]  # glob pattern -> factor of the rate; the first that matches counts

    def __post_init__(self) -> None:
        for name in ("lr", "weight_decay"):
            value = getattr(self, name)
            single = isinstance(value, float | int)
            values = [value] if single else list(value)
            fit = len(set(values)) == len(values) > 0 and all(0 <= each < math.inf for each in values)
            if not fit or (name == "lr" and not single and 0 in values):
                least = "above 0" if name == "lr" else "0 or more"
                said = value if single else values
                raise UserError(f"optim.{name}={said}; use one number, or a list of different ones, all {least}")

    @property
    def several(self) -> bool:
        """Whether heads train side by side; one of a list does so, too."""
        return not (isinstance(self.lr, float | int) and isinstance(self.weight_decay, float | int))

    @property
    def heads(self) -> list["OfHead"]:
        """The rate and decay of each head, of a plain run those of the model."""
        rates = [self.lr] if isinstance(self.lr, float | int) else self.lr
        decays = [self.weight_decay] if isinstance(self.weight_decay, float | int) else self.weight_decay
        return [OfHead(lr, decay) for lr in rates for decay in decays]


class OfHead(NamedTuple):
    """A head's share of `optim`."""

    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Published:
    """The result that an experiment reproduces, as its source prints it."""

    top1: float  # per cent
    source: str
