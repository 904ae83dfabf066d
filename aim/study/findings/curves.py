"""The kind of a score's curve over scale: smooth, emergent, flat, falling, or undecided.

docs/study.md has the rule in words and its error rates. Scales are logarithms here.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from aim.study.findings.intervals import Floats, Interval, percentiles
from aim.study.findings.levels import Levels, levels

Kind = Literal["smooth", "emergent", "flat", "falling", "too few"]

ALL = "all"  # the task of all classes
FEWEST = 4  # scales
SINGLES = 6  # scales with one value each and unknown errors
BEFORE = 2  # scales at chance before a jump
NARROW = 0.4  # the largest part of the measured range for a jump's rise from 10 to 90 %
BETWEEN = 1  # the most scales within a jump
NEAR = 0.05  # of the rise: values this close to chance are at chance
LEAST_DECADES = 0.5  # a smaller range has no jump
DOUBT = 0.05  # error of the first kind of each test
RULE = (
    "A curve is flat if neither its trend nor the differences between its scales exceed what seeds and videos explain; "
    "falling if a falling logistic curve fits it better than a rising one; "
    f"emergent if at least {BEFORE} scales are at chance, the last is above it, and every logistic curve "
    f"that the values allow (95 %) makes its gain, from 10 to 90 %, within {100 * NARROW:.0f} % of the measured range "
    f"on a log scale, with at most {BETWEEN} measured scale on the way; "
    "smooth if a step between two neighbouring scales is excluded (95 %) and it isn't emergent; "
    f"else, or with fewer than {FEWEST} scales, there are too few to tell."
)


@dataclass(frozen=True, eq=False)
class Curve:
    """The values of one score of one series of models on one task, over one axis; "n" values, seeds among them."""

    task: str
    series: str
    score: str
    axis: str
    scale: Floats  # "n"
    value: Floats  # "n"
    seed: np.ndarray  # "n"
    chance: float
    better: Literal["high", "low"] = "high"
    error: Floats | None = None  # "n", standard errors over videos


@dataclass(frozen=True)
class Verdict:
    """The kind of a curve, and why. `fit` is the logistic curve, by scale; it leaves chance at `threshold`."""

    kind: Kind
    why: str
    fit: dict[str, list[float]] | None = None
    threshold: Interval | None = None
    numbers: dict[str, Any] = field(default_factory=dict)  # decades: range, rise, at most; before


@dataclass(frozen=True)
class Profile:
    """The fits of all logistic curves of a grid: "m" curves, "m s" at the scales."""

    middle: Floats  # "m", as a part of the range
    width: Floats  # "m", the logistic's own, as a part of the range
    low: Floats
    rise: Floats
    misfit: Floats  # "m", weighted sum of squares
    narrow: Floats  # "m", from 10 to 90 % of the rise within the range, as a part of it


def classify_curve(
    scale: ArrayLike, value: ArrayLike, chance: float, better: str = "high", error: ArrayLike | None = None
) -> Verdict:
    """Sort a curve by the rule of docs/study.md.

    `scale` and `value` "n" have a row for each seed and scale; NaN is left out. `error` "n": standard errors of the
    values, over the videos of their test.
    """
    found = levels(scale, value, chance, better, error)
    sign = 1 if better == "high" else -1
    note = f" ({found.left_out} values that are no numbers left out)" if found.left_out else ""
    count = len(found.x)
    if count < 2:
        return Verdict("too few", f"{'one scale only' if count else 'no values'}: no curve can be fitted{note}")
    profile = profiled(found, 1.0)
    if not found.known and count >= SINGLES:
        constant = float(((found.mean - found.mean.mean()) ** 2).sum())
        fits = (float(each.misfit.min()) for each in (profile, profiled(found, -1.0)))
        best = max(next(filter(np.isfinite, fits), constant), 0.0)  # of a curve that rises nowhere, by a falling one
        noise = max(np.sqrt(best / (count - 4)), 1e-3 * float(np.abs(found.mean).max()), 1e-12)
        found = replace(found, error=np.full_like(found.mean, noise), freedom=count - 4)
        profile = profiled(found, 1.0)
    threshold = leaves_chance(found) if found.known else None
    if count < FEWEST:
        return Verdict("too few", f"{count} scales, and at least {FEWEST} are needed{note}", None, threshold)
    if not found.known:
        return Verdict("too few", f"one value a scale and nothing that tells its error: give seeds or errors{note}")
    if not varies(found):
        return Verdict("flat", level_words(found, chance, sign) + note, None, threshold)
    falling = profiled(found, -1.0)
    if falling.misfit.min() < profile.misfit.min():
        fit = drawn_curve(found, falling, chance, sign)
        ends = chance + sign * found.mean
        return Verdict("falling", f"from {ends[0]:.3g} to {ends[-1]:.3g}, getting worse{note}", fit, threshold)
    kind, why, numbers = risen(found, profile, chance)
    return Verdict(kind, why + note, drawn_curve(found, profile, chance, sign), threshold, numbers)


def varies(found: Levels) -> bool:
    """Whether the scales differ by more than their errors, or follow a trend; each at half of DOUBT."""
    weight = found.error**-2
    y = found.mean - np.average(found.mean, weights=weight)
    x = found.x - np.average(found.x, weights=weight)
    differ = float((weight * y**2).sum()) / (len(y) - 1)
    trend = float((weight * x * y).sum()) ** 2 / float((weight * x**2).sum())
    return bool(
        differ > f_quantile(1 - DOUBT / 2, len(y) - 1, found.freedom)
        or trend > f_quantile(1 - DOUBT / 2, 1, found.freedom)
    )


def f_quantile(level: float, above: int, below: float) -> float:
    """A quantile of Fisher's F; with known errors, of chi squared over its degrees of freedom."""
    return float(stats.chi2.ppf(level, above) / above if np.isinf(below) else stats.f.ppf(level, above, below))


