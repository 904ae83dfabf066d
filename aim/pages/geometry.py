"""Places in the pictures of a page: numbers in, places in an SVG out."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """The size of a chart in the units of its viewBox, and the place of its axes."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float


CHART = Frame(360.0, 230.0, 46.0, 350.0, 12.0, 194.0)  # so large on a phone


@dataclass(frozen=True)
class Tick:
    """A number at an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Scale:
    """Values to places along an axis, from `low` at `start` to `high` at `end`; above zero it may be logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = map(math.log if self.log else float, (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (at - low) / ((high - low) or 1.0), 1)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About this many round numbers from `low` to `high`: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    if not rough > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def enclosing_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Such round numbers, the first at or below `low` and the last at or above `high`."""
    high = high if high > low else low + 1
    steps = ticks(low, high, count)
    steps = steps if len(steps) > 1 else ticks(low, high, 2 * count)
    spacing = steps[1] - steps[0] if len(steps) > 1 else 1.0
    return [
        *([steps[0] - spacing] if steps[0] > low else []),
        *steps,
        *([steps[-1] + spacing] if steps[-1] < high else []),
    ]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """At most this many round numbers from `low` to `high`, both above zero, for a logarithmic axis."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((math.log10(high / low) - 1e-9) / count))  # in powers of ten
    for factors in ((1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        powers = range(first, last + 1, 1 if len(factors) > 1 else step)
        found = [f * 10.0**p for p in powers for f in factors if low * (1 - 1e-9) <= f * 10.0**p <= high * (1 + 1e-9)]
        if len(found) <= count:
            break
    return found if len(found) > 1 else ticks(low, high, max(2, count - 2))


def number(value: float) -> str:
    """The fewest digits that represent it."""
    if not 0 < abs(value) < 0.01:
        return f"{value:.4g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def short_commit(commit: str) -> str:
    """The first twelve letters of a commit, and whether there were changes."""
    return commit[:12] + ("-dirty" if commit.endswith("-dirty") else "")


SUPERSCRIPTS = str.maketrans("-0123456789", "\u207b\u2070\xb9\xb2\xb3\u2074\u2075\u2076\u2077\u2078\u2079")


def short(value: float, digits: int = 3) -> str:
    """A number of any size in a few characters: 0.25, 480, 12 k, 3.1 M, 2 x 10^15 with real signs."""
    size = abs(value)
    if size != 0 and (size >= 999.5e6 or size < 1e-3):
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        power = "10" + str(int(exponent)).translate(SUPERSCRIPTS)
        return power if float(mantissa) == 1 else f"{float(mantissa):g}\xb7{power}"
    for limit, unit, name in ((999.5e3, 1e6, " M"), (9995.0, 1e3, " k")):
        if size >= limit:
            return f"{float(f'{value / unit:.{digits}g}'):g}{name}"
    return f"{float(f'{value:.{digits if size < 999.5 else max(4, digits)}g}'):g}"
