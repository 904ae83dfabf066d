"""The labels of a long video over time: probabilities of windows, smoothed or not, and the segments they make."""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aim.data.loading.loader import Batch
from aim.data.windows import Cut, Span, Windows, batches, cut, placed, trusting
from aim.engine.machine.feeding import one_late
from aim.engine.machine.hardware import Precision
from aim.engine.scores.tasks import SINGLE_LABEL, Limit, Task
from aim.engine.trained.recogniser import Recogniser
from aim.ground.console import Display
from aim.ground.errors import UserError

SILENT = partial(Display, visible=False)


class Segment(NamedTuple):
    """Neighbouring windows with a label; `label` is its place among the classes, or None where they have none."""

    start: float  # seconds
    end: float
    label: int | None
    probability: float  # of the label, or without any of the best one, the mean over its windows

    def named(self, classes: Sequence[str]) -> str | None:
        """The label's name."""
        return None if self.label is None else classes[self.label]


@dataclass(frozen=True)
class Timeline:
    """The probabilities of each window of a video, in the order of time."""

    path: Path
    duration: float  # seconds
    spans: Sequence[Span]
    probability: Tensor  # float32 "w k", w windows; NaN for those in a pause, which have no frames
    task: Task = SINGLE_LABEL

    @cached_property
    def seen(self) -> list[bool]:
        """Whether each window has frames."""
        return [not row for row in self.probability[:, 0].isnan().tolist()]

    @cached_property
    def middles(self) -> NDArray[np.float64]:
        """The middle of each window, in seconds."""
        return np.array([(span.start + span.end) / 2 for span in self.spans])

    @cached_property
    def bounds(self) -> list[float]:
        """Where each window begins to speak, halfway from the middle of the one before; and where the last one ends."""
        return [0.0, *((self.middles[1:] + self.middles[:-1]) / 2).tolist(), self.duration]

    def smoothed(self, seconds: float) -> "Timeline":
        """Each window that has frames with the mean of those whose middles are at most `seconds` / 2 from its own."""
        if not seconds:
            return self
        reach = seconds / 2 + 1e-6
        first = np.searchsorted(self.middles, self.middles - reach)
        end = np.searchsorted(self.middles, self.middles + reach)
        means = torch.stack([self.probability[a:b].nanmean(0) for a, b in zip(first, end, strict=True)])
        means[~torch.tensor(self.seen)] = torch.nan
        return replace(self, probability=means)

    def segments(self, at_least: Limit) -> list[Segment]:
        """Runs of windows with a label, by their start, which change halfway between two middles. A pause is in none.

        A window may have several labels where the task allows it; one without any is in a run of None.
        """
        given = self.task.given(self.probability, at_least)
        best = self.probability.gather(1, self.task.best(self.probability)[:, None])[:, 0]
        unlabelled = torch.tensor(self.seen) & ~given.any(1)
        bounds, found = self.bounds, list[Segment]()
        for label in [None, *given.any(0).nonzero()[:, 0].tolist()]:
            inside, value = (unlabelled, best) if label is None else (given[:, label], self.probability[:, label])
            edges = np.flatnonzero(np.diff(inside.numpy().astype(np.int8), prepend=0, append=0)).tolist()
            found += [
                Segment(bounds[a], bounds[b], label, float(np.mean(value[a:b].tolist())))
                for a, b in zip(edges[::2], edges[1::2], strict=True)
            ]
        return sorted(found, key=lambda segment: segment.start)

    def at(self, time: float) -> int:
        """The window that speaks for a moment: the one with the nearest middle, as in `segments`."""
        return bisect_right(self.bounds, time, 1, len(self.spans)) - 1


def check_smooth(seconds: float) -> None:
    """Raise UserError for seconds that a time line can't be smoothed over."""
    if not 0 <= seconds < math.inf:
        raise UserError(f"smooth={seconds:g} must be seconds, or 0 for none")


def timeline(
    recogniser: Recogniser,
    path: str | Path,
    windows: Windows,
    *,
    precision: Precision,
    batch_size: int,
    bar: Callable[[str, int], Display] = SILENT,
) -> Timeline:
    """Score the windows of a video while it's decoded, as many at once as have about `batch_size` clips.

    A window gets exactly the probabilities of `Recogniser.reading` for a video of its frames, read with PyAV. `bar`
    shows the seconds that are done. Raises BadVideo for a video that can't be read.
    """

    def scored(trust: bool) -> Timeline:
        found = cut(Path(path), windows, trust=trust)
        clips = batches(found, recogniser.clip, recogniser.views, batch_size)
        return of_clips(recogniser, found, clips, precision=precision, bar=bar)

    return trusting(scored)


def of_clips(
    recogniser: Recogniser,
    cut: Cut,
    clips: Iterator[Batch],
    *,
    precision: Precision,
    bar: Callable[[str, int], Display] = SILENT,
) -> Timeline:
    """The time line of a video by the clips of its windows, as `windows.batches` gives them."""
    parts = list[tuple[Tensor, Tensor]]()
    with bar(cut.path.name, math.ceil(cut.duration)) as display:
        for index, _, probability in one_late(recogniser.scored(clips, precision)):
            parts.append((index, probability))
            last = int(index[-1])
            display.update(math.ceil(cut.spans[last].end), f"{last + 1} windows")
    return Timeline(cut.path, cut.duration, cut.spans, placed(cut, parts), recogniser.task)