def level_words(found: Levels, chance: float, sign: int) -> str:
    """The level of a flat curve, in words."""
    weight = found.error**-2
    mean = float(np.average(found.mean, weights=weight))
    margin = float(weight.sum() ** -0.5) * float(stats.t.ppf(0.975, found.freedom))
    at = f"{chance + sign * mean:.3g}"
    if abs(mean) <= margin:
        return f"at chance ({chance:.3g}) at all {len(found.x)} scales: {at}"
    return (
        f"level at {at}, {'better' if mean > 0 else 'worse'} than chance ({chance:.3g}), at all {len(found.x)} scales"
    )


def risen(found: Levels, profile: Profile, chance: float) -> tuple[Kind, str, dict[str, Any]]:
    """Smooth, emergent or too few, for a rising curve."""
    count, span = len(found.x), float(np.ptp(found.x))
    best = int(profile.misfit.argmin())
    # The residual of the best logistic curve is noise, too.
    noise = max(1.0, float(profile.misfit[best]) / max(1, count - 4))
    allowed = profile.misfit - profile.misfit[best] <= noise * f_quantile(1 - 2 * DOUBT, 1, found.freedom)
    rise, most = span * float(profile.narrow[best]), span * float(profile.narrow[allowed].max())
    at_chance = found.mean <= np.maximum(found.margin, NEAR * float(np.ptp(found.mean)))
    before = int(np.argmin(at_chance)) if not at_chance.all() else count
    step = step_misfit(found) / (count - 2)
    excluded = step > f_quantile(1 - DOUBT, count - 2, found.freedom)
    ends = logistic((np.array([0.0, 1.0]) - profile.middle[best]) / profile.width[best])
    first, last = profile.low[best] + profile.rise[best] * ends
    low, high = first + 0.1 * (last - first), first + 0.9 * (last - first)  # 10 and 90 % of the gain within the range
    way = int(((found.mean - found.margin > low) & (found.mean + found.margin < high)).sum())
    numbers = {"range": span, "rise": rise, "most": most, "before": before, "way": way}
    how = f"makes its gain, from 10 to 90 %, within {rise:.2g} (at most {most:.2g}) of {span:.2g} decades"
    narrow = most <= NARROW * span and span >= LEAST_DECADES and way <= BETWEEN
    if narrow and before >= BEFORE and found.above[-1]:
        return "emergent", f"{how}, after {before} scales at chance ({chance:.3g})", numbers
    if excluded:
        where = f"the first {before} of {count} scales are at chance" if before else "above chance at all scales"
        return "smooth", f"{how}, with {way} of {count} scales on the way; {where}", numbers
    if narrow and before < BEFORE:
        return "too few", f"a jump, but too few scales at chance before it ({before}): smaller ones would tell", numbers
    return "too few", f"{how}: a step and a smooth rise fit equally well; scales in between would tell", numbers


