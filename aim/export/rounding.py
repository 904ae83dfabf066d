"""Activations and weights of a product in bytes.

Nagel et al. 2021, "A White Paper on Neural Network Quantization", sections 2.3 and 2.4: activations have one step,
weights one a column. In some trunks few channels have very large activations (Sun et al. 2024, "Massive Activations");
there channels are divided to be more alike, and the weight's rows multiplied (Xiao et al. 2023, "SmoothQuant").
Shapes: n rows of activations, d their channels, e a weight's columns.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FINE = 0.015  # relative error of activations in bytes above which channels are divided
EVEN = 0.75  # by their largest magnitudes to this power: 0 changes nothing, 1 makes these equal
LEAST = 0.01  # of the largest such magnitude, for channels that are hardly used
ROWS = 2048  # of activations
DAMPING = 0.01  # of these rows' mean square: GPTQ's
BLOCK = 128  # rows of a weight that are rounded before the others follow


@dataclass(frozen=True)
class Seen:
    """The input activations of a product: each channel's range, "d", with 0 in it, and some rows, "n d"."""

    low: Floats
    high: Floats
    rows: Floats
    shape: tuple[int, ...]  # between the first dimension, which is free, and the channels

    def __or__(self, other: "Seen") -> "Seen":
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Seen(low, high, np.concatenate([self.rows, other.rows]), self.shape)

    def __truediv__(self, divisor: Floats) -> "Seen":
        return Seen(self.low / divisor, self.high / divisor, self.rows / divisor, self.shape)

    @property
    def scale(self) -> tuple[np.float32, np.uint8]:
        """The step of an unsigned byte, and the byte that is 0."""
        step = np.float32(max(self.high.max() - self.low.min(), 1e-12) / 255)
        return step, np.uint8(round(-float(self.low.min()) / float(step)))

    @cached_property
    def rounded(self) -> Floats:
        """The rows as bytes have them."""
        step, zero = self.scale
        return ((self.rows / step + zero).round().clip(0, 255) - zero) * step

    @property
    def divisor(self) -> Floats:
        """For each channel, "d"; ones if bytes are fine as they are."""
        if relative(self.rounded, self.rows) <= FINE:
            return np.ones_like(self.low)
        peak = np.maximum(-self.low, self.high)
        divisor: Floats = np.maximum(peak, LEAST * peak.max()) ** np.float32(EVEN)
        return divisor


def in_bytes(weight: Floats, seen: Seen) -> tuple[NDArray[np.int8], Floats]:
    """A weight "d e" in signed bytes, and each column's step, "e".

    A row's error is made up for by later rows, as far as these activations go together: GPTQ (Frantar et al. 2023,
    algorithm 1).
    """
    left, d = weight.astype(np.float64), len(weight)
    peak = np.abs(weight).max(0)
    steps = (np.maximum(peak, max(1e-4 * peak.max(), 1e-12)) / 127).astype(np.float32)
    rows = seen.rounded.astype(np.float64)
    together = rows.T @ rows
    together[np.diag_indices(d)] += max(DAMPING * np.trace(together) / d, 1e-12)
    follows = np.linalg.cholesky(np.linalg.inv(together)).T
    found = np.zeros(weight.shape, np.int8)
    for start in range(0, d, BLOCK):
        end = min(start + BLOCK, d)
        errors = np.zeros((end - start, weight.shape[1]))
        for i in range(start, end):
            found[i] = (left[i] / steps).round().clip(-127, 127)
            errors[i - start] = (left[i] - found[i] * steps) / follows[i, i]
            left[i + 1 : end] -= np.outer(follows[i, i + 1 : end], errors[i - start])
        left[end:] -= follows[start:end, end:].T @ errors
    return found, steps


def relative(found: Floats, wanted: Floats) -> float:
    """The relative error of a matrix."""
    return float(np.linalg.norm(found - wanted)) / max(float(np.linalg.norm(wanted)), 1e-12)
