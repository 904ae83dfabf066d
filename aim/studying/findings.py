"""What a study found and what it didn't, in a few sentences."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from aim.studying.curves import ALL

KINDS = ("emergent", "smooth", "flat", "falling", "too few")
NAMED = 3  # of a kind in one sentence


def summary(study: Mapping[str, Any], scores: Mapping[str, Mapping[str, Any]], axes: Mapping[str, str]) -> list[str]:
    """Plain sentences: kinds of curves, emergence and mirages, thresholds, what helps, laws."""
    sharp = [each for each in study["curves"] if scores[each["score"]]["thresholded"]]
    counts = Counter(each["kind"] for each in sharp)
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    said = [f"Of {len(sharp)} curves of thresholded scores: {kinds or 'none'}."]
    said += emergence(sharp, study["mirages"], scores, axes)
    left = [each for each in study["thresholds"] if each["task"] in (ALL, "")]
    if left and all(each["scale"] is None for each in left):
        said.append("No series leaves chance at any scale that was measured.")
    said += [each["sentence"] for each in study["helps"] if each["above"] is not None][:NAMED]
    laws = [each for each in study["laws"] if each["chosen"]]
    if laws:
        useful = [f"{each['series']} ({each['form']})" for each in laws if each["extrapolates"]]
        said.append(
            f"Laws: the largest scale, held out, is predicted usefully for {len(useful)} of {len(laws)} series"
            f"{': ' + listed(useful) if useful else ''}."
        )
    return said


def emergence(
    sharp: Sequence[Mapping[str, Any]],
    mirages: Sequence[Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Any]],
    axes: Mapping[str, str],
) -> list[str]:
    """Which curves jump, and how many of the jumps the score alone makes."""
    jumps = [each for each in sharp if each["kind"] == "emergent"]
    if not jumps:
        doubt = sum(each["kind"] == "too few" for each in sharp)
        rest = f"; {doubt} had too few scales or too much noise to tell" if doubt else ""
        return [f"No emergence was found: no curve jumps from chance within the scales that were measured{rest}."]
    names = [
        ", ".join(
            part
            for part in (each["series"], each["task"] if each["task"] != ALL else "", name(each["score"], scores))
            if part
        )
        + f" over {axes.get(each['axis'], each['axis'])}"
        for each in jumps
    ]
    said = [f"{len(jumps)} jump{'s' if len(jumps) > 1 else ''} from chance: {listed(names)}."]
    if all(score["thresholded"] for score in scores.values()):
        said.append("No continuous score was given, which could tell whether the model jumps or the score alone.")
    elif mirages:
        smooth = sum(bool(each["smooth_in"]) for each in mirages)
        said.append(
            f"At the same cells a continuous score is smooth for {smooth} of {len(mirages)} jumps: there the score "
            "makes the jump, not the model."
        )
    return said


def name(score: str, scores: Mapping[str, Mapping[str, Any]]) -> str:
    return str(scores[score].get("name", score))


def listed(names: Sequence[str]) -> str:
    """The first few of them."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return "; ".join(names[:NAMED]) + more
