"""The task of a model: target, loss, probabilities, and correctness of an answer.

The nodes of configs/task/. Nothing else turns classes into a loss or logits into probabilities.
Shapes: b clips, k classes, n videos.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.engine.scores import metrics, several
from aim.engine.scores.metrics import Metric
from aim.ground import config
from aim.ground.errors import UserError
from aim.ground.marks import Before

Temperature = float | Sequence[float]  # one for all classes, or one for each
Limit = float | Tensor | None  # the least probability of an answer: one for all classes, "k", or the task's own


class Task(Protocol):
    """The nodes of configs/task/. A label is the loader's for a video, of any shape after "b"."""

    @property
    def several(self) -> bool:
        """Whether a video has any number of labels, as 0 or 1 for each class, "b k"."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """The metrics of a test, the main one first."""

    def target(self, label: Tensor, num_classes: int, *, mixed: bool) -> Tensor:
        """The target of the loss; for `mixed` clips float "b k", for averaging."""

    def loss(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """Of each clip, "b", from float32 logits "b k"."""

    def hits(self, scores: Tensor, label: Tensor) -> Tensor:
        """Whether the answer by logits or probabilities "... k" is right, "..."."""

    def best(self, scores: Tensor) -> Tensor:
        """The first answer by logits or probabilities: int64, "... k" -> "..."."""

    def given(self, probability: Tensor, at_least: Limit) -> Tensor:
        """The answered labels, bool "... k"; none if probabilities are NaN."""

    def per_class(self, probability: Tensor, label: Tensor) -> list[dict[str, float]]:
        """The results of each class, from probabilities "n k"."""

    def prior(self, label: Tensor, num_classes: int) -> Tensor:
        """Probabilities "k": the best single answer to videos with these labels."""

    def probability(self, logits: Tensor) -> Tensor:
        """Of each class, "... k"."""

    def log_probability(self, logits: Tensor) -> Tensor:
        """Of each class, "... k"."""

    def tempered(self, log_probability: Tensor, temperature: Temperature) -> Tensor:
        """Probabilities "... k" with their logits divided by the temperature."""

    def log_likelihood(self, probability: Tensor, label: Tensor) -> Tensor:
        """The finite logarithm of the truth's probability, "n", from probabilities "n k"."""

    def uncertainty(self, probability: Tensor) -> Tensor:
        """The entropy of probabilities, "... k" -> "...", the mean for several labels; 0 (sure) to 1."""

    def log_odds(self, logits: Tensor, index: int) -> Tensor:
        """The log-odds of one class, "b", from logits "b k"."""

    def evidence(self, probability: Tensor, index: int) -> Tensor:
        """The same from probabilities "b k"; finite where they are 0 or 1."""


