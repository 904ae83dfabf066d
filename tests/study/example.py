"""A study in the form of study.json, made by formulas: no trainings, no fits."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aim.study.findings.points import AXES

TRUNKS = {"demo_xs": 5_200, "demo_s": 61_000, "demo_m": 540_000, "demo": 3_100_000}  # parameters
PROBES = {"demo_xs": 0.55, "demo_s": 0.38, "demo_m": 0.22, "demo": 0.15}  # errors on stills
ADAPTERS = ("frozen", "probe", "spatial", "temporal", "joint", "aim")
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
PAIRS = ("move_right/move_left", "move_up/move_down", "grow/shrink", "turn_left/turn_right")
CLASSES, VIDEOS = 8, 1200
SCORES: dict[str, dict[str, Any]] = {
    "top1": {"name": "top-1", "better": "high", "thresholded": True, "chance": 1 / CLASSES},
    **{
        f"exact{k}": {
            "name": f"exact match on {k} in a row", "better": "high", "thresholded": True, "chance": CLASSES**-k,
        }
        for k in (2, 4, 8)
    },
    "cross_entropy": {"name": "cross-entropy", "better": "low", "thresholded": False, "chance": math.log(CLASSES)},
    "brier": {"name": "Brier score", "better": "low", "thresholded": False, "chance": 1 - 1 / CLASSES},
    "margin": {"name": "margin of the right class", "better": "high", "thresholded": False, "chance": 0.0},
}  # fmt: skip
WHY = {
    "smooth": "a logistic curve explains it as well as a step does",
    "emergent": "flat at chance up to a size, then a jump that no smooth curve explains",
    "flat": "no point's interval leaves chance",
    "falling": "the largest is worse than the smallest by more than their intervals",
    "too few": "fewer than three sizes: no curve can be fitted",
}


def skill(adapter: int, trunk: float, share: float, adapters: int) -> float:
    """How far a cell is above chance, 0 to 1: a logistic curve of the logarithms of trunk size and data."""
    at = math.log10(trunk) - 4.9 + 1.1 * math.log10(share) + 0.42 * (adapter - adapters / 2)
    return 0.0 if adapter == 0 else 1 / (1 + math.exp(-2.6 * at))


def scores_at(skilled: float, noise: float) -> dict[str, list[float]]:
    """Every score of a cell, with intervals for a number of videos."""
    top1 = min(0.995, max(0.01, 1 / CLASSES + (0.98 - 1 / CLASSES) * skilled + noise))
    width = 1.96 * math.sqrt(top1 * (1 - top1) / VIDEOS)
    found = {"top1": (top1, width)}
    for k in (2, 4, 8):
        found[f"exact{k}"] = (top1**k, k * top1 ** (k - 1) * width)
    loss = math.log(CLASSES) * (1 - skilled) ** 0.8 + 0.08 + noise
    found |= {
        "cross_entropy": (loss, 0.05),
        "brier": ((1 - 1 / CLASSES) * (1 - skilled) + 0.03, 0.02),
        "margin": (0.9 * skilled + noise, 0.03),
    }
    lowest = {"margin": -1.0}
    return {name: [v, max(v - w, lowest.get(name, 0.0)), v + w] for name, (v, w) in found.items()}


def cells_of(trunks: dict[str, int], adapters: Sequence[str], shares: Sequence[float], seeds: int) -> list[dict]:
    """One for each combination; seeds differ a little in their scores."""
    rng, found = np.random.default_rng(0), []
    for trunk, size in trunks.items():
        for i, adapter in enumerate(adapters):
            for share in shares:
                for seed in range(seeds):
                    name = f"trunk={trunk},adapter={adapter},share={share:g},seed={seed}"
                    videos, tuned = round(VIDEOS * share), round(1_000 + size * 0.03 * i)
                    found.append({
                        "name": name, "trunk": trunk, "adapter": adapter, "share": share, "seed": seed, "state": "done",
                        "why": None, "run_dir": f"runs/study/demo/{name}", "flops": 40.0 * size * videos * 16 * (1 + i),
                        "parameters": size + tuned, "tuned": tuned, "videos": videos,
                        "trunk_error": PROBES.get(trunk, 1 / (2 + math.log(size))), "seconds": 4.0 + size * share / 8e4,
                        "scores": scores_at(skill(i, size, share, len(adapters)), float(rng.normal(0, 0.01))),
                    })  # fmt: skip
    return found


def lost(cell: dict, state: str, why: str | None) -> None:
    """Make a cell one without scores."""
    cell |= {"state": state, "why": why, "seconds": None, "scores": {}}


def curve_of(cells: list[dict], task: str, series: str, score: str, axis: str, kind: str | None = None) -> dict:
    """A line through cells, one point for each value of the axis; `kind`, or the points' own shape."""
    chance = SCORES[score]["chance"]
    by_scale: dict[float, list[list[float]]] = {}
    for cell in sorted(cells, key=lambda cell: cell[axis]):
        if cell["state"] == "done":
            by_scale.setdefault(float(cell[axis]), []).append(cell["scores"][score])
    mean, low, high = np.reshape([np.mean(rows, 0) for rows in by_scale.values()], (-1, 3)).T.tolist()
    known = list(zip(by_scale, mean, strict=True))
    if kind is None:
        rise = mean[-1] - mean[0] if mean else 0.0
        kind = "too few" if len(known) < 3 else "flat" if abs(rise) < 0.05 else "smooth" if rise > 0 else "falling"
    fit = threshold = None
    if kind in ("smooth", "emergent"):
        x = np.geomspace(known[0][0], known[-1][0], 40)
        y = np.interp(np.log(x), np.log([x for x, _ in known]), [y for _, y in known])
        fit = {"scale": x.tolist(), "value": y.tolist()}
        if score in ("top1", "exact2", "exact4", "exact8"):
            at = float(x[int(np.argmax(y > chance + 0.05))])
            threshold = [at, at / 2.1, at * 1.8]
    return {
        "task": task, "series": series, "score": score, "axis": axis, "scale": list(by_scale), "mean": mean,
        "low": low, "high": high, "seeds": sorted({cell["seed"] for cell in cells}), "chance": chance,
        "kind": kind, "why": WHY[kind], "fit": fit, "threshold": threshold,
    }  # fmt: skip


