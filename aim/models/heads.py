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
    would become alone. The loss is the mean over heads, and each head gets the gradient of its own loss. Of those that
    were given up there are no logits.
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

    @property
    def alive(self) -> list[int]:
        """The places of the heads that train."""
        return [place for place, copy in enumerate(self.copies) if any(p.requires_grad for p in copy.parameters())]

    @torch.no_grad()
    def give_up(self) -> list[int]:
        """Let heads rest whose weights aren't finite, unless all are so, and those that rest in the file of this run.

        Their weights become zero, by which they are known there. Returns their places.
        """
        found = [place for place in self.alive if not is_sound(self.copies[place])]
        if len(found) == len(self.alive):
            return []
        for copy in (self.copies[place] for place in found):
            copy.requires_grad_(False)
            for parameter in copy.parameters():
                parameter.zero_()
        return found

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
        named, alive, each = self.named(), self.alive, []
        for place in alive:
            with torch.random.fork_rng(devices, enabled=place != alive[-1]):  # the next draws the same
                each.append(functional_call(self.model, {**named[place]}, (features,), tie_weights=False))
        logits = torch.stack(each)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * len(each))  # type: ignore[no-untyped-call]
        return logits


Trained = VideoClassifier | Heads


def is_sound(head: nn.Module) -> bool:
    """Whether a head's weights are finite, and not all zero."""
    own = [parameter.detach() for parameter in head.parameters()]
    return all(bool(p.isfinite().all()) for p in own) and any(bool(p.any()) for p in own)


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
