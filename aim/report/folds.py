"""Folds of one setting as one result: scores by their mean over folds, videos together."""

import hashlib
import json
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from aim.engine.scores.metrics import METRICS
from aim.engine.scores.predictions import Predictions
from aim.ground import folds
from aim.ground.errors import UserError
from aim.report import statistics
from aim.report.runs import RunData, main_of
from aim.report.table import differing

OWN = ("choice", "selection", "epochs_trained")  # of one fold only
FILE = "folds.json"  # the pooled result, in the folder of the folds


def pooled(runs: Sequence[RunData]) -> tuple[list[RunData], list[str]]:
    """The runs, with the finished folds of each setting as one run, and causes for doubt.

    Raises UserError if two folds have tested the same video.
    """
    sets = dict[str, list[RunData]]()
    for run in runs:
        if fold_of(run) is not None and run.results is not None:
            setting = run.deciding | {"data.fold": str(fold_of(run)).partition("/")[2]}  # which all of a set share
            sets.setdefault(json.dumps([run.trains, setting], sort_keys=True), []).append(run)
    several = {id(run): own for own in sets.values() if len(own) > 1 for run in own}
    found, said = list[RunData](), list[str]()
    for run in runs:
        own = several.get(id(run), [run])
        if run is own[0]:
            found.append(run if len(own) == 1 else one_of(own))
            said += missing(own)
    if len(sets) > 1 and said:
        differ = differing([own[0].deciding | {"data.fold": None} for own in sets.values()])
        words = ", ".join(f"{key}={' or '.join(dict.fromkeys(values))}" for key, values in differ.items())
        said.append(f"folds of different settings aren't pooled: {words}")
    return found, said


def fold_of(run: RunData) -> str | int | None:
    """The fold that a run holds out, if it is one of several."""
    found: str | int | None = (run.settings.get("data") or {}).get("fold")
    return found


def missing(runs: Sequence[RunData]) -> list[str]:
    """The sentence on missing folds."""
    if len(runs) < 2:
        return []
    there = {str(fold_of(run)) for run in runs if fold_of(run) is not None}
    counts = {fold.partition("/")[2] for fold in there if "/" in fold}
    lacking = [fold for count in counts for k in range(1, int(count) + 1) if (fold := f"{k}/{count}") not in there]
    if not lacking:
        return []
    return [f"{len(lacking)} of {next(iter(counts))} folds have no result: {', '.join(lacking)}"]


def one_of(runs: Sequence[RunData]) -> RunData:
    """The folds of one setting as one result: scores are means over folds, counts are of all videos."""
    check(runs)
    first, results = runs[0], [run.results for run in runs if run.results is not None]
    parts = [run.found for run in runs if run.found is not None]
    found = together(parts) if len(parts) == len(runs) else None
    score = main_of(runs)
    main = [each[score.name] for each in results]
    videos = sum(each.get("num_videos", 0) for each in results)
    right = sum(round(each[score.name] * each.get("num_videos", 0) / 100) for each in results)
    scores = {each: [result[each.name] for result in results if each.name in result] for each in METRICS}
    means = {each.name: round(mean(own), each.digits) for each, own in scores.items() if each.name in results[0]}
    whole = {
        "of_all_videos": round(100 * right / max(1, videos), 3),
        "interval": [round(end, 3) for end in statistics.interval(right, videos)],
    }
    counted = found.results() if found is not None else {}
    pooled = {
        **{key: value for key, value in results[0].items() if key not in OWN},
        **counted,
        **means,
        "baseline": counted.get("baseline", results[0].get("baseline", {})),
        "num_videos": videos,
        "num_missing": sum(each.get("num_missing", 0) for each in results),
        "seconds": round(sum(each["seconds"] for each in results), 1),
        "data_hash": _hash(results, lambda each: each.get("data_hash")),
        "identity": {
            key: _hash(results, lambda each, key=key: each.get("identity", {}).get(key))
            for key in ("train_hash", "data_hash")
        },
        "folds": {
            "count": len(runs),
            "mean": round(mean(main), 3),
            "sd": round(stdev(main), 3),
            "each": {str(fold_of(run)): run.results[score.name] for run in runs if run.results is not None},
            **(whole if score.per_video else {}),
        },
    }
    data = {**first.settings["data"], "fold": None}
    folder = first.path.parent if folds.is_fold(first.path) else first.path
    bad = {path: why for run in runs for path, why in run.bad.items()}
    return RunData(folder, pooled, {**first.settings, "data": data}, found=found, bad=bad)


def _hash(results: Sequence[Any], own: Callable[..., object]) -> str:
    """The union of a property of the folds, in any order."""
    text = "\n".join(sorted(str(own(each)) for each in results))
    return hashlib.sha256(text.encode()).hexdigest()


def check(runs: Sequence[RunData]) -> None:
    """Raise UserError if folds overlap, or have other classes."""
    seen = dict[tuple[str, str], RunData]()
    known = [run for run in runs if run.found is not None]
    for run in known:
        assert run.found is not None
        assert known[0].found is not None
        if run.found.classes.tolist() != known[0].found.classes.tolist():
            raise UserError(f"{run.path} has other classes than {known[0].path}; report them separately")
        own = {(path, span) for path, span, _ in statistics.keys(run.found)}
        if both := sorted(own & seen.keys()):
            raise UserError(
                f"{seen[both[0]].path} and {run.path} have {len(both)} test videos in common, such as {both[0][0]}: "
                "these aren't folds of one data set; report them separately"
            )
        seen |= dict.fromkeys(own, run)


def together(parts: Sequence[Predictions]) -> Predictions:
    """The predictions for the videos of all folds, concatenated."""

    def joined(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    names = ("label", "path", "span", "probability", "log_probability", "seconds")
    about = {**parts[0].about, "data_hash": _hash(parts, lambda part: part.about.get("data_hash"))}
    index = np.arange(sum(len(part.index) for part in parts))
    return Predictions(index=index, classes=parts[0].classes, about=about, **{name: joined(name) for name in names})
