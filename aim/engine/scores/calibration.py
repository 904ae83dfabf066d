"""Calibration of probabilities: one temperature for all logits, fitted on a validation set.

C. Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), section 4.2. It changes no view's best label.
"""

import math

import torch
from torch import Tensor

from aim.engine.scores.tasks import Task

LOWEST, HIGHEST = 0.1, 10.0
PRIOR = 2.0  # weight of (log temperature)^2, so that a handful of videos, all of them right, doesn't make it sure
STEPS = 24  # of the search, which leaves 5e-5 of the logarithm
PART = 1024  # videos looked at together
GOLDEN = (math.sqrt(5) - 1) / 2


def fit_temperature(task: Task, log_probability: Tensor, label: Tensor) -> float:
    """The temperature that makes the labels most likely: log-probabilities "n v k" of v views, int64 "n".

    Views are averaged as probabilities, as in a test. No videos have temperature 1.
    """
    low, high = math.log(LOWEST), math.log(HIGHEST)
    inner = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)]  # golden section search
    costs = [_cost(task, log_probability, label, x) for x in inner]
    for _ in range(STEPS):
        if costs[0] < costs[1]:
            high, inner[1], costs[1] = inner[1], inner[0], costs[0]
            inner[0] = high - GOLDEN * (high - low)
            costs[0] = _cost(task, log_probability, label, inner[0])
        else:
            low, inner[0], costs[0] = inner[0], inner[1], costs[1]
            inner[1] = low + GOLDEN * (high - low)
            costs[1] = _cost(task, log_probability, label, inner[1])
    return round(math.exp((low + high) / 2), 4)


def _cost(task: Task, log_probability: Tensor, label: Tensor, log_temperature: float) -> float:
    """The negative log-likelihood of all videos, and the prior's share."""
    total = PRIOR * log_temperature**2
    # In parts: a data set's views in float32 would take GBs.
    for views, truth in zip(torch.split(log_probability, PART), torch.split(label, PART), strict=True):
        probability = task.tempered(views.float(), math.exp(log_temperature)).mean(1)
        total -= float(task.log_likelihood(probability, truth).double().sum())
    return total
