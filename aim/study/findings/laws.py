"""Laws of a loss over the trunk's size X and the number of videos D, and whether they may be extrapolated.

Multiplicative: A / (X^a D^b) + E (Zhang et al., ICLR 2024, equation 1). Additive: A / X^a + B / D^b + E (Hoffmann et
al. 2022, equation 2). Constant: E. Fitted by SciPy's least squares, from the best of a few exponents. The loss of the
fit is Huber's on the logarithm (Hoffmann et al. 2022, section 3.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from aim.ground.errors import UserError
from aim.study.findings.intervals import Floats, Interval, drawn, percentiles

Form = Literal["multiplicative", "additive", "constant"]

FORMS: tuple[Form, ...] = ("multiplicative", "additive", "constant")
HUBER = 1e-3  # of Hoffmann et al. 2022
STEEPEST = 2.5  # exponent
BETTER = 0.9  # a better law's held-out error is at most this part of the other's
LEVEL = 0.02  # relative error up to which a constant is good enough
LEAST = 1e-12  # least loss in a logarithm
NOTHING = 1e-8  # of a parameter: it ended at its bound
STARTS, TRIED = (0.05, 0.2, 0.5, 1.0, 1.8), 3  # exponents; the number of best pairs that are refined
SCALES = (1e-1, 1e-2, HUBER)  # of the Huber loss, one after another: the last alone is slow from far away


class Dot(NamedTuple):
    """The loss of a point, predicted by the law fitted without the largest scale, and measured."""

    predicted: float
    measured: float
    held_out: bool  # it is of the largest scale


class Trial(NamedTuple):
    """A law's prediction of the held-out largest scale."""

    dots: Sequence[Dot]
    error: float
    extrapolates: bool
    why: str


@dataclass(frozen=True)
class Law:
    """A fitted law; parameters that it lacks are zero."""

    form: Form
    parameters: Mapping[str, Interval]
    dots: Sequence[Dot]
    held_out_error: float  # mean relative error at the largest scale, fitted without it; NaN: too few scales
    extrapolates: bool
    why: str


def evaluate(theta: Mapping[str, float], x: Floats, d: Floats) -> Floats:
    """A law's loss at sizes and numbers of videos; parameters that it lacks are zero."""
    a, b, e = (theta.get(name, 0.0) for name in "abE")
    if "B" in theta:
        return np.asarray(theta["A"] * x**-a + theta["B"] * d**-b + e)
    return np.asarray(theta.get("A", 0.0) * x**-a * d**-b + e)


@dataclass(frozen=True)
class Points:
    """The data of a fit, "n": sizes and numbers of videos as multiples of a unit near them, and losses."""

    x: Floats
    d: Floats
    loss: Floats

    def __getitem__(self, part: np.ndarray) -> "Points":
        return Points(self.x[part], self.d[part], self.loss[part])


def fit_law(
    x: ArrayLike, d: ArrayLike, loss: ArrayLike, form: Form = "multiplicative", repeats: int = 200, seed: int = 0
) -> Law:
    """Fit a law to points "n", with bootstrap intervals over the points; NaN among the losses is left out.

    The points of the largest size (or number of videos, if the size doesn't vary) are predicted from the others.
    """
    if form not in FORMS:
        raise UserError(f"form={form}: one of {', '.join(FORMS)}")
    raw = [np.asarray(each, np.float64).ravel() for each in (x, d, loss)]
    if len({len(each) for each in raw}) > 1:
        raise UserError(f"{len(raw[0])} sizes, {len(raw[1])} numbers of videos and {len(raw[2])} losses; one of each")
    kept = ~np.isnan(np.stack(raw)).any(0)
    sizes, videos, losses = (each[kept] for each in raw)
    if len(losses) and min(sizes.min(), videos.min(), losses.min()) <= 0:
        raise UserError("a law needs sizes, numbers of videos and losses above zero")
    scales = len({*zip(sizes, videos, strict=True)})
    if scales < 2:
        raise UserError(f"{'one scale only' if scales else 'no losses'}: no curve can be fitted")
    unit = np.exp(np.log(sizes).mean()), np.exp(np.log(videos).mean())
    points = Points(sizes / unit[0], videos / unit[1], losses)
    names = parameters(points, form)
    if scales <= len(names) - (form != "constant"):
        raise UserError(f"{scales} scales for the {len(names)} parameters of the {form} law; give more")
    whole = fit(points, form)
    theta = in_units(whole, *unit)
    draws = [in_units(fit(points[each], form, whole), *unit) for each in resampled(points, form, repeats, seed)]
    found = {name: Interval(theta[name], *percentiles(np.array([each[name] for each in draws]))) for name in names}
    return Law(form, found, *held_out(points, form, repeats, seed))


def in_units(theta: Mapping[str, float], x: float, d: float) -> dict[str, float]:
    """The parameters for sizes and numbers that aren't multiples of these units."""
    factor = {"A": x ** theta.get("a", 0.0), "B": d ** theta.get("b", 0.0)}
    if "B" not in theta:
        factor["A"] *= factor["B"]
    return {name: float(value * factor.get(name, 1.0)) for name, value in theta.items()}


