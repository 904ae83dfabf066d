"""Warnings about a running training, once each: nothing is learnt, data is waited for, a rank is slow."""

import math
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence

import torch

from aim.engine.machine.distributed import num_cores
from aim.engine.scores.guessing import Chance

WAITING = 0.2  # of the time, over
WATCHED_SECONDS = 60.0  # at least: a pool of processes takes its time to start
CLIPS = 1000  # in which nothing is learnt, at least; and an epoch
FEW = 30  # in the second half of a run that has fewer after its warm-up
BY_CHANCE = 2.0  # standard deviations above chance
FLAT = 0.005  # of the loss, between one such time and the next
SLOWER = 4 / 3  # than the others
NOTICED = 0.01  # seconds more than the others; steps on kept features take a thousandth
PACED, ENOUGH = 100, 30  # steps that are looked at, and at least


class Watch:
    """Looks at the lines of training, those of rank 0."""

    def __init__(
        self, *, step: int, chance: Chance, clips: int, warm_up: float, steps_per_epoch: int, total: int, cure: str
    ) -> None:
        """`chance` is of the training videos, `clips` are those of a step."""
        self.chance, self.steps_per_epoch, self.total = chance, steps_per_epoch, total
        self.short = (total - warm_up) * clips < max(CLIPS, steps_per_epoch * clips)
        self.first = total // 2 if self.short else warm_up  # the step after which clips count
        self.cure = cure  # for waiting for data
        self.waited, self.seconds = 0.0, -1.0  # below 0 before the first line, in which processes start
        self.began = step  # since which what follows is summed
        self.loss, self.weight, self.hits = 0.0, 0.0, 0.0
        self.before: float | None = None  # the loss before that
        self.done = set[str]()

    def line(self, step: int, window: Sequence[float], waited: float, seconds: float) -> Iterator[str]:
        """Warnings about the steps since the last line: `window` is that of State, the times in seconds."""
        yield from self._waiting(waited, seconds)
        if step <= self.first:
            self.began = step
            return
        self.loss, self.weight, self.hits = (
            old + new for old, new in zip((self.loss, self.weight, self.hits), window[:3], strict=True)
        )
        long = step - self.began >= self.steps_per_epoch and self.weight >= CLIPS
        if long or (self.short and step == self.total and self.weight >= FEW):
            yield from self._learning(step)
            self.before, self.began = self.loss / self.weight, step
            self.loss, self.weight, self.hits = 0.0, 0.0, 0.0

    def _waiting(self, waited: float, seconds: float) -> Iterator[str]:
        if self.seconds < 0:
            self.seconds = 0.0
            return
        self.waited, self.seconds = self.waited + waited, self.seconds + seconds
        if self.seconds < WATCHED_SECONDS:
            return
        share, self.waited, self.seconds = self.waited / self.seconds, 0.0, 0.0
        if share > WAITING:
            yield from self._once("waiting", f"training waits for data {share:.0%} of the time: {self.cure}")

    def _learning(self, step: int) -> Iterator[str]:
        chance, top1, loss = self.chance.hits, self.hits / self.weight, self.loss / self.weight
        since = f"from step {self.began} to {step}{'' if self.short else ', the warm-up being over'}"
        if (
            not self.chance.several
            and chance < 1
            and top1 <= chance + BY_CHANCE * math.sqrt(chance * (1 - chance) / self.weight)
        ):
            yield from self._once(
                "chance",
                f"training top-1 is {top1:.1%}, not clearly above always answering the largest class ({chance:.1%}), "
                f"{since}: are the labels those of these videos, and is optim.lr right (or warmup_epochs too short"
                f"{', or train.epochs' if self.short else ''})?",
            )
        elif (
            self.before is not None
            and step <= self.total / 2
            and loss > self.chance.loss / 2
            and abs(loss - self.before) <= FLAT * self.before
        ):
            yield from self._once(
                "flat", f"the loss has stayed at {loss:.3f} {since}: is optim.lr right, and is enough being trained?"
            )

    def ranks(self, paces: Sequence[tuple[str, float]]) -> str | None:
        """A warning, once, about the slowest rank, from each rank's host and the seconds of its Pace."""
        return next(self._once("rank", text), None) if (text := slow_rank(paces)) else None

    def _once(self, kind: str, text: str) -> Iterator[str]:
        if kind not in self.done:
            self.done.add(kind)
            yield text


Moment = float | torch.cuda.Event  # of the process's clock in seconds, or of a GPU's


class Pace:
    """How long this rank works on a step before it meets the others, waiting for data included, of late.

    Where gradients are summed in buckets, ranks meet during the backward pass, and are all as slow as the slowest.
    """

    def __init__(self, device: torch.device) -> None:
        self.on_gpu, self.waited = device.type == "cuda", 0.0
        self.steps = deque[tuple[float, Moment, Moment]](maxlen=PACED)

    def begins(self, waited: float) -> None:
        """A step's batch is there; `waited` is for all batches so far, in seconds."""
        self.data, self.waited, self.start = waited - self.waited, waited, self._now()

    def meets(self) -> None:
        """The rank has done its part of the step."""
        self.steps.append((self.data, self.start, self._now()))

    @property
    def seconds(self) -> float:
        """The median of a step, once the results of all steps have been read; 0 where there are few."""
        if len(self.steps) < ENOUGH:
            return 0.0
        return statistics.median(data + between(start, end) for data, start, end in self.steps)

    def _now(self) -> Moment:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def between(start: Moment, end: Moment) -> float:
    """Seconds from one moment to another of the same kind."""
    if isinstance(start, float):
        assert isinstance(end, float)
        return end - start
    assert not isinstance(end, float)
    return float(start.elapsed_time(end)) / 1000


def slow_rank(paces: Sequence[tuple[str, float]]) -> str | None:
    """A warning about the slowest rank, from each rank's host and its seconds of a step before they meet."""
    slowest = max(range(len(paces)), key=lambda rank: paces[rank][1])
    host, seconds = paces[slowest]
    others = statistics.median([pace for rank, (_, pace) in enumerate(paces) if rank != slowest] or [seconds])
    if seconds <= max(SLOWER * others, others + NOTICED):
        return None
    return (
        f"rank {slowest} on {host} takes {seconds:.2f} s a step before it meets the others, who take {others:.2f} s "
        "and wait for it: does something else run there, or is its GPU hot or its disk slow?"
    )


def cure_for_waiting(workers: int, ranks: int) -> str:
    """The ways to wait less for data."""
    more = "set data.workers" if not workers else f"raise data.workers={workers} ({num_cores()} cores here"
    if workers:
        more += f", {ranks} ranks)" if ranks > 1 else ")"
    return f"{more}, or prepare the videos once with aim.prepare; aim.benchmark what=loader says what is slow"
