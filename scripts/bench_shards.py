"""Times aim.features in one, two and four shards at once, and the overhead of a shard with nothing left to do.

    python scripts/bench_shards.py --out scripts/results/bench_shards.json        # of shared/real/ut-interaction

400 clips of ten seconds are made of those videos (H.264, same size). A window of ten seconds decodes all of a clip, the
demo's trunk costs next to nothing, and each shard has one thread: the time is that of decoding. In each round the
numbers of shards alternate; medians over the rounds. The printed estimate for docs/cluster.md extrapolates to 1 M and
100 M videos: core hours, and hours of GPUs with CORES cores each for decoding, if the model isn't slower than these.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from aim.engine.run.results import commit, device_name
from aim.ground import files

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("AIM_SHARED", ROOT.parent / "shared")) / "real" / "ut-interaction"
COUNTS = (1, 2, 4)
CORES = 16  # of a GPU


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rounds = list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as name:
        videos, folder = Path(name, "videos"), Path(name)
        make_clips(videos, args.clips)
        for number in range(args.rounds):
            found = dict[str, float]()
            for count in COUNTS[number % 3 :] + COUNTS[: number % 3]:
                out = folder / f"{number}-{count}"
                found[f"{count} shards"] = seconds(videos, out, count)
                found[f"{count} shards, all done"] = seconds(videos, out, count)
            rounds.append(found)
            print(f"round {number + 1}: {found}", flush=True)
    median = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
    of_a_clip = (median["1 shards"] - median["1 shards, all done"]) / args.clips
    about = {
        "device": device_name(torch.device("cpu")), "cores": os.cpu_count(), "commit": commit(), "clips": args.clips,
        "rounds": rounds, "clips_per_second": {count: args.clips / median[f"{count} shards"] for count in COUNTS},
        "overhead_seconds": median["1 shards, all done"], "core_seconds_of_a_clip": of_a_clip,
    }  # fmt: skip
    files.write_json(args.out, about)
    print(table(of_a_clip, median["1 shards, all done"]))


def make_clips(folder: Path, count: int) -> None:
    """Clips of ten seconds from up to twenty videos; the others are copies."""
    folder.mkdir()
    sources = sorted(REAL.glob("*/*.avi"))[::6][: min(count, 20)]
    if not sources:
        raise SystemExit(f"{REAL} has no videos; set AIM_SHARED to the folder that holds real/ut-interaction")
    for i, source in enumerate(sources):
        again = "loop=loop=-1:size=1000,setpts=N/30/TB"  # ffmpeg's -stream_loop never ends with some of these files
        command = ["ffmpeg", "-v", "error", "-i", source, "-vf", again, "-t", "10", "-preset", "veryfast", "-an"]
        subprocess.run([*command, "-c:v", "libx264", folder / f"{i}.mp4"], check=True)
    for i in range(len(sources), count):
        (folder / f"{i}.mp4").write_bytes((folder / f"{i % len(sources)}.mp4").read_bytes())


def seconds(videos: Path, out: Path, count: int) -> float:
    """The time of a number of parallel shards for all videos, or to find them done."""
    asked = ["backbone=demo", "window=10", "device=cpu", "threads=1", "workers=0", str(videos), f"out={out}"]
    began = time.monotonic()
    shards = [
        subprocess.Popen([sys.executable, "-m", "aim.features", *asked, f"shard={i}/{count}"], stderr=subprocess.PIPE,
                         cwd=ROOT, text=True)
        for i in range(count)
    ]  # fmt: skip
    for shard in shards:
        _, said = shard.communicate()
        assert shard.returncode == 0, said
    return time.monotonic() - began


def table(of_a_clip: float, overhead: float) -> str:
    """Hours, from the core seconds of a clip and of a shard's overhead; a shard for each GPU, four times as many."""
    lines = ["| videos | core hours | hours on 1 GPU | on 8 | on 64 |", "| --- | --- | --- | --- | --- |"]
    for videos in (1e6, 1e8):
        hours = [(videos * of_a_clip / CORES / gpus + 4 * overhead) / 3600 for gpus in (1, 8, 64)]
        cells = [f"{videos / 1e6:g} M", f"{videos * of_a_clip / 3600:,.0f}", *(f"{each:,.1f}" for each in hours)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
