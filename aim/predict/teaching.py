"""`next.csv`: the unlabelled videos with the most useful labels for a model.

Shapes: n videos, k classes, d features.
"""

from pathlib import Path

import torch
from torch import Tensor

from aim.engine.trained.recogniser import Recogniser
from aim.ground import files

FILE = "next.csv"
COLUMNS = ("video", "label", "proposed", "probability", "uncertainty")


class Candidates:
    """Candidates for labelling, with the model's residuals and features."""

    def __init__(self, recogniser: Recogniser) -> None:
        self.classes, self.task = recogniser.classes, recogniser.task
        self.names, self.seen = list[str](), list[Tensor]()

    def take(self, name: str, seen: Tensor) -> Tensor:
        """Keep a video's residual and features, "k+d", and return its probabilities, "k"."""
        self.names.append(name)
        self.seen.append(seen)
        return seen[: len(self.classes)]

    def write(self, path: Path, count: int) -> int:
        """Write the most useful ones, the best first, with an empty column for the label; return their number."""
        seen = torch.stack(self.seen) if self.seen else torch.empty(0, len(self.classes))
        probability, features = seen[:, : len(self.classes)], seen[:, len(self.classes) :]
        uncertainty, rows = self.task.uncertainty(probability), list[list[str]]()
        residual = probability - self.task.given(probability, None).float()
        for i in most_teaching(residual, features, count):
            best = int(self.task.best(probability[i]))
            numbers = (f"{float(value):.4f}" for value in (probability[i, best], uncertainty[i]))
            rows.append([self.names[i], "", self.classes[best], *numbers])
        files.write_csv(path, COLUMNS, rows)
        return len(rows)


def most_teaching(residual: Tensor, features: Tensor, count: int) -> list[int]:
    """The places of videos whose labels would change the head much and in different directions: BADGE.

    A video is represented by the gradient of the head's weights for its most probable answer: the outer product of its
    `residual` "n k", probabilities minus that answer, and its features "n d". It's long if the model is unsure. The
    longest comes first; each next is drawn with probability proportional to the squared distance from the nearest
    chosen one, with a fixed seed (Ash et al., ICLR 2020, algorithm 1).
    """
    residual, features, draw = residual.double(), features.double(), torch.Generator().manual_seed(0)
    lengths = residual.square().sum(1) * features.square().sum(1)
    chosen, apart = list[int](), torch.full_like(lengths, torch.inf)
    while len(chosen) < min(count, len(lengths)):
        apart[chosen] = 0
        if not chosen:
            place = int(lengths.argmax())
        elif apart.any():
            place = int(apart.multinomial(1, generator=draw))
        else:  # all others are equal, or sure
            place = min({*range(len(lengths))} - {*chosen})
        chosen.append(place)
        products = (residual @ residual[place]) * (features @ features[place])
        apart = apart.minimum((lengths + lengths[place] - 2 * products).clamp(min=0))
    return chosen
