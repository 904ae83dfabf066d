"""The cost of a clip: operations, counted on fake tensors, and parameters."""

from dataclasses import dataclass, replace

from torch.utils.flop_counter import FlopCounterMode

from aim.engine.machine.hardware import autocast, resolve_precision
from aim.engine.run.settings import Run
from aim.engine.run.step import CPU, flops, make_batch, pretended
from aim.models.freeze import num_parameters


@dataclass(frozen=True)
class Cost:
    """The operations of a model on one clip, and its parameters."""

    train_flops: float  # forward and backward as they run: frozen weights need no gradients
    test_flops: float
    parameters: int
    tuned: int


def count(run: Run, num_classes: int) -> Cost:
    """Count a step of a whole batch, and divide by its clips; nothing is computed. Raises UserError for a bad model.

    It includes an adapter's computation once a step, such as products of its weights.
    """
    run = replace(run, precision=resolve_precision(run.precision, run.device))
    clips = run.train.clips_at_once(1)
    with pretended(run, num_classes) as model:
        tuned, total = num_parameters(model)
        trained = flops(run, model, clips)
        # Not torch.no_grad, under which the counter's hooks fail on a parameter that is an input (the probe's query).
        video = model.eval().requires_grad_(False).preprocess(make_batch(model, clips, CPU).video[:, 0])
        with FlopCounterMode(display=False) as counter, autocast(CPU, run.precision):
            model(video)
        return Cost(trained / clips, counter.get_total_flops() / clips, total, tuned)