def parameters(points: Points, form: Form) -> list[str]:
    """The names of the identifiable parameters: no exponent of a constant."""
    if form == "constant":
        return ["E"]
    axes = [name for name, values in (("a", points.x), ("b", points.d)) if len(np.unique(values)) > 1]
    return ["A", *(["B"] if form == "additive" and len(axes) > 1 else []), *axes, "E"]


def resampled(points: Points, form: Form, repeats: int, seed: int) -> list[np.ndarray]:
    """Places of drawn points; draws that don't identify all parameters are left out."""
    counts = drawn(len(points.loss), repeats, seed)
    places = [np.repeat(np.arange(len(row)), row) for row in counts]
    names = parameters(points, form)
    return [each for each in places if parameters(points[each], form) == names]


def held_out(points: Points, form: Form, repeats: int, seed: int) -> Trial:
    """Predict the largest scale by a fit to the others; the error decides whether to extrapolate."""
    axis = points.x if len(np.unique(points.x)) > 1 else points.d
    largest = axis == axis.max()
    rest, far = points[~largest], points[largest]
    scales = len({*zip(rest.x, rest.d, strict=True)})
    if len(np.unique(axis)) < 3 or scales < len(parameters(rest, form)):
        return Trial([], np.nan, False, "too few scales to hold the largest out")
    theta = fit(rest, form)
    guess = evaluate(theta, points.x, points.d)
    error = relative(guess[largest], far.loss)
    found = partial(Trial, list(map(Dot, guess.tolist(), points.loss.tolist(), largest.tolist())), error)
    if form == "constant":
        return found(False, "a constant has no trend to extrapolate")
    flat = relative(np.full_like(far.loss, fit(rest, "constant")["E"]), far.loss)
    parts = resampled(rest, form, repeats, seed)
    draws = np.stack([evaluate(fit(rest[part], form, theta), far.x, far.d) for part in parts])
    width = max(high - low for low, high in map(percentiles, draws.T))
    span = float(np.ptp(points.loss))
    said = f"the largest scale, held out, is predicted with an error of {100 * error:.1f} %"
    if flat <= LEVEL:
        return found(False, f"{said}, and so by a constant ({100 * flat:.1f} %): there is no trend to extrapolate")
    if error > BETTER * flat:
        return found(False, f"{said}, no better than a constant's ({100 * flat:.1f} %)")
    if width > span:
        wide = f"its 95 % interval ({width:.2g}) is wider than all that was measured ({span:.2g})"
        return found(False, f"{said}, but {wide}")
    return found(True, f"{said} (a constant: {100 * flat:.1f} %), its 95 % interval {width:.2g} wide")


def chosen(laws: Sequence[Law]) -> int:
    """The place of the law with the smallest held-out error; one with more parameters must be clearly better."""
    best = min(range(len(laws)), key=lambda i: len(laws[i].parameters))
    for i in sorted(range(len(laws)), key=lambda i: len(laws[i].parameters)):
        if laws[i].held_out_error < BETTER * laws[best].held_out_error:
            best = i
    return best


def relative(guess: Floats, truth: Floats) -> float:
    """Mean absolute error of the logarithm: the relative error, to first order."""
    return float(np.abs(np.log(np.maximum(guess, 1e-12) / truth)).mean())


def fit(points: Points, form: Form, start: Mapping[str, float] | None = None) -> dict[str, float]:
    """The parameters of the best law, none below zero; `start` is the law of similar points, if known."""
    names = parameters(points, form)
    linear = [name for name in names if name not in "ab"]
    exponents = [name for name in names if name in "ab"]

    def guess(theta: Mapping[str, float]) -> Floats:
        return np.maximum(evaluate(theta, points.x, points.d), LEAST)

    def off(theta: Sequence[float]) -> Floats:
        return np.asarray(np.log(guess(dict(zip(names, theta, strict=True))) / points.loss))

    def near(*given: float) -> list[float]:
        """All parameters, the linear ones fitted to these exponents."""
        found = dict(zip(exponents, given, strict=True))
        each = [guess(found | {name: float(name == one) for name in linear}) / points.loss for one in linear]
        found |= zip(linear, optimize.nnls(np.stack(each, 1), np.ones_like(points.loss))[0], strict=True)
        return [found[name] for name in names]

    grid = product(STARTS, repeat=len(exponents))
    starts = [[start[name] for name in names]] if start else [near(*each) for each in grid]
    bounds = [0.0] * len(names), [STEEPEST if name in "ab" else np.inf for name in names]
    found = []
    for theta in sorted(starts, key=lambda each: float(np.abs(off(each)).sum()))[:TRIED]:
        for scale in SCALES:
            result = optimize.least_squares(off, theta, bounds=bounds, loss="huber", f_scale=scale, x_scale="jac")
            theta = result.x
        found.append(result)
    best = min(found, key=lambda each: float(each.cost))
    return {name: float(value) if value > NOTHING else 0.0 for name, value in zip(names, best.x, strict=True)}
