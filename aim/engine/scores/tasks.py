"""The task of a model: target, loss, probabilities, and correctness of an answer.

The nodes of configs/task/. Nothing else knows how classes become a loss or logits become probabilities.
Shapes: b clips, k classes, n videos.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.engine.scores import metrics
from aim.engine.scores.metrics import Metric
from aim.ground import config
from aim.ground.marks import Before


class Task(Protocol):
    """The nodes of configs/task/. A label is what the loader gives of a video, whatever its shape after "b"."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """What a test is told by, the main one first."""

    def target(self, label: Tensor, num_classes: int, *, mixed: bool) -> Tensor:
        """What the loss compares logits with; for clips that are `mixed` float "b k", of which means can be taken."""

    def loss(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """Of each clip, "b", from float32 logits "b k"."""

    def hits(self, scores: Tensor, label: Tensor) -> Tensor:
        """Whether the answer by logits or probabilities "... k" is right, "..."."""

    def best(self, scores: Tensor) -> Tensor:
        """The first answer by logits or probabilities: int64, "... k" -> "..."."""

    def prior(self, label: Tensor, num_classes: int) -> Tensor:
        """Probabilities "k": the best answer to videos of these labels that looks at none of them."""

    def probability(self, logits: Tensor) -> Tensor:
        """Of each class, "... k"."""

    def log_probability(self, logits: Tensor) -> Tensor:
        """Of each class, "... k"."""

    def tempered(self, log_probability: Tensor, temperature: float) -> Tensor:
        """Probabilities "... k" as if the logits behind these had been divided by the temperature."""

    def log_likelihood(self, probability: Tensor, label: Tensor) -> Tensor:
        """The finite logarithm of the probability "n" that probabilities "n k" give to the truth."""

    def log_odds(self, logits: Tensor, index: int) -> Tensor:
        """Of one class against what else could be, "b", from logits "b k"."""

    def evidence(self, probability: Tensor, index: int) -> Tensor:
        """The same from probabilities "b k"; finite where they are 0 or 1."""


@dataclass(frozen=True)
class SingleLabel:
    """One class a video: softmax and cross-entropy. A label is int64 "b"."""

    @property
    def metrics(self) -> Sequence[Metric]:
        return metrics.METRICS

    def target(self, label: Tensor, num_classes: int, *, mixed: bool) -> Tensor:
        return F.one_hot(label, num_classes).float() if mixed else label

    def loss(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)

    def hits(self, scores: Tensor, label: Tensor) -> Tensor:
        return self.best(scores) == label

    def best(self, scores: Tensor) -> Tensor:
        return scores.argmax(-1)

    def prior(self, label: Tensor, num_classes: int) -> Tensor:
        return label.bincount(minlength=num_classes) / max(1, len(label))

    def probability(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def log_probability(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(-1)

    def tempered(self, log_probability: Tensor, temperature: float) -> Tensor:
        return (log_probability / temperature).softmax(-1)

    def log_likelihood(self, probability: Tensor, label: Tensor) -> Tensor:
        return probability.gather(1, label[:, None])[:, 0].clamp(min=1e-12).log()

    def log_odds(self, logits: Tensor, index: int) -> Tensor:
        others = torch.cat([logits[:, :index], logits[:, index + 1 :]], 1)
        return logits[:, index] - others.logsumexp(1)

    def evidence(self, probability: Tensor, index: int) -> Tensor:
        others = probability.clone()
        others[:, index] = 0  # the sum of small numbers is exact where one minus a probability is 0
        tiny = torch.finfo(probability.dtype).tiny
        return probability[:, index].clamp_min(tiny).log() - others.sum(1).clamp_min(tiny).log()


SINGLE_LABEL = SingleLabel()  # what was trained before there were tasks


@dataclass(frozen=True)
class Named:
    """A task as the settings in a file name it."""

    task: Annotated[Task, Before({"kind": "single_label"})]


def named(node: Mapping[str, Any] | None) -> Task:
    """The task that a file names; where it's older than tasks, single labels. Raises UserError for an unknown one."""
    return config.build({} if node is None else {"task": node}, Named, received=True).task
