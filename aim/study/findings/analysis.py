"""The analysis of a study's curves: their kinds, mirages, thresholds above chance, laws."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from itertools import combinations
from typing import Any

import numpy as np

from aim.ground.errors import UserError
from aim.pages.geometry import short
from aim.study.findings.curves import ALL, RULE, Curve, Verdict, classify_curve
from aim.study.findings.intervals import Interval, finite
from aim.study.findings.laws import FORMS, Law, chosen, fit_law
from aim.study.findings.levels import levels
from aim.study.findings.scores import LOSSES, MAIN
from aim.study.findings.sentences import name, summary

DESCENDING = ("trunk_error", "difficulty")  # axes on which less is better
COMPARED = ("parameters", "videos")  # axes of comparisons between series, if present: other sizes are equivalent
REPEATS = 100  # of the bootstrap of a law


@dataclass(frozen=True)
class Judged:
    """A curve and its verdict."""

    curve: Curve
    verdict: Verdict


def analyse(
    curves: Sequence[Curve],
    cells: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Any]],
    axes: Mapping[str, str],
) -> dict[str, Any]:
    """The keys curves, mirages, thresholds, helps, laws, rule and summary of study.json (docs/study.md)."""
    judged = [Judged(each, judge(each)) for each in map(measurable, curves)]
    main = MAIN if MAIN in scores else next(iter(scores))
    first = [each for each in judged if each.curve.score == main]
    study = {
        "curves": [as_dict(each) for each in judged],
        "mirages": mirages(judged, scores),
        "thresholds": [threshold(each, axes) for each in first],
        "helps": helps([each.curve for each in first], axes),
        "laws": laws(cells) if cells else laws_of_tables([each.curve for each in judged]),
        "rule": rule(),
    }
    return study | {"summary": summary(study, scores, axes)}


def measurable(curve: Curve) -> Curve:
    """A curve without values whose scale has no logarithm."""
    good = np.asarray(curve.scale) > 0
    if good.all():
        return curve
    error = None if curve.error is None else curve.error[good]
    return replace(curve, scale=curve.scale[good], value=curve.value[good], seed=curve.seed[good], error=error)


def judge(curve: Curve) -> Verdict:
    """Classify a curve; on an axis on which less is better from its other end."""
    if curve.axis not in DESCENDING:
        return classify_curve(curve.scale, curve.value, curve.chance, curve.better, curve.error)
    found = classify_curve(1 / curve.scale, curve.value, curve.chance, curve.better, curve.error)
    fit = found.fit and {"scale": [1 / x for x in found.fit["scale"]][::-1], "value": found.fit["value"][::-1]}
    at = found.threshold
    turned = at and Interval(1 / at.value, 1 / at.high, 1 / at.low if at.low else math.inf)
    return replace(found, fit=fit, threshold=turned)


def as_dict(each: Judged) -> dict[str, Any]:
    """A curve of study.json: means with their 95 % intervals."""
    curve, verdict = each.curve, each.verdict
    found = levels(curve.scale, curve.value, curve.chance, curve.better, curve.error)
    sign = 1 if curve.better == "high" else -1
    mean, margin = curve.chance + sign * found.mean, found.margin
    return {
        "task": curve.task, "series": curve.series, "score": curve.score, "axis": curve.axis,
        "scale": found.scale.tolist(), "mean": mean.tolist(), "low": (mean - margin).tolist(),
        "high": (mean + margin).tolist(), "seeds": sorted({int(seed) for seed in curve.seed}),
        "chance": curve.chance, "kind": verdict.kind, "why": verdict.why, "fit": verdict.fit,
        "threshold": verdict.threshold and [finite(end) or None for end in verdict.threshold],
    }  # fmt: skip


def mirages(judged: Sequence[Judged], scores: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For every jump of a thresholded score whether a continuous score of the same cells is smooth.

    Schaeffer et al. 2023 (arXiv 2304.15004): if so, the score makes the jump, not the model.
    """
    found = []
    for each in judged:
        curve = each.curve
        if each.verdict.kind != "emergent" or not scores[curve.score]["thresholded"]:
            continue
        same = [
            other for other in judged
            if not scores[other.curve.score]["thresholded"]
            and (other.curve.task, other.curve.series, other.curve.axis) == (curve.task, curve.series, curve.axis)
        ]  # fmt: skip
        smooth = [other for other in same if other.verdict.kind == "smooth"]
        jumps = [other for other in same if other.verdict.kind == "emergent"]
        said = f"{where(curve)}: {change(each, scores)} is a jump"
        if smooth:
            said += f", but {change(smooth[0], scores)} is smooth at the same cells: the score makes the jump"
        elif jumps:
            said += f", and {change(jumps[0], scores)} is one at the same cells too: not the score alone makes it"
        else:
            why = "; ".join(f"{name(other.curve.score, scores)}: {other.verdict.kind}" for other in same)
            said += f"; whether the score makes it can't be told ({why or 'no continuous score'})"
        found.append(
            {"task": curve.task, "series": curve.series, "axis": curve.axis, "jump": curve.score,
             "smooth_in": [other.curve.score for other in smooth], "sentence": said + "."}
        )  # fmt: skip
    return found


