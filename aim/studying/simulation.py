"""How often the rule that sorts curves errs, on curves whose kind is known."""

from typing import Any

import numpy as np

from aim.studying.curves import WHOLE, classify_curve, logistic
from aim.studying.intervals import Floats

SEEDS, CHANCE = 3, 0.125
GRIDS = {  # by what the demo study varies
    "4 sizes": np.geomspace(5e3, 3e6, 4),
    "5 shares": np.array([0.05, 0.1, 0.25, 0.5, 1.0]),
    "8 sizes": np.geomspace(5e3, 3e6, 8),
}
TOPS, SPREADS = (0.5, 0.95), (0.01, 0.04)  # of the best score and of the seeds' standard deviation: drawn evenly
SMOOTH = (0.5, 1.5)  # widths of smooth curves from 10 to 90 % of the whole rise, as parts of the measured range
MIDDLES = (0.1, 0.9)  # of smooth curves, as parts of the range
WIDTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)  # of logistic curves that lie between a step and a smooth one


def error_rates(simulations: int, seed: int = 0) -> dict[str, Any]:
    """By grid: the share of smooth curves called emergent, of steps found, of each that is too few to tell.

    A smooth curve is logistic in the logarithm of scale; a step has at least two scales at chance before it.
    `emergent_by_width` is the share called emergent of logistic curves by their width as a part of the range.
    """
    found = {}
    for name, scale in GRIDS.items():
        rng = np.random.default_rng(seed)
        smooth = [kind(rng, scale, smooth_curve(rng, scale, rng.uniform(*SMOOTH))) for _ in range(simulations)]
        steps = [kind(rng, scale, step(rng, len(scale))) for _ in range(simulations)]
        by_width = {
            str(width): sum(
                kind(rng, scale, smooth_curve(rng, scale, max(width, 1e-3))) == "emergent" for _ in range(simulations)
            )
            / simulations
            for width in WIDTHS
        }
        found[name] = {
            "false_emergent": smooth.count("emergent") / simulations,
            "smooth_found": smooth.count("smooth") / simulations,
            "smooth_too_few": smooth.count("too few") / simulations,
            "found_steps": steps.count("emergent") / simulations,
            "steps_too_few": steps.count("too few") / simulations,
            "emergent_by_width": by_width,
        }
    return found


def smooth_curve(rng: np.random.Generator, scale: Floats, width: float) -> Floats:
    """A logistic curve from 0 to 1 at the scales."""
    x = np.log10(scale)
    u = (x - x[0]) / np.ptp(x)
    return logistic((u - rng.uniform(*MIDDLES)) * WHOLE / width)


def step(rng: np.random.Generator, count: int) -> Floats:
    """A step from 0 to 1 between two scales, with at least two before it."""
    return (np.arange(count) >= rng.integers(2, count)).astype(np.float64)


def kind(rng: np.random.Generator, scale: Floats, curve: Floats) -> str:
    """What the rule says of a curve with noise: a best score and a spread of seeds are drawn."""
    top, spread = rng.uniform(*TOPS), rng.uniform(*SPREADS)
    value = (CHANCE + (top - CHANCE) * curve)[:, None] + spread * rng.standard_normal((len(scale), SEEDS))
    return classify_curve(np.repeat(scale, SEEDS), value.ravel(), CHANCE).kind
