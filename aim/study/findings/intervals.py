"""Uncertainty of a number: bootstrap intervals over videos, over points."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aim.engine.scores.quality import LEVEL

DRAWS = 2000  # of a bootstrap
Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(values: ArrayLike, repeats: int = DRAWS, seed: int = 0) -> Interval:
    """The mean of `values` "n" with its percentile bootstrap interval; NaN is left out."""
    found = np.asarray(values, np.float64).ravel()
    found = found[~np.isnan(found)]
    if not len(found):
        return Interval(np.nan, np.nan, np.nan)
    means: Floats = drawn(len(found), repeats, seed) @ found / len(found)
    return Interval(float(found.mean()), *percentiles(means))


@functools.lru_cache(maxsize=8)
def drawn(count: int, repeats: int, seed: int) -> NDArray[np.int64]:
    """The frequency of each of `count` values in draws, "repeats count"."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), repeats)


def percentiles(values: Floats) -> tuple[float, float]:
    """The ends of the 95 % interval of drawn values; infinite ones may be among them, NaN is left out."""
    kept = np.sort(values[~np.isnan(values)])
    if not len(kept):
        return np.nan, np.nan
    low, high = np.percentile(kept, LEVEL, method="nearest")
    return float(low), float(high)


def finite(value: Any) -> float | None:
    """The number, or None if it isn't finite."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None