@dataclass(frozen=True)
class SingleLabel:
    """One class a video: softmax and cross-entropy. A label is int64 "b"."""

    several = False

    @property
    def metrics(self) -> Sequence[Metric]:
        return metrics.of("one")

    def target(self, label: Tensor, num_classes: int, *, mixed: bool) -> Tensor:
        return F.one_hot(label, num_classes).float() if mixed else label

    def loss(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        return F.cross_entropy(logits, target, reduction="none", label_smoothing=label_smoothing)

    def hits(self, scores: Tensor, label: Tensor) -> Tensor:
        return self.best(scores) == label

    def best(self, scores: Tensor) -> Tensor:
        return scores.argmax(-1)

    def given(self, probability: Tensor, at_least: Limit) -> Tensor:
        first = F.one_hot(self.best(probability), probability.shape[-1]).bool() & ~probability.isnan()
        return first if at_least is None else first & (probability >= at_least)

    def per_class(self, probability: Tensor, label: Tensor) -> list[dict[str, float]]:
        right = label[self.hits(probability, label)]
        videos, hits = (part.bincount(minlength=probability.shape[1]).tolist() for part in (label, right))
        return [{"videos": count, "right": hit} for count, hit in zip(videos, hits, strict=True)]

    def prior(self, label: Tensor, num_classes: int) -> Tensor:
        return label.bincount(minlength=num_classes) / max(1, len(label))

    def probability(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)

    def log_probability(self, logits: Tensor) -> Tensor:
        return logits.log_softmax(-1)

    def tempered(self, log_probability: Tensor, temperature: Temperature) -> Tensor:
        return (log_probability / divisor(temperature, log_probability)).softmax(-1)

    def log_likelihood(self, probability: Tensor, label: Tensor) -> Tensor:
        return probability.gather(1, label[:, None])[:, 0].clamp(min=1e-12).log()

    def uncertainty(self, probability: Tensor) -> Tensor:
        found: Tensor = torch.special.entr(probability).sum(-1)
        return found / math.log(max(2, probability.shape[-1]))

    def log_odds(self, logits: Tensor, index: int) -> Tensor:
        others = torch.cat([logits[:, :index], logits[:, index + 1 :]], 1)
        return logits[:, index] - others.logsumexp(1)

    def evidence(self, probability: Tensor, index: int) -> Tensor:
        others = probability.clone()
        others[:, index] = 0  # the sum of small numbers is exact, one minus a probability can be 0
        tiny = torch.finfo(probability.dtype).tiny
        return probability[:, index].clamp_min(tiny).log() - others.sum(1).clamp_min(tiny).log()


@dataclass(frozen=True)
class MultiLabel:
    """Any number of labels a video, each separate: sigmoid and the mean binary cross-entropy of classes.

    A label is 0 or 1 for each class, "b k". Mixed clips have mixed labels, and smoothing moves a label towards a half,
    the uniform distribution over two answers.
    """

    positive_weight: float  # of a positive label against a negative one, in the loss

    several = True

    def __post_init__(self) -> None:
        if not 0 < self.positive_weight < float("inf"):
            raise UserError(f"task.positive_weight={self.positive_weight:g} must be above 0; 1.0 is neutral")

    @property
    def metrics(self) -> Sequence[Metric]:
        return metrics.of("several")

    def target(self, label: Tensor, num_classes: int, *, mixed: bool) -> Tensor:
        return label.float()

    def loss(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        wanted = self.smoothed(target, label_smoothing)
        having, lacking = self.positive_weight * wanted * F.softplus(-logits), (1 - wanted) * F.softplus(logits)
        return (having + lacking).mean(1)

    def smoothed(self, target: Tensor, label_smoothing: float) -> Tensor:
        """The target of the loss, "b k"."""
        return target * (1 - label_smoothing) + label_smoothing / 2

    def hits(self, scores: Tensor, label: Tensor) -> Tensor:
        return label.expand(scores.shape).gather(-1, self.best(scores)[..., None])[..., 0] > 0

    def best(self, scores: Tensor) -> Tensor:
        return scores.argmax(-1)

    def given(self, probability: Tensor, at_least: Limit) -> Tensor:
        return probability >= (several.UNKNOWN if at_least is None else at_least)

    def per_class(self, probability: Tensor, label: Tensor) -> list[dict[str, float]]:
        scores, truth = probability.numpy(), label.numpy()
        columns = (
            truth.sum(0).tolist(),
            several.average_precisions(scores, truth),
            several.f1s(scores >= several.UNKNOWN, truth),
        )
        return [
            {
                "videos": videos,
                **({"average_precision": round(float(ap), 5), "f1": round(float(f1), 5)} if videos else {}),
            }
            for videos, ap, f1 in zip(*columns, strict=True)
        ]

    def prior(self, label: Tensor, num_classes: int) -> Tensor:
        return label.float().mean(0) if len(label) else torch.zeros(num_classes)

    def probability(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def log_probability(self, logits: Tensor) -> Tensor:
        return F.logsigmoid(logits)

    def tempered(self, log_probability: Tensor, temperature: Temperature) -> Tensor:
        logits = log_probability - torch.log(-torch.expm1(log_probability))  # infinite if the probability is 1
        return (logits / divisor(temperature, logits)).sigmoid()

    def log_likelihood(self, probability: Tensor, label: Tensor) -> Tensor:
        return torch.where(label > 0, probability, 1 - probability).clamp(min=1e-12).log().mean(1)

    def uncertainty(self, probability: Tensor) -> Tensor:
        found: Tensor = torch.special.entr(probability) + torch.special.entr(1 - probability)
        return found.mean(-1) / math.log(2)

    def log_odds(self, logits: Tensor, index: int) -> Tensor:
        return logits[:, index]

    def evidence(self, probability: Tensor, index: int) -> Tensor:
        tiny = torch.finfo(probability.dtype).tiny
        p = probability[:, index]
        return p.clamp_min(tiny).log() - (1 - p).clamp_min(tiny).log()


def divisor(temperature: Temperature, like: Tensor) -> float | Tensor:
    """A temperature in a shape that divides logits "... k"."""
    return temperature if isinstance(temperature, int | float) else like.new_tensor(list(temperature))


SINGLE_LABEL = SingleLabel()  # for models older than tasks


@dataclass(frozen=True)
class Named:
    """A task in the form of settings in a file."""

    task: Annotated[Task, Before({"kind": "single_label"})]


def named(node: Mapping[str, Any] | None) -> Task:
    """The task of a file; single labels for a file older than tasks. Raises UserError for an unknown one."""
    return config.build({} if node is None else {"task": node}, Named, received=True).task
