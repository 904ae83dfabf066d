"""Kill jobs that share the work of a verb at random, restart them, and compare their joint output with one job's.

    python scripts/shard_test.py --videos FOLDER --kills 20 --out FILE.json

`aim.features`, `aim.predict` and `aim.prepare` process a folder of classes in four shards, in a loop as in a shell.
Jobs are killed at the start or at a random moment (SIGKILL, or SIGTERM, which ends after the current video), and the
same command is run again; then `merge=true`. A round is survived if the files equal those of one job without shards,
byte by byte, with nothing missing and no half-written file; and if after each SIGKILL the manifest has each answer that
was kept. Some ten seconds a kill.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aim.ground import files
from aim.ground.foreign import read_lines
from aim.ground.portion import Portion
from aim.ground.shared_work import FOLDER, MANIFEST, Manifest, home
from aim.predict.shared import KEPT, folder_of

ROOT = Path(__file__).resolve().parent.parent
SHARDS = 4
TINY = [
    "+experiment=demo", "train.epochs=1", "data.lists.num_train=32", "data.lists.num_val=32", "reader=pyav",
    "clip.num_frames=4", "backbone.weights=random",
]  # fmt: skip
CPU = ["device=cpu", "precision=fp32", "threads=1"]
DONE = (0, 1)  # exit codes: all, or all but what can't be read


@dataclass
class Round:
    """The shards of a verb, their kills, and the errors at the end."""

    verb: str
    kills: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, required=True, help="a folder with a folder of videos for each class")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for what was found")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    rounds = list[Round]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train = [*aim("aim.train"), *TINY, f"run_dir={folder / 'run'}"]
        subprocess.run(train, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        commands = commands_of(args.videos.resolve(), folder)
        for verb, command in commands.items():
            run([*command, f"out={folder / 'one' / out_of(verb)}"])
        while sum(len(each.kills) for each in rounds) < args.kills:
            verb = list(commands)[len(rounds) % len(commands)]
            left = args.kills - sum(len(each.kills) for each in rounds)
            rounds.append(endure(verb, commands[verb], folder, len(rounds), min(left, SHARDS), rng))
            print(rounds[-1], flush=True)
    bad = sum(bool(each.problems) for each in rounds)
    kills = sum(len(each.kills) for each in rounds)
    print(f"{kills} kills in {len(rounds)} rounds, {len(rounds) - bad} of them as if nothing had happened")
    if args.out:
        found = {"kills": kills, "shards": SHARDS, "rounds": [asdict(each) for each in rounds]}
        files.write_json(args.out, found)
    sys.exit(1 if bad else 0)


def aim(verb: str) -> list[str]:
    """The command of a verb."""
    return [sys.executable, "-m", verb]


def commands_of(videos: Path, folder: Path) -> dict[str, list[str]]:
    """The settings of each verb."""
    model = [f"checkpoint={folder / 'run'}", str(videos), *CPU]
    return {
        "aim.features": [*aim("aim.features"), *model],
        "aim.predict": [*aim("aim.predict"), *model],
        "aim.prepare": [*aim("aim.prepare"), "data=folder", f"data.root={videos}", "transcode.short_side=64"],
    }


def out_of(verb: str) -> str:
    return f"{verb}.csv" if verb == "aim.predict" else verb


def run(command: list[str]) -> int:
    """The exit code of a command that isn't killed; 2 is an error."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 2:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.returncode


def endure(verb: str, command: list[str], folder: Path, number: int, kills: int, rng: random.Random) -> Round:
    """Run the shards, some of them killed once, then merge and compare."""
    found, out = Round(verb), folder / str(number) / out_of(verb)
    victims = set(rng.sample(range(SHARDS), kills))
    for index in range(SHARDS):
        shard = [*command, f"out={out}", f"shard={index}/{SHARDS}"]
        if index in victims:
            kill, how = rng.choice([("SIGKILL", 0), ("SIGKILL", 1), ("SIGTERM", 1)])
            found.kills.append(strike(shard, out, index, kill, at_work=bool(how), rng=rng))
            found.problems += unnoted(place_of(out, index))
        if (code := run(shard)) not in DONE:
            found.problems.append(f"shard={index}/{SHARDS}: exit code {code}")
    if (code := run([*command, f"out={out}", "merge=true"])) not in DONE:
        found.problems.append(f"merge=true: exit code {code}")
    found.problems += differences(folder / "one" / out_of(verb), out)
    return found


def strike(command: list[str], out: Path, index: int, kill: str, *, at_work: bool, rng: random.Random) -> str:
    """Start a job and kill it (SIGKILL: all of its processes); the kill in words."""
    manifest = place_of(out, index) / MANIFEST
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          start_new_session=True) as job:  # fmt: skip
        while at_work and not manifest.exists() and job.poll() is None:
            time.sleep(0.01)
        wait = rng.uniform(0, 1.0) if at_work else rng.uniform(0, 4.0)
        time.sleep(wait)
        if job.poll() is None:
            if kill == "SIGKILL":
                os.killpg(job.pid, signal.SIGKILL)
            else:
                os.kill(job.pid, signal.SIGTERM)
        code = job.wait()
    return f"{kill} {wait:.2f} s after {'the first note' if at_work else 'the start'}: exit code {code}"


def place_of(out: Path, index: int) -> Path:
    """The folder of a job."""
    return home(out / FOLDER if out.suffix != ".csv" else folder_of(out), Portion(index, SHARDS))


def unnoted(place: Path) -> list[str]:
    """The answers missing in a job's manifest, except for one just before the kill."""
    manifest = Manifest.of(place)
    kept = [line["name"] for line in read_lines(place / KEPT, "answers", "none")]
    noted = manifest.done | manifest.failed
    return [f"the manifest doesn't know of the answer about {name}" for name in kept[:-1] if name not in noted]


def contents(path: Path) -> dict[str, bytes]:
    """The output files of a job, without the notes on sharing, and without irrelevant order."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    found = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_file() and not name.startswith("shards/") and name != "index.jsonl":
            data = file.read_bytes()
            found[name] = b"\n".join(sorted(data.split(b"\n"))) if name == "sources.jsonl" else data
    return found


def differences(one: Path, out: Path) -> list[str]:
    """The differences from one job's output."""
    expected, found = contents(one), contents(out)
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is too much" for name in found.keys() - expected.keys()]
    problems += [f"{name} differs" for name in expected.keys() & found.keys() if expected[name] != found[name]]
    parts = [path for path in out.parent.rglob("*") if path.name.endswith((".part", ".lease"))]
    return sorted(problems) + [f"{path.name} stayed" for path in parts]


if __name__ == "__main__":
    main()
