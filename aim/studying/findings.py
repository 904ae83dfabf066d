"""What a study found and what it didn't, in a few sentences."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

KINDS = ("emergent", "smooth", "flat", "falling", "too few")


def summary(study: Mapping[str, Any], scores: Mapping[str, Mapping[str, Any]], axes: Mapping[str, str]) -> list[str]:
    """Plain sentences: kinds, emergence and mirages, thresholds, what helps, laws."""
    said = []
    curves = study["curves"]
    sharp = [each for each in curves if scores[each["score"]].get("thresholded", True)]
    counts = Counter(each["kind"] for each in sharp)
    told = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    said.append(f"Of {len(sharp)} curves of thresholded scores: {told or 'none'}.")
    jumps = [each for each in sharp if each["kind"] == "emergent"]
    if not jumps:
        said.append("No emergence was found: no score jumps from chance within what was measured.")
    elif study["mirages"]:
        smooth = sum(bool(each["smooth_in"]) for each in study["mirages"])
        said.append(f"Of {len(study['mirages'])} jumps, {smooth} are smooth in a continuous score at the same cells.")
    laws = [each for each in study["laws"] if each["chosen"]]
    useful = [each for each in laws if each["extrapolates"]]
    if laws:
        said.append(f"A law predicts the largest scale for {len(useful)} of {len(laws)} adapters.")
    return said
