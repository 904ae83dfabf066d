"""The Markdown table of runs: seeds of one setting share a row, and differing settings have columns."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

from aim.engine.run import content
from aim.engine.scores.metrics import METRICS, Metric, told
from aim.ground.amounts import in_millions
from aim.ground.choices import followers
from aim.report import data
from aim.report.runs import RunData

HEAD = ("run", "views", "tuned / all parameters (M)", "GMACs per view", "seeds", "tested on")
SHOWN = ("name", "seed", "views.temporal", "views.spatial", "clip.num_frames")  # settings with a fixed column
MOST = 6  # columns of settings on a terminal


def table(runs: Sequence[RunData]) -> str:
    """A Markdown table of finished runs, in the given order."""
    groups: dict[str, list[RunData]] = {}
    seen = set[str]()
    videos = data.column(runs) or [""] * len(runs)
    for run, own in zip(runs, videos, strict=True):
        settings = run.deciding
        text = json.dumps([run.trains, own, settings], sort_keys=True)
        alike = json.dumps(
            [run.trains, own, {key: value for key, value in settings.items() if key != "seed"}], sort_keys=True
        )
        # Runs without any difference, such as tests of two checkpoints, aren't seeds of each other.
        groups.setdefault(alike + (label(run) if text in seen else ""), []).append(run)
        seen.add(text)
    firsts = [group[0] for group in groups.values()]
    columns = columns_of(firsts, most=MOST)
    times = [f"{word} (s)" for word, trains in TIMES if any(run.trains == trains for run in firsts)]
    shown = [metric for metric in METRICS if any(metric in told(run.results or {}) for run in firsts)]
    shown = [metric for metric in shown if metric.unit == "percent"]
    scores = [f"{words} (%)" for words in (shown[0].words, shown[0].constant_words, *(x.words for x in shown[1:]))]
    head = [HEAD[0], *columns, *HEAD[1:], *scores, *times]
    rows = [
        [common(group), *(cells[i] for cells in columns.values()), *row(group, shown, len(times) > 1)]
        for i, group in enumerate(groups.values())
    ]
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in cells] for cells in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


TIMES = (("training and test", True), ("test alone", False))  # of a training, of a test


def common(group: Sequence[RunData]) -> str:
    """The name of runs that share a row; seeds of one setting may have separate folders."""
    return label(group[0] if len(group) == 1 else replace(group[0], title=""))


def label(run: RunData) -> str:
    """The run directory's name without its seed."""
    return ",".join(part for part in run.name.split(",") if not part.startswith("seed="))


def row(group: Sequence[RunData], shown: Sequence[Metric], both_times: bool) -> list[str]:
    """The numbers of runs that share a row; the seconds of trainings and of tests have separate columns."""
    results = [run.results for run in group if run.results is not None]
    first = results[0]
    seconds = f"{mean(found['seconds'] for found in results):.0f}"
    main, *others = [spread([found[each.name] for found in results if each.name in found]) for each in shown]
    if len(group) == 1 and "folds" in first:
        main = f"{main} (sd {first['folds']['sd']:.1f})"
    chose = ", which chose" if first.get("chose") else ""
    folds = f" in {first['folds']['count']} folds" if "folds" in first else ""
    return [
        first["views"],
        f"{in_millions(first['params_tuned'])} / {in_millions(first['params_total'])}",
        f"{first['gmacs_per_view']:.2f}",
        str(len(results)),
        f"{first.get('num_videos', '')} {content.kind(first)}videos{folds}{chose}".strip(),
        main,
        spread([run.baseline[shown[0].name] for run in group if shown[0].name in run.baseline]),
        *others,
        *([seconds] if not both_times else [seconds, "-"] if group[0].trains else ["-", seconds]),
    ]


def spread(values: Sequence[float]) -> str:
    """The mean, and the range if there are several."""
    text = f"{mean(values):.1f}" if values else "-"
    return f"{text} ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else text


def columns_of(runs: Sequence[RunData], shown: Sequence[str] = SHOWN, most: int | None = None) -> dict[str, list[str]]:
    """The columns that distinguish runs: first their data, if it differs, then their settings."""
    videos = data.column(runs)
    return {**({"data": videos} if videos else {}), **differing([run.deciding for run in runs], shown, most)}


def differing(
    settings: Sequence[Mapping[str, Any]], shown: Sequence[str] = SHOWN, most: int | None = None
) -> dict[str, list[str]]:
    """A column, by its short name, for each setting that isn't the same in all; for other groups their names.

    Without those already `shown`, those that follow another setting in all runs, and no more than `most`.
    """
    following = {
        key for key, other in followers() if all(key in each and each[key] == each.get(other) for each in settings)
    }
    keys = list(dict.fromkeys(key for each in settings for key in each))
    found: dict[str, list[str]] = {}
    for key in keys:
        values = [each.get(key) for each in settings]
        group = key.rpartition(".")[0]
        kinds = {each.get(f"{group}.kind") for each in settings}
        if (
            key in shown
            or key in following
            or all(value == values[0] for value in values)
            or (len(kinds) > 1 and not key.endswith(".kind"))
        ):
            continue
        found[key.removesuffix(".kind")] = [said(value) for value in values]
    return {short(key, found): found[key] for key in list(found)[:most]}


def said(value: Any) -> str:
    """A setting's value in YAML; of a path the end."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value.rpartition("/")[2] if isinstance(value, str) else "-" if value is None else json.dumps(value)


def short(key: str, others: Mapping[str, Any]) -> str:
    """The shortest distinct end of a dotted name."""
    words = key.split(".")
    for count in range(1, len(words)):
        end = ".".join(words[-count:])
        if sum(f".{other}".endswith(f".{end}") for other in others) == 1:
            return end
    return key