def where(curve: Curve) -> str:
    return ", ".join(part for part in (curve.series, curve.task) if part)


def change(each: Judged, scores: Mapping[str, Mapping[str, Any]]) -> str:
    """A score's means at both ends and the width of its rise."""
    means, numbers = as_dict(each)["mean"], each.verdict.numbers
    first, last = means[:: -1 if each.curve.axis in DESCENDING else 1][:: max(1, len(means) - 1)]
    ends = f"{name(each.curve.score, scores)} from {first:.3g} to {last:.3g}"
    return f"{ends} (10 to 90 % within {numbers['rise']:.2g} of {numbers['range']:.2g} decades)" if numbers else ends


def threshold(each: Judged, axes: Mapping[str, str]) -> dict[str, Any]:
    """The scale where a series leaves chance, with a sentence; an unmeasured end of its interval is None."""
    curve, at = each.curve, each.verdict.threshold
    axis = axes.get(curve.axis, curve.axis)
    first, last = extent(curve)
    if at is None:
        said = f"isn't above chance at the last scale measured ({axis}: {short(last)})"
    elif math.isclose(at.value, first):
        said = f"is above chance from the first scale measured on ({axis}: {short(first)})"
    else:
        low, high = (short(end) if end else "" for end in (at.low or None, finite(at.high)))
        early, late = (high, low) if curve.axis in DESCENDING else (low, high)
        ends = f"between {early} and {late}" if early and late else f"at {late} or before" if late else f"after {early}"
        known = f" (leaves it {ends}, 95 %)" if early or late else ""
        said = f"is above chance from {short(at.value)} {axis} on{known}"
    number = at and [finite(end) or None for end in at]
    return {
        "series": curve.series, "task": curve.task, "axis": curve.axis, "scale": number and number[0],
        "low": number and number[1], "high": number and number[2], "sentence": f"{where(curve)} {said}.",
    }  # fmt: skip


def extent(curve: Curve) -> tuple[float, float]:
    """The first and the last scale, in the order of expected improvement."""
    ends = float(np.min(curve.scale, initial=np.inf)), float(np.max(curve.scale, initial=0))
    return ends[::-1] if curve.axis in DESCENDING else ends


def helps(curves: Sequence[Curve], axes: Mapping[str, str]) -> list[dict[str, Any]]:
    """For each pair of series of one task, axis and trunk: the scale from which on the later one is better.

    Differences are paired by seed; each scale's mean must exceed its 95 % interval, with one spread for all scales.
    """
    found = []
    kept = [curve for curve in curves if curve.axis in COMPARED] or list(curves)
    for against, series in combinations(kept, 2):
        trunks = [each.series.partition(", ")[2] for each in (against, series)]
        if (against.task, against.axis) == (series.task, series.axis) and trunks[0] == trunks[1]:
            found.append(difference(series, against, axes))
    return [each for each in found if each]


def difference(series: Curve, against: Curve, axes: Mapping[str, str]) -> dict[str, Any]:
    """The entry of `helps` for one pair; empty if they share less than two scales."""
    sign = 1 if series.better == "high" else -1
    other = {(order, seed): value for order, seed, value in placed(against)}
    # Tuned and all parameters differ between adapters: the scales are paired by their order.
    pairs = [(order, seed, sign * (value - other[order, seed])) for order, seed, value in placed(series)
             if (order, seed) in other]  # fmt: skip
    pairs = [each for each in pairs if not math.isnan(each[2])]
    sizes = np.unique(series.scale)[:: -1 if series.axis in DESCENDING else 1]
    if len({each[0] for each in pairs}) < 2:
        return {}
    order, _, gain = (np.array(each) for each in zip(*pairs, strict=True))
    gained = levels(order + 1.0, gain, 0.0, "high")
    if not gained.known:
        return {}
    scale = sizes[np.unique(order).astype(int)]
    axis, task = axes.get(series.axis, series.axis), f" on {series.task}" if series.task not in ("", ALL) else ""
    better = gained.above
    above, who = None, f"{series.series} against {against.series}{task}"
    numbers = ", ".join(f"{value:+.3g}" for value in gained.mean)
    if better.all():
        said = "helps at every scale measured"
    elif better[-1]:
        first = len(better) - int(np.argmin(better[::-1]))
        above = float(scale[first])
        harm = " and harms below" if gained.below[:first].any() else ""
        said = f"helps only from {short(above)} {axis} on{harm}"
    elif better.any():
        said = "helps at some scales, but not at the largest"
    else:
        said = "harms" if gained.below.any() else "no difference can be told from chance"
    return {"series": series.series, "against": against.series, "axis": series.axis, "above": above,
            "sentence": f"{who}: {said} ({numbers})."}  # fmt: skip


