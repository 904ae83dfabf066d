"""Trains each adapter on the demo's frozen space-time trunk and on its image trunk; one seed and one recipe for both.

    python scripts/video_trunk_results.py                          # all cells, an hour on one core
    python scripts/video_trunk_results.py demo/video_demo/lora     # some of them

Finished cells aren't repeated, and a killed one continues. The data are the demo's moving shapes and order6 of
SHREC'17; in both each class is another one played backwards. On moving shapes the recipe is the demo's.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aim.ground import files
from aim.report.statistics import interval

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.path.relpath(os.environ.get("AIM_SHARED", ROOT.parent / "shared"), ROOT)) / "real"  # as seen from ROOT
TRUNKS = {"demo": "image trunk", "video_demo": "space-time trunk"}
DATA = {
    "demo": ["+experiment=demo"],
    "order6": [
        "+experiment=finetune", f"data.root={REAL / 'shrec17-depth'}", "data.train=train_order6.txt",
        "data.val=val_order6.txt", "data.classes=classes_order6.txt", "data.directional=true", "augment.flip=0",
        "augment.area=[0.7,1.0]", "clip.size=64", "clip.num_frames=8", "dropout=0", "device=cpu", "precision=fp32",
        "train.eval_every=0", "optim.lr=3e-3",
    ],
}  # fmt: skip
READ = ("none", "attentive_probe", "probe")  # order6's features of a trunk that is only read are stored
KEPT = ["train.features=cached", "train.draws=1", "train.epochs=30", "train.batch_size=32"]
TUNED = ["train.epochs=4", "train.batch_size=16"]
ADAPTERS = {
    "none": "adapter=none",
    "attentive_probe": "adapter=attentive_probe",
    "probe": "adapter=probe adapter.depth=2",
    "lora": "adapter=lora",
    "adaptformer": "adapter=adaptformer",
    "st_adapter, kernel 1": "adapter=st_adapter adapter.kernel=[1,1,1]",
    "st_adapter": "adapter=st_adapter",
    "aim, temporal=false": "adapter=aim_demo adapter.temporal=false",
}


def trained(data: str, trunk: str, adapter: str, runs: Path) -> dict[str, Any]:
    """A cell's numbers, after its training where that isn't done yet."""
    run_dir = runs / f"{data},{trunk},{adapter}".replace(" ", "")
    recipe = [] if data == "demo" else KEPT if adapter in READ else TUNED
    words = [*DATA[data], f"backbone={trunk}", *ADAPTERS[adapter].split(), *recipe, f"run_dir={run_dir}"]
    subprocess.run([sys.executable, "-m", "aim.train", *words], check=True, cwd=ROOT)
    result = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    videos = result["num_videos"]
    return {
        "top1": result["top1"],
        "interval": [round(end, 1) for end in interval(round(result["top1"] * videos / 100), videos)],
        "largest_class": result["baseline"]["top1"],
        "videos": videos,
        "seeds": 1,
        "params_tuned": result["params_tuned"],
        "seconds": result["seconds"],
        "device": result["device"],
        "commit": result["commit"],
        "command": "aim.train " + " ".join(words[:-1]),
    }


def table(known: Mapping[str, Any]) -> str:
    """The cells as the table of docs/video-trunks.md."""
    columns = [(data, trunk) for data in DATA for trunk in TRUNKS]
    lines = ["`adapter=` | " + " | ".join(f"{data}: {TRUNKS[trunk]}" for data, trunk in columns)]
    lines.append(" | ".join(["---"] * (len(columns) + 1)))
    for adapter in ADAPTERS:
        found = [known.get(f"{data}/{trunk}/{adapter}") for data, trunk in columns]
        texts = [
            f"{cell['top1']:.1f} ({cell['interval'][0]} to {cell['interval'][1]})" if cell else "" for cell in found
        ]
        lines.append(" | ".join([adapter, *texts]))
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "scripts" / "results" / "video_trunks.json")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "video_trunks")
    every = [f"{data}/{trunk}/{adapter}" for data in DATA for adapter in ADAPTERS for trunk in TRUNKS]
    parser.add_argument("cells", nargs="*", metavar="DATA/TRUNK/ADAPTER")
    args = parser.parse_args()
    if unknown := set(args.cells) - set(every):
        parser.error(f"{', '.join(sorted(unknown))}: no such cell; there are {', '.join(every)}")

    def known() -> dict[str, Any]:
        return json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}

    for cell in args.cells or every:
        if cell not in known():
            found = trained(*cell.split("/"), args.runs.resolve())
            files.write_json(args.out, known() | {cell: found})
    print(table(known()))


if __name__ == "__main__":
    main()
