"""The effect of train.balance on rare classes: moving shapes, 100 videos of the first class to one of the last.

Run: python scripts/measure_balance.py runs/balance scripts/results/balance.json

The probe of the demo's frozen trunk, its features computed once. Classes come in pairs with 300, 65, 14 and 3 training
videos each; the validation has 60 of each. Three seeds; mean per class and top-1 of the last weights, and the mean
recall of the two rarest classes. Finished runs are kept, so the command may be repeated.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean
from typing import Any

CELLS = {
    "none": [],
    "loss, root": ["train.balance=loss"],
    "loss, inverse": ["train.balance=loss", "train.balance_by=inverse"],
    "sample, root": ["train.balance=sample"],
    "sample, inverse": ["train.balance=sample", "train.balance_by=inverse"],
    "logits": ["train.balance=logits"],
}
SETTINGS = [
    "+experiment=demo", "+data.lists.imbalance=100", "adapter=probe", "adapter.depth=2", "train.features=cached",
    "train.epochs=10", "optim.lr=1e-3", "train.batch_size=32", "data.workers=0",
]  # fmt: skip
SEEDS = (0, 1, 2)
RARE = 2  # classes, the last pair


def result(folder: Path, name: str, seed: int) -> dict[str, Any]:
    """The result of a run, which is trained where it isn't there."""
    run_dir = folder / f"{name.replace(', ', '-')}-{seed}"
    if not (run_dir / "results.json").exists():
        asked = [*SETTINGS, *CELLS[name], f"seed={seed}", f"run_dir={run_dir}"]
        subprocess.run([sys.executable, "-m", "aim.train", *asked], check=True)
    found: dict[str, Any] = json.loads((run_dir / "results.json").read_text())
    return found


def of_rare(found: dict[str, Any]) -> float:
    """The mean recall of the rarest classes, in percent."""
    classes = list(found["per_class"].values())[-RARE:]
    return mean(100 * each["right"] / each["videos"] for each in classes)


def main() -> None:
    """Train what isn't there, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cells", nargs="*", default=[*CELLS])
    given = parser.parse_args()
    table = {}
    for name in given.cells:
        found = [result(given.folder, name, seed) for seed in SEEDS]
        table[name] = {
            "mean_class": [each["mean_class"] for each in found],
            "top1": [each["top1"] for each in found],
            "rarest": [round(of_rare(each), 3) for each in found],
        }
    first = result(given.folder, given.cells[0], SEEDS[0])
    about = {key: first[key] for key in ("device", "baseline", "versions")}
    given.out.write_text(json.dumps({"settings": SETTINGS, **about, "cells": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
