"""The videos of runs side by side: the lists of their training and test."""

from collections.abc import Sequence
from pathlib import Path

from aim.ground.choices import leaves
from aim.report.runs import RunData

LISTS = {"train_hash": "training", "data_hash": "test"}  # in results.json


def column(runs: Sequence[RunData]) -> list[str]:
    """For each run the folder and the lists of its videos, as far as they differ; empty if they don't."""
    folders = [folder(run) for run in runs]
    hashes = {key: [hash_of(run, key) for run in runs] for key in LISTS}
    different = [key for key, found in hashes.items() if differ(found)]
    if not different and not differ(folders):
        return []
    lists = [[f"{LISTS[key]} {each[:8] or '-'}" for each in hashes[key]] for key in different]
    return [", ".join(filter(None, parts)) or "-" for parts in zip(folders, *lists, strict=True)]


def warning(runs: Sequence[RunData]) -> str:
    """A line on the meaning of differing lists for the comparison; empty if they are the same."""
    trained, tested = (differ([hash_of(run, key) for run in runs]) for key in LISTS)
    if tested:
        also = "trained and " if trained else ""
        return f"these runs were {also}tested on different videos or labels (column data): don't compare their results"
    if trained:
        return "these runs were trained on different videos or labels (column data): that may be the difference"
    return ""


def hash_of(run: RunData, key: str) -> str:
    """The hash of a list of a run; empty if unknown."""
    results = run.results or {}
    about = run.found.about if run.found is not None else {}
    return str((results.get("identity") or {}).get(key) or results.get(key) or about.get(key) or "")


def folder(run: RunData) -> str:
    """The name of its videos' folder; empty if unknown."""
    return Path(str(dict(leaves(run.settings)).get("data.root") or "")).name


def differ(values: Sequence[str]) -> bool:
    """Whether the known ones differ."""
    return len({*values} - {""}) > 1
