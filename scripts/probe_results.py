"""Trains heads on a frozen trunk, for motions and their reversals; one rate, one budget and one seed for all.

    python scripts/probe_results.py                            # all cells, about an hour on 2 cores
    python scripts/probe_results.py order6/side order6/none    # some of them

Finished cells aren't repeated, and a killed one continues. In each data set class 2i + 1 is class 2i played backwards:
`direction` is the share of videos whose own class is more probable than its reversal, 50 % by chance.
`largest_class` is the accuracy of always answering the largest class.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aim.engine.run.results import commit, device_name
from aim.engine.scores import predictions
from aim.ground import files

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.path.relpath(os.environ.get("AIM_SHARED", ROOT.parent / "shared"), ROOT)) / "real"  # as seen from ROOT
COMMON = ["optim.lr=1e-3", "train.batch_size=32", "train.features=cached", "dropout=0"]
PROBE = "adapter=probe adapter.depth=2 adapter.positions="
READOUTS = {
    "none": "adapter=none optim.lr=1e-2",
    "attentive_probe": "adapter=attentive_probe",
    "attentive_probe, depth 2": "adapter=attentive_probe adapter.depth=2",
    **{f"probe, {positions}": PROBE + positions for positions in ("none", "time", "sincos3d", "rope3d")},
    "step": "adapter=step",
    "side": "adapter=side",
    "side, difference": "adapter=side adapter.difference=true",
}
DATA = {
    "demo": ["+experiment=demo", "train.draws=1", "train.epochs=6"],
    "demo_hard": ["+experiment=demo_hard", "train.draws=1", "train.epochs=8"],
    "order6": [
        "+experiment=finetune", "backbone=dinov2_vit_s14", f"backbone.weights={REAL / 'dinov2_vit_s14.safetensors'}",
        f"data.root={REAL / 'shrec17-depth'}", "data.train=train_order6.txt", "data.val=val_order6.txt",
        "data.classes=classes_order6.txt", "clip.size=56", "clip.num_frames=8", "augment.flip=0",
        "augment.area=[0.7,1.0]", "train.epochs=12", "train.eval_every=0",
    ],
}  # fmt: skip


def trained(data: str, readout: str, runs: Path) -> dict[str, Any]:
    """A cell's numbers, after its training where that isn't done yet."""
    run_dir = runs / f"{data},{readout}".replace(" ", "")
    words = [*DATA[data], *COMMON, *READOUTS[readout].split(), f"run_dir={run_dir}"]
    subprocess.run([sys.executable, "-m", "aim.train", *words], check=True, cwd=ROOT)
    result = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    found = predictions.read(run_dir / predictions.TEST)
    own, reversal = (found.probability[np.arange(len(found.label)), label] for label in (found.label, found.label ^ 1))
    return {
        "top1": result["top1"],
        "direction": round(100 * float((own > reversal).mean()), 2),
        "largest_class": round(100 * float(np.bincount(found.label).max() / len(found.label)), 2),
        "params_tuned": result["params_tuned"],
        "seconds": result["seconds"],
        "device": device_name(torch.device("cpu")),
        "commit": commit(),
        "command": "aim.train " + " ".join(words[:-1]),
    }


def table(known: Mapping[str, Any]) -> str:
    """The cells as the table of docs/probes.md: top-1 and direction, and the order6 run's size and seconds."""
    head = " | ".join(f"{data}: top-1, direction (%)" for data in DATA)
    lines = [f"`adapter=` | {head} | tuned on order6 (M) | seconds on order6", " | ".join(["---"] * (len(DATA) + 3))]
    for readout in READOUTS:
        found = [known.get(f"{data}/{readout}") for data in DATA]
        scores = [f"{cell['top1']:.1f}, {cell['direction']:.1f}" if cell else "" for cell in found]
        last = [f"{found[-1]['params_tuned'] / 1e6:.2f}", f"{found[-1]['seconds']:.0f}"] if found[-1] else ["", ""]
        lines.append(" | ".join([readout, *scores, *last]))
    largest = [{cell["largest_class"] for name, cell in known.items() if name.startswith(f"{data}/")} for data in DATA]
    lines.append(
        " | ".join(["always the largest class", *(f"{min(share):.1f}" if share else "" for share in largest), "", ""])
    )
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "scripts" / "results" / "probes.json")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "probes")
    every = [f"{data}/{readout}" for data in DATA for readout in READOUTS]
    parser.add_argument("cells", nargs="*", metavar="DATA/READOUT")
    args = parser.parse_args()
    if unknown := set(args.cells) - set(every):
        parser.error(f"{', '.join(sorted(unknown))}: no such cell; there are {', '.join(every)}")
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    for cell in args.cells or every:
        if cell in known:
            continue
        data, readout = cell.split("/")
        known[cell] = trained(data, readout, args.runs.resolve())
        files.write_json(args.out, known)
    print(table(known))


if __name__ == "__main__":
    main()
