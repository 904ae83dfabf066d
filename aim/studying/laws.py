"""Laws of a loss over the trunk's size X and the number of videos D, and whether they may be extrapolated.

Multiplicative: A / (X^a D^b) + E (Zhang et al., ICLR 2024, equation 1). Additive: A / X^a + B / D^b + E (Hoffmann et
al. 2022, equation 2). Constant: E. Fitted by variable projection: for each pair of exponents on a grid the other
parameters, which are linear, are found by non-negative least squares; then the grid is refined around the best.
The loss of the fit is Huber's on the logarithm (Hoffmann et al. 2022, section 3.3).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from aim.ground.errors import UserError
from aim.studying.intervals import Floats, Interval, drawn, percentiles

Form = Literal["multiplicative", "additive", "constant"]

FORMS: tuple[Form, ...] = ("multiplicative", "additive", "constant")
HUBER = 1e-3  # of Hoffmann et al. 2022
STEEPEST = 2.5  # exponent
BETTER = 0.9  # of another law's error: as much smaller a held-out error must be to count as one
LEVEL = 0.02  # relative error up to which a constant is a law as good as any
COARSE, FINE, ZOOMS = 10, 5, 6  # exponents of the grid and of each of its refinements
ROUNDS = 6  # of reweighted least squares; the coarse grid, which is only to be near, has two


@dataclass(frozen=True)
class Law:
    """A fitted law; a parameter that it hasn't is zero."""

    form: Form
    parameters: Mapping[str, Interval]
    largest: tuple[float, float]
    held_out_error: float  # mean relative error at the largest scale, fitted without it; NaN: too few scales
    extrapolates: bool
    why: str

    def predict(self, x: ArrayLike, d: ArrayLike) -> Floats:
        """The loss at sizes and numbers of videos. Raises UserError beyond the measured ones where that is useless."""
        x, d = np.asarray(x, np.float64), np.asarray(d, np.float64)
        if not self.extrapolates and ((x > self.largest[0]).any() or (d > self.largest[1]).any()):
            raise UserError(f"the {self.form} law isn't extrapolated: {self.why}")
        return evaluate({name: each.value for name, each in self.parameters.items()}, x, d)


def evaluate(theta: Mapping[str, float], x: Floats, d: Floats) -> Floats:
    """A law's loss at sizes and numbers of videos; a parameter that it hasn't is zero."""
    a, b, e = (theta.get(name, 0.0) for name in "abE")
    if "B" in theta:
        return np.asarray(theta["A"] * x**-a + theta["B"] * d**-b + e)
    return np.asarray(theta.get("A", 0.0) * x**-a * d**-b + e)


@dataclass(frozen=True)
class Points:
    """What is fitted, "n": sizes and numbers of videos as multiples of a unit near them, and losses."""

    x: Floats
    d: Floats
    loss: Floats

    def __getitem__(self, part: np.ndarray) -> "Points":
        return Points(self.x[part], self.d[part], self.loss[part])


def fit_law(
    x: ArrayLike, d: ArrayLike, loss: ArrayLike, form: Form = "multiplicative", repeats: int = 200, seed: int = 0
) -> Law:
    """Fit a law to points "n", with bootstrap intervals over the points; NaN among the losses is left out.

    The points of the largest size (or number of videos, where the size doesn't vary) are predicted from the others.
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
    theta = in_units(fit(points, form), *unit)
    draws = [in_units(fit(points[each], form), *unit) for each in resampled(points, form, repeats, seed)]
    found = {name: Interval(theta[name], *percentiles(np.array([each[name] for each in draws]))) for name in names}
    error, useful, why = held_out(points, form, repeats, seed)
    return Law(form, found, (float(sizes.max()), float(videos.max())), error, useful, why)


def in_units(theta: Mapping[str, float], x: float, d: float) -> dict[str, float]:
    """The parameters for sizes and numbers that aren't multiples of these units."""
    factor = {"A": x ** theta.get("a", 0.0), "B": d ** theta.get("b", 0.0)}
    if "B" not in theta:
        factor["A"] *= factor["B"]
    return {name: float(value * factor.get(name, 1.0)) for name, value in theta.items()}


def parameters(points: Points, form: Form) -> list[str]:
    """The names of those that the points can tell: no exponent of what doesn't vary."""
    if form == "constant":
        return ["E"]
    axes = [name for name, values in (("a", points.x), ("b", points.d)) if len(np.unique(values)) > 1]
    return ["A", *(["B"] if form == "additive" and len(axes) > 1 else []), *axes, "E"]


def resampled(points: Points, form: Form, repeats: int, seed: int) -> list[np.ndarray]:
    """Places of drawn points; draws that can't tell all parameters are left out."""
    counts = drawn((len(points.loss),), repeats, seed)
    places = [np.repeat(np.arange(len(row)), row) for row in counts]
    names = parameters(points, form)
    return [each for each in places if parameters(points[each], form) == names]


