"""The findings of a study, positive and negative, in a few sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from aim.pages.geometry import short
from aim.study.findings.curves import ALL

KINDS = {"smooth": "rise smoothly", "flat": "are flat", "falling": "fall", "too few": "can't be told"}
NAMED = 3  # of a kind in one sentence


def summary(study: Mapping[str, Any], scores: Mapping[str, Mapping[str, Any]], axes: Mapping[str, str]) -> list[str]:
    """Plain sentences: the scales where series leave chance, jumps, jumps made by the score, improvements, laws."""
    sharp = [each for each in study["curves"] if scores[each["score"]]["thresholded"]]
    said = [*leaving(study["thresholds"], axes), jumps(sharp, scores, axes)]
    if any(each["kind"] == "emergent" for each in sharp):
        said += mirages(study["mirages"], scores)
    said += [each["sentence"] for each in study["helps"] if each["above"] is not None][:NAMED]
    laws = [each for each in study["laws"] if each["chosen"]]
    if laws:
        useful = [f"{each['series']} ({each['form']})" for each in laws if each["extrapolates"]]
        said.append(
            f"Laws: the largest scale, held out, is predicted usefully for {len(useful)} of {len(laws)} series"
            f"{': ' + listed(useful) if useful else ''}."
        )
    return said


def leaving(thresholds: Sequence[Mapping[str, Any]], axes: Mapping[str, str]) -> list[str]:
    """One sentence for the first axis: the series above chance with their scales, and those never above it."""
    found = [each for each in thresholds if each["task"] in (ALL, "") and each["series"]]
    axis = next((axis for axis in ("parameters", *axes) if any(each["axis"] == axis for each in found)), None)
    found = [each for each in found if each["axis"] == axis]
    above = [f"{each['series']} from {short(each['scale'])} on" for each in found if each["scale"] is not None]
    never = [each["series"] for each in found if each["scale"] is None]
    nowhere = f"{', '.join(never)} nowhere that was measured" if never else ""
    parts = [part for part in ("; ".join(above), nowhere) if part]
    return [f"Above chance, over {axes.get(axis or '', axis)}: {'; '.join(parts)}."] if parts else []


def jumps(sharp: Sequence[Mapping[str, Any]], scores: Mapping[str, Mapping[str, Any]], axes: Mapping[str, str]) -> str:
    """The number of curves of each kind, and the first that jump."""
    counts = Counter(each["kind"] for each in sharp)
    of = f"Of {len(sharp)} curve{'s' if len(sharp) != 1 else ''} of thresholded scores"
    rest = ", ".join(f"{counts[kind]} {words}" for kind, words in KINDS.items() if counts[kind])
    emergent = [each for each in sharp if each["kind"] == "emergent"]
    if not emergent:
        return f"No emergence was found: {of.lower()} none jumps from chance{'; ' if rest else ''}{rest}."
    names = [
        ", ".join(
            part
            for part in (each["series"], each["task"] if each["task"] != ALL else "", name(each["score"], scores))
            if part
        )
        + f" over {axes.get(each['axis'], each['axis'])}"
        for each in sorted(emergent, key=lambda each: each["axis"] != "parameters")
    ]
    jump = f"{len(names)} jump{'s' if len(names) == 1 else ''}"
    return f"{of} {jump} from chance ({listed(names)}){'; ' if rest else ''}{rest}."


def mirages(found: Sequence[Mapping[str, Any]], scores: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The number of jumps made by the score alone."""
    if all(score["thresholded"] for score in scores.values()):
        return ["No continuous score was given, which could tell whether the model jumps or the score alone."]
    smooth = sum(bool(each["smooth_in"]) for each in found)
    if not smooth:
        return ["At the same cells no continuous score is smooth: no jump is one of the score alone."]
    return [
        f"At the same cells a continuous score is smooth for {smooth} of {len(found)} jumps: there the score "
        "makes the jump, not the model."
    ]


def name(score: str, scores: Mapping[str, Mapping[str, Any]]) -> str:
    return str(scores[score].get("name", score))


def listed(names: Sequence[str]) -> str:
    """The first few of them."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + more
