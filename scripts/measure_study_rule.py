"""Measures the error rates of the rule that sorts a study's curves, on simulated curves.

Run: python scripts/measure_study_rule.py aim/study/findings/error_rates.json
Time: 15 s on one core of an AMD EPYC. The same seed gives the same file.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from aim.study.findings.curves import WHOLE, classify_curve, logistic
from aim.study.findings.intervals import Floats

SIMULATIONS = 200
SEEDS, CHANCE = 3, 0.125
GRIDS = {  # the values varied by the demo study
    "4 sizes": np.geomspace(5e3, 3e6, 4),
    "5 shares": np.array([0.05, 0.1, 0.25, 0.5, 1.0]),
    "8 sizes": np.geomspace(5e3, 3e6, 8),
}
TOPS, SPREADS = (0.5, 0.95), (0.01, 0.04)  # of the best score and of the seeds' standard deviation: drawn evenly
SMOOTH = (0.5, 1.5)  # widths of smooth curves from 10 to 90 % of the whole rise, as parts of the measured range
MIDDLES = (0.1, 0.9)  # of smooth curves, as parts of the range
VIDEOS = 400  # of a test that adds its error to that of the seeds
WIDTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)  # of logistic curves that lie between a step and a smooth one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS)
    args = parser.parse_args()
    found = {
        "command": "python scripts/measure_study_rule.py aim/study/findings/error_rates.json",
        "simulations": args.simulations,
        **error_rates(args.simulations),
    }
    args.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for key, what in (("grids", "seeds alone"), ("grids_of_tests", f"seeds and a test of {found['videos']} videos")):
        for name, shares in found[key].items():
            print(f"{name}, {what}: {100 * shares['false_emergent']:.1f} % of smooth curves called emergent, "
                  f"{100 * shares['found_steps']:.1f} % of steps found")  # fmt: skip


def error_rates(simulations: int, seed: int = 0) -> dict[str, Any]:
    """By grid, and again with the error of a test: the verdicts on smooth curves and on steps."""
    return {
        "grids": {name: rates(scale, simulations, seed) for name, scale in GRIDS.items()},
        "videos": VIDEOS,
        "grids_of_tests": {name: rates(scale, simulations, seed, VIDEOS) for name, scale in GRIDS.items()},
        "emergent_by_width": {name: by_width(scale, simulations, seed) for name, scale in GRIDS.items()},
    }


def rates(scale: Floats, simulations: int, seed: int, videos: int | None = None) -> dict[str, float]:
    """The shares of smooth curves called emergent, smooth and too few to tell; and of steps.

    A smooth curve is logistic in the logarithm of scale; a step has at least two scales at chance before it.
    """
    rng = np.random.default_rng(seed)
    smooth = [kind(rng, scale, smooth_curve(rng, scale, rng.uniform(*SMOOTH)), videos) for _ in range(simulations)]
    steps = [kind(rng, scale, step(rng, len(scale)), videos) for _ in range(simulations)]
    return {
        "false_emergent": smooth.count("emergent") / simulations,
        "smooth_found": smooth.count("smooth") / simulations,
        "smooth_too_few": smooth.count("too few") / simulations,
        "found_steps": steps.count("emergent") / simulations,
        "steps_too_few": steps.count("too few") / simulations,
    }


def by_width(scale: Floats, simulations: int, seed: int) -> dict[str, float]:
    """The share called emergent of logistic curves, by their width as a part of the range; wherever their middle is."""
    rng, found = np.random.default_rng(seed), {}
    for width in WIDTHS:
        kinds = [kind(rng, scale, smooth_curve(rng, scale, max(width, 1e-3))) for _ in range(simulations)]
        found[str(width)] = kinds.count("emergent") / simulations
    return found


def smooth_curve(rng: np.random.Generator, scale: Floats, width: float) -> Floats:
    """A logistic curve from 0 to 1 at the scales."""
    x = np.log10(scale)
    u = (x - x[0]) / np.ptp(x)
    return logistic((u - rng.uniform(*MIDDLES)) * WHOLE / width)


def step(rng: np.random.Generator, count: int) -> Floats:
    """A step from 0 to 1 between two scales, with at least two before it."""
    return (np.arange(count) >= rng.integers(2, count)).astype(np.float64)


def kind(rng: np.random.Generator, scale: Floats, curve: Floats, videos: int | None = None) -> str:
    """The rule's verdict on a curve with noise: a best score and a spread of seeds are drawn.

    With a number of videos the scores are accuracies on a test of that size, the same for all seeds of a scale.
    """
    top, spread = rng.uniform(*TOPS), rng.uniform(*SPREADS)
    share = CHANCE + (top - CHANCE) * curve
    error = np.sqrt(share * (1 - share) / videos) if videos else np.zeros_like(share)
    tested = share + error * rng.standard_normal(len(scale))
    value = tested[:, None] + spread * rng.standard_normal((len(scale), SEEDS))
    errors = np.repeat(error, SEEDS) if videos else None
    return classify_curve(np.repeat(scale, SEEDS), value.ravel(), CHANCE, error=errors).kind


if __name__ == "__main__":
    main()