def profiled(found: Levels, sign: float) -> Profile:
    """Fit every logistic curve low + rise * s((x - middle) / width) of a grid; `rise` has the given sign.

    Low and rise are linear: each curve of the grid has them in closed form (variable projection).
    """
    span = float(np.ptp(found.x))
    u = (found.x - found.x[0]) / span
    middles, widths = np.linspace(-0.5, 1.5, 81), np.geomspace(0.02, 4.0, 48) / WHOLE
    middle, width = (each.ravel() for each in np.meshgrid(middles, widths, indexing="ij"))
    s = logistic((u - middle[:, None]) / width[:, None])
    weight = np.ones_like(u) if not found.known else found.error**-2
    share = weight / weight.sum()
    centred, y = s - (s @ share)[:, None], found.mean - found.mean @ share
    square = centred**2 @ weight
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = np.where(square > 1e-12 * weight.sum(), centred @ (weight * y) / square, 0.0)
    rise = sign * np.maximum(0.0, sign * rise)
    misfit = (weight * (y - rise[:, None] * centred) ** 2).sum(1)
    low = found.mean @ share - rise * (s @ share)
    ends = logistic(np.stack([-middle, 1 - middle]) / width)
    with np.errstate(divide="ignore", invalid="ignore"):
        at = [ends[0] + part * (ends[1] - ends[0]) for part in (0.1, 0.9)]
        narrow = width * (special.logit(at[1]) - special.logit(at[0]))
    usable = (rise != 0) & np.isfinite(narrow)
    return Profile(*(each[usable] for each in (middle, width, low, rise, misfit, narrow))) if usable.any() else NOTHING


WHOLE = 2 * float(np.log(9))  # widths of a logistic curve from 10 to 90 % of its rise
NOTHING = Profile(*np.array([[0.5], [1.0], [0.0], [0.0], [np.inf], [1.0]]))


def logistic(x: Floats) -> Floats:
    return 0.5 + 0.5 * np.tanh(x / 2)


def step_misfit(found: Levels) -> float:
    """The weighted squared residuals of the best step between two neighbouring scales."""
    weight, least = found.error**-2, np.inf
    for at in range(1, len(found.x)):
        parts = [slice(0, at), slice(at, None)]
        means = [np.average(found.mean[part], weights=weight[part]) for part in parts]
        left = [(weight[part] * (found.mean[part] - mean) ** 2).sum() for part, mean in zip(parts, means, strict=True)]
        least = min(least, float(sum(left)))
    return least


def drawn_curve(found: Levels, profile: Profile, chance: float, sign: int) -> dict[str, list[float]]:
    """The best logistic curve at 50 scales over the measured range."""
    best, u = int(profile.misfit.argmin()), np.linspace(0, 1, 50)
    y = profile.low[best] + profile.rise[best] * logistic((u - profile.middle[best]) / profile.width[best])
    x = found.x[0] + u * float(np.ptp(found.x))
    return {"scale": (10**x).tolist(), "value": (chance + sign * y).tolist()}


def leaves_chance(found: Levels, repeats: int = 1000) -> Interval | None:
    """The first measured scale from which on the means are above chance, by more than their 95 % interval.

    The series leaves chance anywhere between it and the scale before. So the interval, by a bootstrap that draws means
    around the measured ones (Student's t), begins at the scale before: zero if there is none. It ends at infinity if
    the last scale may not be above. None if the last isn't.
    """
    rng, shape = np.random.default_rng(0), (repeats, len(found.scale))
    noise = rng.standard_normal(shape) if np.isinf(found.freedom) else rng.standard_t(found.freedom, shape)
    scale = np.array([0.0, *found.scale, np.inf])
    first = int(first_above(found.mean[None] - found.margin)[0])
    low, high = percentiles(first_above(found.mean + found.error * noise - found.margin))
    if first == len(found.scale):
        return None
    return Interval(float(found.scale[first]), float(scale[int(low)]), float(scale[int(high) + 1]))


def first_above(y: Floats) -> Floats:
    """The column from which on each row of y "r s" is above zero; s if its last isn't."""
    return np.asarray(y.shape[1] - np.logical_and.accumulate(y[:, ::-1] > 0, 1).sum(1), np.float64)
