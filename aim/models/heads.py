"""Several heads on one frozen trunk, which train side by side.

Shapes: h heads, b clips, t frames, k classes, m numbers of packed features.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from aim.models.classifier import VideoClassifier


class Heads(nn.Module):
    """Copies of all that a model trains, over its one frozen trunk: float "b c t h w" or "b m" -> logits "h b k".

    They begin as the model, which itself stays as it is, and have the same dropout in a step. So each becomes what it
    would become alone. The loss is the mean over heads, and each head gets the gradient of its own loss.
    """

    def __init__(self, model: VideoClassifier, count: int) -> None:
        super().__init__()
        self._model = (model,)  # a tuple, for its parameters are not among those that are trained
        own = dict(model.named_parameters())
        self.copies = nn.ModuleList(
            nn.ParameterList(nn.Parameter(own[name].detach().clone()) for name in model.trainable) for _ in range(count)
        )

    @property
    def model(self) -> VideoClassifier:
        """The model that the heads are of."""
        return self._model[0]

    @property
    def head(self) -> nn.Linear:
        """The model's linear layer, for its number of classes."""
        return self.model.head

    def named(self) -> list[dict[str, nn.Parameter]]:
        """The parameters of each head under their names in the model."""
        return [dict(zip(self.model.trainable, copy.parameters(), strict=True)) for copy in self.copies]

    def saved_names(self) -> list[str]:
        """All of `state_dict`: the heads alone."""
        return list(self.state_dict())

    def train(self, mode: bool = True) -> "Heads":
        self.model.train(mode)
        return super().train(mode)

    def preprocess(self, video: Tensor) -> Tensor:
        """That of the model."""
        return self.model.preprocess(video)

    def forward(self, video: Tensor) -> Tensor:
        features = video if video.ndim == 2 else self.model.frozen(video)
        devices = [features.device] if features.is_cuda else []
        each = []
        for place, named in enumerate(self.named(), 1):
            with torch.random.fork_rng(devices, enabled=place < len(self.copies)):  # the next draws the same
                each.append(functional_call(self.model, {**named}, (features,), tie_weights=False))
        logits = torch.stack(each)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * len(each))  # type: ignore[no-untyped-call]
        return logits


Trained = VideoClassifier | Heads


def parameters_of_heads(model: nn.Module) -> list[dict[str, nn.Parameter]]:
    """All parameters by name: those of a model, or of each head of several, with the trunk's."""
    if isinstance(model, Heads):
        return [{**dict(model.model.named_parameters()), **named} for named in model.named()]
    return [dict(model.named_parameters())]


def over_heads(function: Callable[..., Tensor], logits: Tensor, *rest: object) -> Tensor:
    """`function(logits, *rest)` of logits "b k", a number for each clip; of several heads' "h b k" their mean, "b"."""
    if logits.ndim == 2:
        return function(logits, *rest)
    return torch.stack([function(each, *rest) for each in logits]).float().mean(0)
