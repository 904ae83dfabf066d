"""The answer about a video, or about some seconds of it, and its JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from torch import Tensor

from aim.data.windows import Span
from aim.engine.scores.tasks import SINGLE_LABEL, Limit, Task
from aim.engine.trained.timeline import Timeline

NONE = "none of these"


@dataclass(frozen=True)
class Answer:
    """The labels of a video, or of a window of it; or why it can't be read."""

    name: str  # of the video, as it was given
    best: Sequence[tuple[str, float]] = ()  # label and probability, the most probable first
    given: Sequence[str] = ()  # those that are the answer
    several: bool = False  # there may be any number of them
    span: Span | None = None  # of the window
    at: datetime | None = None  # when it was over, of a stream
    error: str | None = None
    probability: Sequence[float] = ()  # of each class, in their order

    @property
    def label(self) -> str | Sequence[str] | None:
        """The label, None where it has none; where there may be several, all of them."""
        return self.given if self.several else next(iter(self.given), None)

    @property
    def shown(self) -> list[tuple[str, float | None]]:
        """The rows of a caption: where there may be several labels, those alone; NONE first where there is none."""
        best = [pair for pair in self.best if pair[0] in self.given or not self.given or not self.several]
        return [*([] if self.given else [(NONE, None)]), *best]


@dataclass(frozen=True)
class Asking:
    """The names of a model's classes, how many labels are told, and from which probability on one is given."""

    classes: Sequence[str]
    top: int
    at_least: Limit
    task: Task = SINGLE_LABEL

    def answers(self, name: str, found: Tensor | Timeline | str) -> list[Answer]:
        """The lines for a video with probabilities "k", for each window of one, or for a video that can't be read."""
        if isinstance(found, str):
            return [Answer(name, error=found)]
        if isinstance(found, Timeline):
            rows = zip(found.probability, found.spans, strict=True)
            return [self._answer(name, probability, span) for probability, span in rows]
        return [self._answer(name, found, None)]

    def _answer(self, name: str, probability: Tensor, span: Span | None) -> Answer:
        """The `top` labels and all that are given; equally probable ones in the order of the classes."""
        if probability.isnan().any():
            return Answer(name, span=span, error="no frames: a pause")
        given = self.task.given(probability, self.at_least).tolist()
        order = probability.argsort(descending=True, stable=True).tolist()
        best = [(self.classes[i], float(probability[i])) for rank, i in enumerate(order) if rank < self.top or given[i]]
        chosen = [self.classes[i] for i in order if given[i]]
        return Answer(name, best, chosen, self.task.several, span, probability=probability.tolist())

    def segments(self, name: str, found: Timeline | str) -> Iterator[dict[str, Any]]:
        """The segments of a video's time line, as the JSON has them, or why there are none."""
        if isinstance(found, str):
            yield {"path": name, "error": found}
            return
        for x in found.segments(self.at_least):
            span = {"start": round(x.start, 3), "end": round(x.end, 3)}
            yield {"path": name} | span | {"label": x.named(self.classes), "probability": round(x.probability, 4)}


def as_json(found: Answer) -> str:
    """An answer as one line."""
    return json.dumps(as_row(found), ensure_ascii=False)


def as_row(found: Answer) -> dict[str, Any]:
    """An answer as the JSON has it."""
    line: dict[str, Any] = {"path": found.name}
    if found.at:
        line["time"] = found.at.isoformat(timespec="milliseconds")
    if found.span:
        line |= {"start": round(found.span.start, 3), "end": round(found.span.end, 3)}
    if found.error is not None:
        line["error"] = found.error
    else:
        line["label"] = found.label
        line["labels"] = [{"label": label, "probability": round(value, 4)} for label, value in found.best]
    return line
