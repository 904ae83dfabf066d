"""Gradient x activation: a quick map of a decision, for the cost of a forward and a short backward pass.

The length, over channels, of the product of the last block's input and the gradient of the class's evidence.
Its sum, which grad-CAM takes (Selvaraju et al., ICCV 2017), is about 0 for a token that only a LayerNorm reads: a norm
doesn't see a token's scale. So a map has the importance of a token, not the sign of its evidence.
Shapes: t frames (after tubelets), n tokens, h w grid, i j tokens that fall into one of it, d channels.
"""

import math
from typing import Any

import torch
from einops import reduce
from torch import Tensor

from aim.engine.scores.tasks import SINGLE_LABEL, Task
from aim.models.classifier import VideoClassifier, plainly
from aim.models.family import VideoTrunk


@torch.enable_grad()
def gradient_x_activation(model: VideoClassifier, clip: Tensor, label: int, task: Task = SINGLE_LABEL) -> Tensor:
    """The dependence of a class's log-odds on a clip, uint8 "t c h w", on each token of the last block's grid: "t h w".

    These are the input tokens of the last block, as of its output often only the class token counts; with a readout
    (probes, side networks) all of its inputs.
    """
    backbone = model.backbone
    readout = "readout" in backbone.adapters
    reads = backbone.adapters["readout"] if readout else backbone.blocks[-1]
    tensors = list[Tensor]()  # that it is given, from which on gradients are computed

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value.detach().requires_grad_())
            return tensors[-1]
        return [leaf(item) for item in value]

    with plainly(model), reads.register_forward_pre_hook(lambda _, values: tuple(map(leaf, values))):
        logits = model(model.preprocess(clip[None].to(model.mean.device))).float()
        log_odds = task.log_odds(logits, label)[0]
        gradients = torch.autograd.grad(log_odds, tensors, materialize_grads=True)  # 0 for unused tensors
    products = [(x * gradient).norm(dim=-1).float() for x, gradient in zip(tensors, gradients, strict=True)]
    return torch.stack([on_grid(x, backbone) for x in products]).sum(0).detach().cpu()


def on_grid(x: Tensor, backbone: VideoTrunk) -> Tensor:
    """One value for each token, "(t n)" in any shape, on the last block's grid "t h w"; n is of any stage."""
    t, h, w = backbone.grid
    x = x.reshape(t, -1)[:, backbone.num_prefix_tokens :]
    scale = math.isqrt(x.shape[1] // (h * w))  # of a Swin's earlier stages, with smaller tokens
    return reduce(x, "t (h i w j) -> t h w", "sum", h=h, i=scale, w=w, j=scale)
