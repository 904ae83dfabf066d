"""Quality of probabilities, beyond the index of the largest: NumPy arrays in, plain numbers out."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Probability = NDArray[np.floating]  # "n k"
Label = NDArray[np.int64]  # "n"

LEVEL = (2.5, 97.5)  # percentiles of an interval
BINS = 15  # of confidence, like those of Guo et al. (ICML 2017)
LEAST = 1e-38  # least probability in a logarithm: float32's smallest normal number


class Bin(NamedTuple):
    """Videos of similar confidence: their number, mean confidence and accuracy."""

    videos: int
    confidence: float
    accuracy: float


def best(probability: Probability) -> Label:
    """The most probable class of each video, "n"; ties go to the first."""
    found: Label = probability.argmax(1)
    return found


def right(probability: Probability, label: Label) -> NDArray[np.bool_]:
    """Whether that is its class, "n"."""
    found: NDArray[np.bool_] = best(probability) == label
    return found


def cross_entropies(probability: Probability, label: Label) -> NDArray[np.float64]:
    """The negative logarithm of the probability of each video's class, "n"."""
    import torch  # late, as it takes seconds, which a report saves; the same logarithm as in logs, to the last digit

    own = probability[np.arange(len(label)), label].astype(np.float32).astype(np.float64)
    found: NDArray[np.float64] = -torch.from_numpy(np.maximum(own, LEAST)).log().numpy()
    return found


def brier(probability: Probability, label: Label) -> NDArray[np.float64]:
    """The squared distance of each video from the truth, "n", summed over classes: 0 to 2 (Brier 1950, equation 2)."""
    square: NDArray[np.float64] = (probability.astype(np.float64) ** 2).sum(1)
    return square - 2 * probability[np.arange(len(label)), label] + 1


def reliability(probability: Probability, label: Label, bins: int = BINS) -> list[Bin]:
    """The videos by the probability of the predicted class, in equal steps from 0 to 1."""
    return reliability_of(probability.max(1).astype(np.float64), right(probability, label), bins)


def reliability_of(confidence: NDArray[np.float64], hit: NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """Answers "n" by confidence, in equal steps from 0 to 1, and their correctness."""
    place = np.clip(
        np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1
    )  # (0, 1/bins], ..., ((bins-1)/bins, 1]
    inside = [place == i for i in range(bins)]
    return [
        Bin(int(part.sum()), float(confidence[part].mean()), float(hit[part].mean())) if part.any() else Bin(0, 0, 0)
        for part in inside
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error, 0 to 1: the distance of confidence and accuracy (Guo et al., equation 3)."""
    total = sum(part.videos for part in bins)
    return sum(part.videos * abs(part.accuracy - part.confidence) for part in bins) / max(1, total)
