"""CLIP's own head, by class names alone, and the linear layer that starts from it.

Shapes: b clips, k classes, d features, e dimensions of CLIP's common space.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.ground.errors import UserError
from aim.models.classifier import VideoClassifier
from aim.weights.text import ClassTexts


class ZeroShotHead(nn.Module):
    """Scaled cosine similarities with class texts (Radford et al. 2021, section 3.1.2): float "b d" -> logits "b k"."""

    weight: Tensor  # "k e"
    projection: Tensor
    offset: Tensor

    def __init__(self, texts: ClassTexts) -> None:
        super().__init__()
        self.scale = texts.scale
        self.register_buffer("weight", texts.text)
        self.register_buffer("projection", texts.projection)
        self.register_buffer("offset", texts.offset)

    @property
    def out_features(self) -> int:
        """The number of classes, as of a linear layer."""
        return len(self.weight)

    @property
    def in_features(self) -> int:
        """The features that it reads, as of a linear layer."""
        return self.projection.shape[1]

    def projected(self, x: Tensor) -> Tensor:
        """Features in CLIP's common space, "b d" -> "b e"."""
        return F.linear(x, self.projection, self.offset)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * F.linear(F.normalize(self.projected(x), dim=-1), self.weight)

    @torch.no_grad()
    def start(self, linear: nn.Linear, length: float) -> None:
        """Let a linear layer give the logits of features whose projections have this length, but for their mean.

        No softmax sees that the mean over classes is taken off; for labels that are questions of their own it puts
        them about an even chance.
        """
        own = self.weight - self.weight.mean(0)
        linear.weight.copy_(self.scale / length * own @ self.projection)
        linear.bias.copy_(self.scale / length * own @ self.offset)


def check_pooled(model: VideoClassifier) -> None:
    """Raise UserError if a head doesn't read the trunk's own pooled features, the ones comparable with texts."""
    if "readout" in model.backbone.adapters:
        raise UserError(
            "class names are compared with the trunk's own features, and this adapter reads others; use head=random, "
            "or adapter=none, aim or another one inside the trunk"
        )
