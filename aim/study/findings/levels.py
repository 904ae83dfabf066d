"""The measurements at every scale, and the uncertainty of each mean."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from aim.ground.errors import UserError
from aim.study.findings.intervals import Floats

LEAST = 1e-3  # of the largest distance from chance: the least error of a mean


@dataclass(frozen=True)
class Levels:
    """A score by scale, turned so that higher is better and chance is zero; "s" distinct scales, ascending."""

    scale: Floats  # "s"
    mean: Floats  # "s"
    error: Floats  # "s", standard error of the mean; NaN if unknown
    freedom: float  # degrees of freedom of that error
    left_out: int  # values that weren't numbers

    @property
    def x(self) -> Floats:
        """The logarithm of the scale."""
        return np.asarray(np.log10(self.scale))

    @property
    def known(self) -> bool:
        """Whether the errors are known."""
        return bool(len(self.scale)) and not np.isnan(self.error).any()

    @property
    def margin(self) -> Floats:
        """Half the 95 % intervals of the means."""
        return self.error * float(stats.t.ppf(0.975, self.freedom))

    @property
    def above(self) -> np.ndarray:
        """Whether the mean is above chance by more than its interval."""
        return self.mean > self.margin

    @property
    def below(self) -> np.ndarray:
        return self.mean < -self.margin


def levels(scale: ArrayLike, value: ArrayLike, chance: float, better: str, error: ArrayLike | None = None) -> Levels:
    """Means by scale with their errors; values that are NaN are left out.

    The spread of a scale's values (its seeds) is assumed to be the same at all scales. `error` "n" is a value's own
    standard error, over the videos of its test: seeds are tested on the same videos, so their mean keeps it. It is
    assumed to be the same, too: the error of a score at its bound is zero, which understates its uncertainty.
    """
    if better not in ("high", "low"):
        raise UserError(f"better={better}: one of high, low")
    scales, values = np.asarray(scale, np.float64).ravel(), np.asarray(value, np.float64).ravel()
    own = np.zeros_like(values) if error is None else np.asarray(error, np.float64).ravel()
    if not len(scales) == len(values) == len(own):
        raise UserError(f"{len(scales)} scales for {len(values)} values and {len(own)} errors; give one for each")
    kept = ~np.isnan(values) & ~np.isnan(scales)
    if (scales[kept] <= 0).any():
        raise UserError(f"a scale of {scales[kept].min():g}: scales are positive")
    places, which = np.unique(scales[kept], return_inverse=True)
    sign = 1 if better == "high" else -1
    y, e = sign * (values[kept] - chance), np.nan_to_num(own[kept])
    count = np.bincount(which, minlength=len(places))
    mean = np.bincount(which, y, len(places)) / np.maximum(1, count)
    freedom = float(count.sum() - len(places))
    spread = ((y - mean[which]) ** 2).sum() / freedom if freedom else 0.0 if e.any() else np.nan
    videos = float((e**2).mean()) if len(e) else 0.0
    least = LEAST * float(np.abs(mean).max(initial=0))
    total = np.maximum(np.sqrt(spread / np.maximum(1, count) + videos), max(least, 1e-12))
    return Levels(places, mean, total, freedom or np.inf, int((~kept).sum()))
