"""`study.md`: findings in words, and a small table."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aim.study.findings.curves import ALL
from aim.study.shown.predicted import laws_of, miss_text
from aim.study.shown.views import KINDS, Curve, Study, capital, scale_text, unique, value_text

SENTENCES, COMPARISONS = 30, 15  # of a list; study.json has all


def summarise(data: Mapping[str, Any]) -> str:
    """The summary as Markdown."""
    study = Study(data)
    parts = [f"# {plain(data['title'] or data['name'])}", *listed(data["summary"])]
    parts += ["## Cells, machine and time", *listed(f"{name}: {text}" for name, text in study.facts)]
    if lost := [cell for cell in data["cells"] if cell["state"] != "done"]:
        why = (f"{cell['name']}: {cell['state']}{', ' + cell['why'] if cell['why'] else ''}" for cell in lost)
        parts += ["Without a result, and left out:", *listed(why)]
    if rows := scores_table(study):
        parts += [f"## {capital(study.score_name(study.score or ''))}", table_note(study), "\n".join(rows)]
    parts += kinds(study)
    over = f", over {plain(study.axis_name(study.axis or ''))}" if study.axis else ""
    jumps = [each for each in data["mirages"] if each["axis"] == study.axis]
    parts += section(f"Emergence, or a mirage of the score{over}", jumps, "No score that counts right answers jumps.")
    places = [each for each in data["thresholds"] if each["axis"] == study.axis]
    whole = [each for each in places if each["task"] == ALL]
    parts += section(f"Where each series leaves chance{over}", whole or places, "")
    if study.helps:
        parts += ["## Does it help only above some size?", *listed(study.helps, COMPARISONS)]
    parts += laws(study)
    if data["rule"]["text"]:
        parts += ["## The rule that sorts curves", plain(data["rule"]["text"]), study.rule_rates]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    """Text that Markdown shows unchanged, on one line."""
    return re.sub(r"([\\`*\[\]<>|#$~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(str(text).split()))


def listed(sentences: Iterable[str], most: int = SENTENCES) -> list[str]:
    """A list of sentences; those beyond a limit are counted."""
    found = list(sentences)
    lines = [f"- {plain(each)}" for each in found[:most]]
    lines += [f"- and {len(found) - most} more, in study.json"] if len(found) > most else []
    return ["\n".join(lines)] if lines else []


def section(title: str, found: Sequence[Mapping[str, Any]], nothing: str) -> list[str]:
    """The sentences under a heading, or a note that there are none."""
    sentences = unique(each["sentence"] for each in found)
    return [f"## {title}", *(listed(sentences) or [nothing])] if sentences or nothing else []


def table_note(study: Study) -> str:
    """A line on the table's columns."""
    if not study.data["cells"]:
        return f"By {study.axis_name(study.axis or '')}."
    shares = [cell["share"] for cell in study.data["cells"]]
    return f"With {100 * max(shares):g} % of the training videos: mean over seeds, in brackets smallest and largest."


def scores_table(study: Study) -> list[str]:
    """The main score by series and size: of cells with all their videos, or of the curves of a table from elsewhere."""
    score = study.score
    if score is None:
        return []
    if not study.data["cells"]:
        return curves_table([c for c in study.find(score=score, axis=study.axis or "") if c.points])
    most = max(cell["share"] for cell in study.plain)
    cells = [cell for cell in study.plain if cell["share"] == most]
    found: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        value = (cell["scores"].get(score) or [None])[0]
        found.setdefault((cell["adapter"], cell["trunk"]), []).extend([] if value is None else [value])
    rows = [
        [adapter, *(mean_text(score, found.get((adapter, trunk))) for trunk in study.trunks)]
        for adapter in unique(cell["adapter"] for cell in cells)
    ]
    return markdown(["adapter", *study.trunks], rows)


def mean_text(score: str, values: Sequence[float] | None) -> str:
    """Mean, smallest and largest over seeds."""
    if not values:
        return "-"
    mean = value_text(score, float(np.mean(values)))
    return mean if len(values) < 2 else f"{mean} ({value_text(score, min(values))} to {value_text(score, max(values))})"


def curves_table(curves: Sequence[Curve]) -> list[str]:
    """A row for each curve: its kind, and its first and last value."""
    rows = []
    for curve in curves:
        first, last = curve.points[0], curve.points[-1]
        scales, values = (
            f"{scale_text(first.scale)} to {scale_text(last.scale)}",
            f"{value_text(curve.score, first.mean)} to {value_text(curve.score, last.mean)}",
        )
        rows.append([curve.task, curve.series or "-", scales, values, curve.kind])
    return markdown(["task", "series", "scale", "score", "kind"], rows)


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(each if each == "---" else plain(each) for each in line) + " |" for line in lines]


def named(curve: Curve) -> str:
    """A curve by its task and series."""
    if curve.task == ALL:
        return curve.series or ALL
    return f"{curve.task} ({curve.series})" if curve.series else curve.task


def kinds(study: Study) -> list[str]:
    """The tasks of each kind, on the main axis."""
    curves = study.find(axis=study.axis or "", score=study.score or "")
    if not curves:
        return []
    parts = [f"## Curves by kind, over {plain(study.axis_name(study.axis or ''))}"]
    for kind, meaning in KINDS.items():
        names = [named(curve) for curve in curves if curve.kind == kind]
        said = f": {plain(', '.join(names))}" if names else ""
        parts.append(f"- **{kind}** ({meaning}), {len(names)}{said}")
    return [parts[0], "\n".join(parts[1:])]


def laws(study: Study) -> list[str]:
    """The laws in words, and their errors at the held-out scale."""
    found = [(it.series, law) for it in laws_of(study) for law in it.laws]
    rows = [[series, law["form"], miss_text(law), "yes" if law["extrapolates"] else "no"] for series, law in found]
    if not rows:
        return []
    said = listed(sentence for it in laws_of(study) for sentence in it.sentences)
    table = "\n".join(markdown(["series", "form", "error at the largest scale", "extrapolates"], rows))
    return ["## Laws", *said, table]
