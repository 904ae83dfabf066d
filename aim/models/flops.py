"""Operations of a view."""

from itertools import chain

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from aim.models.classifier import VideoClassifier, plainly


def gmacs_per_view(model: VideoClassifier) -> float:
    """Multiply-adds of one forward pass over one view, in 10^9: the GFLOPs of papers of the field.

    Matrix products, convolutions and attention are counted, by shape alone: nothing is computed. Every token is counted
    in every block, though of the last one some models need only the class token.
    """
    shapes = {
        name: torch.empty_like(tensor, dtype=torch.float32 if tensor.is_floating_point() else None, device="meta")
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }
    video = torch.empty(1, 3, model.num_frames, model.size, model.size, device="meta")
    with torch.no_grad(), plainly(model), FlopCounterMode(display=False) as counter:
        functional_call(model, shapes, video)
    flops: int = counter.get_total_flops()
    return flops / 2 / 1e9
