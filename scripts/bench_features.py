"""Times the training of a head on stored features against the same training on pixels, both as whole commands.

    python scripts/bench_features.py --out scripts/results/bench_features.json      # on shared/real/ut-interaction

The two alternate. Each begins a round with an empty AIM_CACHE, so its time includes the first check of the videos and
the computation of the features; `again` is the same command with another learning rate, which reuses both. Ratios are
medians over the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from aim.engine.run.results import commit, device_name

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.path.relpath(os.environ.get("AIM_SHARED", ROOT.parent / "shared"), ROOT)) / "real"  # as seen from ROOT


def seconds(cache: Path, run_dir: Path, *overrides: str) -> float:
    """The time of a training, from the command to its end."""
    command = [sys.executable, "-m", "aim.train", *overrides, f"run_dir={run_dir}"]
    began = time.monotonic()
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"AIM_CACHE": str(cache)}, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("overrides", nargs="*", help="settings of both trainings")
    args = parser.parse_args()
    settings = [
        "+experiment=finetune", "backbone=dinov2_vit_s14", f"backbone.weights={REAL / 'dinov2_vit_s14.safetensors'}",
        f"data.root={REAL / 'ut-interaction'}", "clip.size=112", "adapter=attentive_probe", "train.epochs=20",
        *args.overrides,
    ]  # fmt: skip
    rounds = []
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            cache, empty, runs = Path(folder, "cache"), Path(folder, "empty"), Path(folder)
            rounds.append(
                {
                    "cached": seconds(cache, runs / "cached", *settings, "train.features=cached"),
                    "again": seconds(cache, runs / "again", *settings, "train.features=cached", "optim.lr=1e-4"),
                    "computed": seconds(empty, runs / "computed", *settings, "train.features=computed"),
                }
            )
            print(f"round {number + 1}: {rounds[-1]}", flush=True)
    found = {
        "settings": settings,
        "device": device_name(torch.device("cpu" if not torch.cuda.is_available() else "cuda")),
        "commit": commit(),
        "rounds": rounds,
        "computed_over_cached": statistics.median(each["computed"] / each["cached"] for each in rounds),
        "computed_over_again": statistics.median(each["computed"] / each["again"] for each in rounds),
    }
    args.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
