"""The table of scripts/real_results.sh as Markdown, from its runs' results in scripts/results/real.

python scripts/real_table.py [FOLDER]
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from aim.engine.run import content
from aim.report.runs import read_results
from aim.report.statistics import interval
from aim.report.table import spread

RESULTS = Path(__file__).resolve().parent / "results" / "real"
DATA = {
    "order6": "SHREC'17 depth, three gestures and their reversals (order6): 56 pixels, 8 frames",
    "shrec14": "SHREC'17 depth, 14 gestures: 56 pixels, 8 frames",
    "ut": "UT-Interaction, 6 classes: 112 pixels, 8 frames",
}
CELLS = {
    "linear": "frozen, linear head",
    "attentive": "attentive probe",
    "probe": "probe",
    "step": "probe with a global token (STEP)",
    "side": "side network",
    "spatial": "spatial",
    "temporal": "+ temporal",
    "aim": "+ joint (AIM)",
    "st_adapter": "ST-Adapter",
    "lora": "LoRA",
    "adaptformer": "AdaptFormer",
}
HEAD = ("adapter", "tuned (M)", "top-1 (%)", "95 % interval", "reversed", "shuffled", "seeds", "seconds")


def table(folder: Path, data: str) -> list[str]:
    """The lines of a data set's table; none without a run."""
    found = {cell: [read_results(file) for file in files(folder, data, cell)] for cell in CELLS}
    first = next((results[0] for results in found.values() if results), None)
    if first is None:
        return []
    rows = [row(results, orders(folder, data, cell), CELLS[cell]) for cell, results in found.items() if results]
    orders_shown = any(cells[4] != "-" for cells in rows)
    shown = [i for i in range(len(HEAD)) if orders_shown or HEAD[i] not in ("reversed", "shuffled")]
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    return [
        f"### {DATA[data]}",
        "",
        f"{first['num_videos']} {content.kind(first)}videos; always answering the largest class gives "
        f"{first['baseline']['top1']:.1f} %. {first['world_size']} x {first['device']}, {first['precision']}.",
        "",
        *(f"| {' | '.join(cells[i] for i in shown)} |" for cells in lines),
        "",
    ]


def files(folder: Path, data: str, cell: str, name: str = "results.json") -> list[Path]:
    """The files of this name of a cell's seeds."""
    return sorted(folder.glob(f"{data},{cell},seed=*/{name}"))


def orders(folder: Path, data: str, cell: str) -> list[Mapping[str, float]]:
    """Of each seed the top-1 in each order of frames, in percent."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files(folder, data, cell, "order.json")]
    return [{name: own["top1"] for name, own in each["order"].items()} for each in found]


def row(results: Sequence[Mapping[str, Any]], by_order: Sequence[Mapping[str, float]], words: str) -> tuple[str, ...]:
    """A cell's row: the mean over seeds, and in brackets the range; the interval is of the first seed's videos."""
    first = results[0]
    low, high = interval(round(first["top1"] * first["num_videos"] / 100), first["num_videos"])
    changed = [spread([each[name] for each in by_order]) for name in ("reversed", "shuffled")]
    return (
        words,
        f"{first['params_tuned'] / 1e6:.3f}",
        spread([each["top1"] for each in results]),
        f"{low:.1f} to {high:.1f}",
        *changed,
        str(len(results)),
        f"{mean(each['seconds'] for each in results):.0f}",
    )


def of_folds(folder: Path, head: str) -> str:
    """UT-Interaction's folds under a head in words."""
    found = read_results(folder / f"ut,folds,{head}" / "folds.json")
    own = found["folds"]
    return (
        f"UT-Interaction, {own['count']} folds that hold out sequences k and 10 + k of both sets, adapter={head}: "
        f"{own['mean']:.1f} % (sd over folds {own['sd']:.1f}; all {found['num_videos']} videos together "
        f"{own['of_all_videos']:.1f} %, 95 % interval {own['interval'][0]:.1f} to {own['interval'][1]:.1f}); the "
        f"largest class {found['baseline']['top1']:.1f} %; {found['seconds']:.0f} s in all."
    )


def main(folder: Path) -> None:
    """Print the tables of all data sets that have runs."""
    for data in DATA:
        print("\n".join(table(folder, data)))
    for head in ("step", "none"):
        if (folder / f"ut,folds,{head}").exists():
            print(of_folds(folder, head))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else RESULTS)