def placed(curve: Curve) -> list[tuple[int, int, float]]:
    """The scale's place in the order, seed and value of each point."""
    order = np.unique(np.multiply(curve.scale, -1 if curve.axis in DESCENDING else 1), return_inverse=True)[1]
    return list(zip(order.tolist(), np.asarray(curve.seed).tolist(), np.asarray(curve.value).tolist(), strict=True))


def laws(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Three laws of each adapter's cross-entropy over trunk size and videos, and the best predictor among them."""
    found = []
    for series in dict.fromkeys(str(cell["adapter"]) for cell in cells):
        done = [cell for cell in cells if cell["adapter"] == series and cell["state"] == "done"]
        sizes, videos = ([cell[key] for cell in done] for key in ("parameters", "videos"))
        loss = next((name for name in LOSSES if any(name in cell["scores"] for cell in done)), LOSSES[0])
        found += fitted(series, loss, sizes, videos, [cell["scores"].get(loss, [math.nan])[0] for cell in done])
    return found


def laws_of_tables(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Laws of losses over one axis, for curves without cells."""
    found = []
    for curve in curves:
        if curve.better == "low" and (curve.value > 0).any():
            ones = np.ones_like(curve.scale)
            found += fitted(where(curve), curve.score, curve.scale.tolist(), ones.tolist(), curve.value.tolist())
    return found


def fitted(
    series: str, score: str, sizes: Sequence[float], videos: Sequence[float], losses: Sequence[float]
) -> list[dict[str, Any]]:
    """The laws of study.json for one series, or one entry with the reason for none."""
    try:
        found = [fit_law(sizes, videos, losses, form, repeats=REPEATS) for form in FORMS]
    except UserError as error:
        nothing = told(series, score, Law("constant", {}, [], math.nan, False, ""), False)
        return [nothing | {"sentence": f"{series}: no law ({error})."}]
    best = chosen(found)
    return [told(series, score, law, i == best) for i, law in enumerate(found)]


def told(series: str, score: str, law: Law, best: bool) -> dict[str, Any]:
    """A law of study.json."""
    numbers = [f"{key} {at.value:.3g} [{at.low:.3g}, {at.high:.3g}]" for key, at in law.parameters.items()]
    end = "it may be extrapolated" if law.extrapolates else "it isn't extrapolated"
    return {
        "series": series, "score": score, "form": law.form,
        "parameters": {key: [finite(end) for end in each] for key, each in law.parameters.items()},
        "held_out_error": finite(law.held_out_error), "extrapolates": law.extrapolates, "chosen": best,
        "dots": [dot for dot in law.dots if min(dot[:2]) > 0] if best else [],
        "sentence": f"{series}, {law.form} law: {', '.join(numbers)}; {law.why}; {end}.",
    }  # fmt: skip


def rule() -> dict[str, Any]:
    """The rule in words and its error rates on simulated curves, measured by scripts/measure_study_rule.py."""
    rates = json.loads(resources.files("aim.study.findings").joinpath("error_rates.json").read_text(encoding="utf-8"))
    tested = rates["grids_of_tests"].values()
    said = (
        f" With the error of a test of {rates['videos']} videos besides that of the seeds, at least "
        f"{100 * min(each['found_steps'] for each in tested):.0f} % of steps are found, "
        f"and at most {100 * max(each['false_emergent'] for each in tested):.1f} % of smooth curves called emergent."
    )
    worst = {key: pick(grid[key] for grid in rates["grids"].values())
             for key, pick in (("false_emergent", max), ("found_steps", min))}  # fmt: skip
    return {"text": RULE + said, **worst, "simulations": rates["simulations"]}