def pair_of(curve: dict, task: int, kind: str) -> dict:
    """A curve of all classes as one of two of them, of this kind: values from its points alone."""
    n = len(curve["scale"])
    shapes = {
        "smooth": np.linspace(0.52, 0.97, n), "emergent": np.where(np.arange(n) < n - 1, 0.5, 0.93),
        "flat": np.full(n, 0.5), "falling": np.linspace(0.8, 0.55, n), "too few": np.linspace(0.5, 0.6, n),
    }  # fmt: skip
    mean = shapes[kind] + 0.008 * np.sin(np.arange(n) * 2.1 + task)
    scale = curve["scale"]
    fit = kind in ("smooth", "emergent")
    return curve | {
        "task": PAIRS[task % len(PAIRS)], "mean": mean.tolist(), "low": (mean - 0.04).tolist(),
        "high": (mean + 0.04).tolist(), "chance": 0.5, "kind": kind, "why": WHY[kind],
        "fit": {"scale": scale, "value": shapes[kind].tolist()} if fit else None,
        "threshold": [scale[-1] / 2, scale[-1] / 6, scale[-1]] if kind == "emergent" else None,
    }  # fmt: skip


def example(
    *, trunks: dict[str, int] = TRUNKS, adapters: Sequence[str] = ADAPTERS, shares: Sequence[float] = SHARES,
    seeds: int = 3, axes: Sequence[str] = tuple(AXES)[:5], holes: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """A whole study; with `holes` a cell failed, one is missing, and a point has no seed."""
    cells = cells_of(trunks, adapters, shares, seeds)
    if holes and len(cells) > 8:
        lost(cells[7], "failed", "the loss became nan at step 31; lower train.lr")
        lost(cells[-1], "missing", None)
        empty = (list(trunks)[len(trunks) // 4], adapters[-1], shares[-1])
        for cell in cells:
            if (cell["trunk"], cell["adapter"], cell["share"]) == empty:
                lost(cell, "failed", "out of memory")
    whole = [cell for cell in cells if cell["share"] == shares[-1]]
    groups = [(axis, [(a, [c for c in whole if c["adapter"] == a]) for a in adapters]) for axis in axes]
    if "videos" in axes:
        of_videos = [
            (f"{a}, {t}", [c for c in cells if (c["adapter"], c["trunk"]) == (a, t)]) for t in trunks for a in adapters
        ]
        groups = [(axis, of_videos if axis == "videos" else found) for axis, found in groups]
    curves = [
        curve_of(found, "all", name, score, axis)
        for axis, series in groups for name, found in series for score in SCORES
    ]  # fmt: skip
    kinds = ("smooth", "emergent", "flat", "smooth", "falling")
    tops = [curve for curve in curves if curve["score"] == "top1" and curve["axis"] != "videos"]
    curves += [
        pair_of(curve, task, "too few" if len(trunks) < 3 else kinds[(i + task) % len(kinds)])
        for i, curve in enumerate(tops) for task in range(len(PAIRS))
    ]  # fmt: skip
    by_adapter = {adapter: [cell for cell in whole if cell["adapter"] == adapter] for adapter in adapters}
    curves += [
        curve_of(by_adapter[c["series"]], "all", c["series"], "cross_entropy", c["axis"]) | {"task": c["task"]}
        for c in curves if c["kind"] == "emergent" and c["task"] != "all"
    ]  # fmt: skip
    return {
        "name": "demo", "title": "How adaptation of the demo's trunks scales", "machine": "2 x CPU", "seconds": 2130.0,
        "commit": "0cc524bd94b1a3f5d1c8c8df0a7c3ad0c4b5a6f7", "axes": {axis: AXES[axis] for axis in axes},
        "scores": SCORES, "cells": cells, "curves": curves, **findings(curves, adapters, list(axes)),
    }  # fmt: skip


def findings(curves: list[dict], adapters: Sequence[str], axes: Sequence[str]) -> dict[str, Any]:
    """The analysis of curves; here only in form."""
    tops = [curve for curve in curves if curve["score"] == "top1"]
    thresholds = []
    for curve in tops:
        at, low, high = curve["threshold"] or (None, None, None)
        what = f"{curve['task']}, {curve['series']}: "
        said = "never leaves chance" if at is None else f"leaves chance at {at:.3g} ({low:.3g} to {high:.3g})"
        keys = {key: curve[key] for key in ("series", "task", "axis")}
        thresholds.append(keys | {"scale": at, "low": low, "high": high, "sentence": what + said + "."})
    mirages = [
        {
            "task": curve["task"], "series": curve["series"], "axis": curve["axis"], "jump": "top1",
            "smooth_in": ["cross_entropy", "margin"],
            "sentence": f"{curve['task']}, {curve['series']}: top-1 jumps; cross-entropy and margin at the same cells "
            "are smooth, so that the jump is the score's.",
        }
        for curve in tops if curve["kind"] == "emergent"
    ]  # fmt: skip
    helps = [
        {
            "series": adapter, "against": adapters[0], "axis": axes[0], "above": None if i == 0 else 10.0 ** (9 + i),
            "sentence": f"{adapter} is better than {adapters[0]} "
            + ("nowhere." if i == 0 else f"above 1e{9 + i} {AXES.get(axes[0], 'scale')} only."),
        }
        for i, adapter in enumerate(adapters[1:])
    ]  # fmt: skip
    laws = [
        {
            "series": adapter, "score": "cross_entropy", "form": form,
            "parameters": {"A": [12.1, 9.8, 15.2], "a": [0.21, 0.1, 0.27], "b": [0.33, 0.2, 0.4], "E": [0.1, 0, None]},
            "held_out_error": 0.04 + 0.02 * i, "extrapolates": i == 0, "chosen": i == 0,
            "dots": [[0.3 + 0.1 * j, 0.31 + 0.098 * j, j < 2] for j in range(9)] if i == 0 else [],
            "sentence": f"{adapter}: the {form} law misses the largest scale by {4 + 2 * i} %.",
        }
        for adapter in adapters[1:4] for i, form in enumerate(("multiplicative", "additive", "constant"))
    ]  # fmt: skip
    rule = {
        "text": "A curve is emergent where a step explains it better than a logistic by more than 10 in BIC.",
        "false_emergent": 0.03, "found_steps": 0.955, "simulations": 200,
    }  # fmt: skip
    summary = [
        f"{adapters[-1]} leaves chance at the smallest trunk, {adapters[0]} nowhere.",
        "Of the jumps in top-1, every one is smooth in cross-entropy: no emergence is left by a continuous score.",
        "The multiplicative law extrapolates to the largest trunk within 4 %.",
    ]
    return {
        "mirages": mirages,
        "thresholds": thresholds,
        "helps": helps,
        "laws": laws,
        "rule": rule,
        "summary": summary,
    }


def table_example() -> dict[str, Any]:
    """A study of a table from elsewhere: no cells, one axis, one score, tasks of its own."""
    scale = [1e20, 3e20, 1e21, 3e21, 1e22, 3e22]
    curves = []
    for task, kind, mean in (
        ("modular arithmetic", "emergent", [0.0, 0.1, 0.2, 0.1, 7.5, 33.0]),
        ("word unscramble", "smooth", [1.0, 4.0, 9.0, 16.0, 25.0, 36.0]),
    ):
        curves.append({
            "task": task, "series": "", "score": "score", "axis": "scale", "scale": scale, "mean": mean,
            "low": [None] * 6, "high": [None] * 6, "seeds": [0], "chance": 0.0, "kind": kind, "why": WHY[kind],
            "fit": None, "threshold": [8e21, 4e21, 1.5e22] if kind == "emergent" else None,
        })  # fmt: skip
    empty = {key: [] for key in ("cells", "mirages", "thresholds", "helps", "laws")}
    return {
        "name": "table", "title": "table.csv", "machine": "2 x CPU", "commit": None, "seconds": 1.0,
        "axes": {"scale": "scale"}, "curves": curves, "summary": ["modular arithmetic is emergent."],
        "scores": {"score": {"name": "score", "better": "high", "thresholded": True, "chance": 0.0}},
        "rule": findings([], ["a"], ["scale"])["rule"], **empty,
    }  # fmt: skip