def held_out(points: Points, form: Form, repeats: int, seed: int) -> tuple[float, bool, str]:
    """The error at the largest scale of a fit without it, whether the law may be extrapolated, and why."""
    axis = points.x if len(np.unique(points.x)) > 1 else points.d
    largest = axis == axis.max()
    rest, far = points[~largest], points[largest]
    scales = len({*zip(rest.x, rest.d, strict=True)})
    if len(np.unique(axis)) < 3 or scales < len(parameters(rest, form)):
        return np.nan, False, "too few scales to hold the largest out"
    guess = evaluate(fit(rest, form), far.x, far.d)
    error = relative(guess, far.loss)
    if form == "constant":
        return error, False, "a constant has no trend to extrapolate"
    flat = relative(np.full_like(far.loss, fit(rest, "constant")["E"]), far.loss)
    draws = np.stack([evaluate(fit(rest[each], form), far.x, far.d) for each in resampled(rest, form, repeats, seed)])
    width = max(high - low for low, high in map(percentiles, draws.T))
    span = float(np.ptp(points.loss))
    said = f"the largest scale, held out, is predicted with an error of {100 * error:.1f} %"
    if flat <= LEVEL:
        return error, False, f"{said}, and so by a constant ({100 * flat:.1f} %): there is no trend to extrapolate"
    if error > BETTER * flat:
        return error, False, f"{said}, no better than a constant's ({100 * flat:.1f} %)"
    if width > span:
        why = f"{said}, but its 95 % interval ({width:.2g}) is wider than all that was measured ({span:.2g})"
        return error, False, why
    return error, True, f"{said} (a constant: {100 * flat:.1f} %), its 95 % interval {width:.2g} wide"


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


def fit(points: Points, form: Form) -> dict[str, float]:
    """The parameters of the best law, of a grid of exponents that is refined."""
    names = parameters(points, form)
    bounds = {name: (0.0, STEEPEST) for name in names if name in "ab"}
    for zoom in range(ZOOMS + 1 if bounds else 1):
        count = FINE if zoom else COARSE
        axes = [np.linspace(low, high, count + 2)[1:-1] for low, high in bounds.values()]
        grid = np.stack([each.ravel() for each in np.meshgrid(*axes, indexing="ij")], 1) if axes else np.zeros((1, 0))
        exponents = {name: grid[:, i] for i, name in enumerate(bounds)}
        linear, cost = projected(
            columns(points, names, exponents, len(grid)), points.loss, ROUNDS if zoom or not bounds else 2
        )
        best = int(cost.argmin())
        step = {name: (high - low) / (count + 1) for name, (low, high) in bounds.items()}
        bounds = {name: (max(0.0, grid[best, i] - 1.5 * step[name]), min(STEEPEST, grid[best, i] + 1.5 * step[name]))
                  for i, name in enumerate(bounds)}  # fmt: skip
    theta = dict(zip([name for name in names if name not in "ab"], linear[best].tolist(), strict=True))
    return theta | {name: float(grid[best, i]) for i, name in enumerate(bounds)}


def columns(points: Points, names: Sequence[str], exponents: Mapping[str, Floats], count: int) -> Floats:
    """What the linear parameters multiply, "g n p", for g pairs of exponents."""
    x, d = ((values[None] ** -exponents[name][:, None]) if name in exponents else np.ones((count, len(values)))
            for name, values in (("a", points.x), ("b", points.d)))  # fmt: skip
    one = np.ones((count, len(points.loss)))
    made = {"A": x if "B" in names else x * d, "B": d, "E": one}
    return np.stack([made[name] for name in names if name not in "ab"], 2)


def projected(column: Floats, loss: Floats, rounds: int) -> tuple[Floats, Floats]:
    """The best non-negative linear parameters "g p" for each grid point, and their Huber losses "g".

    Least squares are reweighted until they are Huber's of the logarithm.
    """
    weight = np.broadcast_to(loss**-2, column.shape[:2])
    best, least = np.zeros((len(column), column.shape[2])), np.full(len(column), np.inf)
    for _ in range(rounds):
        linear = non_negative(column, loss, weight)
        guess = np.maximum((column @ linear[..., None])[..., 0], 1e-12)
        off = np.log(guess / loss)
        size = np.abs(off)
        cost = np.where(size <= HUBER, size**2 / 2, HUBER * (size - HUBER / 2)).sum(1)
        better = cost < least
        best[better], least[better] = linear[better], cost[better]
        # (log f/l)^2 is about ((f - l) / m)^2 with m the logarithmic mean of f and l.
        mean = np.where(size > 1e-9, (guess - loss) / np.where(size > 1e-9, off, 1.0), loss)
        weight = HUBER / np.maximum(size, HUBER) / mean**2
    return best, least


def non_negative(column: Floats, target: Floats, weight: Floats) -> Floats:
    """Weighted least squares with no parameter below zero, "g p": the best of those with some of them at zero."""
    count, _, p = column.shape
    size = np.sqrt((weight[:, None] @ column**2)[:, 0])
    scaled = column / size[:, None]
    turned = (weight[..., None] * scaled).swapaxes(1, 2)
    gram, right = turned @ scaled, turned @ target
    best, gain = np.zeros((count, p)), np.zeros(count)
    for some in (list(each) for k in range(1, p + 1) for each in combinations(range(p), k)):
        part = gram[:, some][:, :, some] + 1e-13 * np.eye(len(some))
        solved = np.linalg.solve(part, right[:, some, None])[..., 0]
        gained = (solved * right[:, some]).sum(1)
        better = (solved >= 0).all(1) & (gained > gain)
        gain = np.where(better, gained, gain)
        best[better] = 0
        best[np.ix_(better, some)] = solved[better]
    return best / size
