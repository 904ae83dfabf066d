"""Kill training at random moments, continue it by the same command, and compare with an undisturbed run.

    python scripts/crash_test.py --kills 20 --out FILE.json

A small, fast version of the demo is trained by one rank, by two (gloo), and as a sweep of two jobs. SIGKILL hits all of
its processes at once, like a power cut, or one alone. It comes while a checkpoint is written, during validation, at a
random step, at the start, or between the jobs of a sweep. A kill is survived if every file loads, at most the last
interval is lost (a step, and the one in which it is saved), nothing stays behind, and the run ends bit-equal. Half a
minute a kill.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file

from aim.engine.trained import checkpoint
from aim.ground import config
from aim.ground.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
STEPS, EPOCHS = 12, 3  # an epoch
SMALL = [
    "+experiment=demo", "name=crash", "reader=pyav", "dropout=0.2", "data.workers=1",
    f"data.lists.num_train={8 * STEPS}", "data.lists.num_val=32", "data.lists.size=32", "data.lists.num_frames=9",
    "clip.num_frames=4", "clip.stride_frames=1", "clip.size=32", "backbone.weights=random",
    "backbone.name=vit_tiny_patch16_224",
    "backbone.options={img_size: 32, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2}",
    f"train.epochs={EPOCHS}", "train.batch_size=8", "train.eval_every=1", "train.log_every=1", "train.save_minutes=0",
]  # fmt: skip
SCENARIOS = {"one rank": [], "two ranks": ["gpus=2"], "a sweep": ["-m", "seed=0,1"]}
MOMENTS = ("while saving", "while validating", "at a step", "while starting")
INTERVAL = 2  # steps: the one between two saves, and the one during which the first of them is written
SECONDS = 300.0  # for anything to happen; a machine may be busy


@dataclass
class Kill:
    """A kill: its target, moment and outcome."""

    scenario: str
    moment: str
    victim: str  # all processes, or one
    at_step: int = 0
    lost_steps: int | None = None  # None where the run continued without help
    problems: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file for the result")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    planned, largest = [plan(i, rng) for i in range(arguments.kills)], 0.0
    with tempfile.TemporaryDirectory(prefix="crash_test") as folder:
        for scenario in SCENARIOS:
            if kills := [kill for kill in planned if kill.scenario == scenario]:
                largest = max(largest, survive(scenario, kills, Path(folder), rng))
    result = {
        "kills": len(planned),
        "survived": (survived := sum(not kill.problems for kill in planned)),
        "largest_difference": largest,
        "lost_steps_max": max((kill.lost_steps or 0 for kill in planned), default=0),
        "each": [asdict(kill) for kill in planned],
    }
    print(f"{survived} of {len(planned)} kills survived, largest difference {largest:g}")
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(survived < len(planned))


def plan(i: int, rng: random.Random) -> Kill:
    """The i-th kill: by turns of all scenarios and moments, so that a few kills cover them."""
    scenario = ("one rank", "two ranks", "a sweep", "one rank", "two ranks")[i % 5]
    moment = "between jobs" if scenario == "a sweep" else MOMENTS[i // 2 % len(MOMENTS)]
    alone = {"one rank": ["the rank", "a worker"], "two ranks": ["the launcher", "a rank", "a worker"]}
    victims = ["all", "all", *alone.get(scenario, ["the launcher"])]
    return Kill(scenario, moment, "all" if moment in ("while saving", "while starting") else rng.choice(victims))


def survive(scenario: str, kills: Sequence[Kill], folder: Path, rng: random.Random) -> float:
    """Train until all kills are done, more than once if needed. The largest difference from an undisturbed run."""
    unbroken = folder / scenario / "unbroken"
    began = time.monotonic()
    process = begin(scenario, unbroken)
    wait(process, lambda: step_of(runs(unbroken)) > 0, "a first step")
    startup = time.monotonic() - began
    if process.wait(SECONDS):
        raise SystemExit(f"an undisturbed run of {scenario} failed")
    left, largest, number, begun = list(kills), 0.0, 0, 0
    while left:
        number += 1
        of_this, broken = list[Kill](), folder / scenario / str(number)
        process = begin(scenario, broken)
        while (code := process.poll()) not in (0, 2):  # done, or an error that repetition doesn't fix
            if code is not None:
                process, begun = begin(scenario, broken), begun + 1
                if begun > 5 * len(kills):
                    raise SystemExit(f"{scenario} never ends:\n{(broken / 'said.txt').read_text()[-2000:]}")
            if left and moment(process, left[0], broken, startup, rng):
                kill = left.pop(0)
                strike(process, kill, broken, rng)
                of_this.append(kill)
                lost = "" if kill.lost_steps is None else f", {kill.lost_steps} steps lost"
                print(f"{scenario} {len(kills) - len(left)}/{len(kills)}: {kill.victim} killed {kill.moment}, step "
                      f"{kill.at_step}{lost}{''.join(f'; {text}' for text in kill.problems)}", flush=True)  # fmt: skip
            elif not left:
                process.wait(SECONDS)
        difference, problems = compare(runs(unbroken), runs(broken))
        if process.returncode:
            problems.append(f"the run ended with exit code {process.returncode}")
        problems += staying(broken)
        largest = max(largest, difference)
        for kill in of_this:
            kill.problems += problems
        print(f"{scenario}: ended {'as undisturbed' if not problems else '; '.join(problems)}", flush=True)
    return largest


def begin(scenario: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Start the command, in a folder of its own; the same each time."""
    folder.mkdir(parents=True, exist_ok=True)
    marks = {"AIM_CACHE": str(folder.parent.parent / "cache"), "PYTHONPATH": str(ROOT), "CRASH_TEST": str(folder)}
    with (folder / "said.txt").open("ab") as said:
        command = [sys.executable, "-m", "aim.train", *SCENARIOS[scenario], *SMALL]
        return subprocess.Popen(command, cwd=folder, env=os.environ | marks, stdout=said, stderr=said)


def runs(folder: Path) -> list[Path]:
    """The run directories of a scenario, the first job's first."""
    return sorted(path for path in folder.glob("runs/*") if path.is_dir())


def wait(process: "subprocess.Popen[bytes]", happened: Callable[[], bool], what: str) -> bool:
    """Wait for an event; False where the process ends before."""
    until = time.monotonic() + SECONDS
    while not happened():
        if process.poll() is not None:
            return False
        if time.monotonic() > until:
            raise SystemExit(f"no sign of {what} after {SECONDS:g} seconds")
        time.sleep(0.001)
    return True


def moment(process: "subprocess.Popen[bytes]", kill: Kill, folder: Path, startup: float, rng: random.Random) -> bool:
    """Wait for the moment of a kill; False where the process has ended before it came."""
    step = step_of(runs(folder))
    target = step + rng.randint(1, STEPS)

    def happened() -> bool:
        found = runs(folder)
        now = step_of(found)
        if kill.moment == "while saving":
            return now >= target and any(found[-1].glob(".last.pt.*"))
        if kill.moment == "while validating":  # from the last step of an epoch to the line of its validation
            return now > step and now % STEPS == 0 and "val_top1" not in (lines(found[-1]) or [{}])[-1]
        if kill.moment == "between jobs":
            first = bool(found) and (found[0] / "results.json").exists()
            return first and not (found[1:] and (found[1] / "last.pt").exists())
        return kill.moment == "while starting" or now >= target

    came = wait(process, happened, kill.moment)
    if came and kill.moment in ("while starting", "between jobs"):
        time.sleep(rng.uniform(0, startup))
    elif came and kill.moment != "while saving":
        time.sleep(rng.uniform(0, 0.05))
    return came and process.poll() is None


def strike(process: "subprocess.Popen[bytes]", kill: Kill, folder: Path, rng: random.Random) -> None:
    """Kill, wait for the processes that must end, and check the rest."""
    ours = processes(folder)
    one = {
        "the rank": [process.pid],
        "the launcher": [process.pid],
        "a rank": [pid for pid, kind in ours.items() if kind == "rank"],
        "a worker": [pid for pid, kind in ours.items() if kind == "worker"],
    }.get(kill.victim)
    if one:
        with suppress(ProcessLookupError):
            os.kill(rng.choice(one), signal.SIGKILL)
    else:
        kill.victim = "all"
        for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody sees another one die
            for pid in processes(folder):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
    kill.at_step = step_of(runs(folder))
    if kill.victim in ("all", "the rank", "the launcher"):
        process.wait(SECONDS)
        kill.problems += staying(folder)
        kill.at_step = step_of(runs(folder))
        kill.lost_steps = max((lost_steps(run) for run in runs(folder)), default=0)
        if kill.lost_steps > INTERVAL:
            kill.problems.append(f"{kill.lost_steps} steps were lost")
    kill.problems += [problem for run in runs(folder) for problem in unreadable(run)]


def processes(folder: Path) -> dict[int, str]:
    """The living processes of the command started in this folder, by their inherited environment."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (path / "environ").read_bytes().split(b"\0")
            if f"CRASH_TEST={folder}".encode() in environment and b") Z " not in (path / "stat").read_bytes():
                command = (path / "cmdline").read_bytes()
                is_rank = b"aim.train" in command and any(entry.startswith(b"RANK=") for entry in environment)
                found[int(path.name)] = "rank" if is_rank else "server" if b"forkserver" in command else "other"
    for pid, kind in found.items():  # the server's children have its name
        with suppress(OSError):
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if kind == "server" and found.get(parent) in ("server", "worker"):
                found[pid] = "worker"
    return found


def staying(folder: Path) -> list[str]:
    """The errors of processes that outlive the ended ones by a minute."""
    until = time.monotonic() + 60
    while left := processes(folder):
        if time.monotonic() > until:
            return [f"{len(left)} processes stay behind: {', '.join(left.values())}"]
        time.sleep(0.05)
    return []


def lines(run: Path) -> list[dict[str, float]]:
    """The lines of a run's log; the last may be cut short."""
    found = []
    with suppress(json.JSONDecodeError, FileNotFoundError):
        for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines():
            found.append(json.loads(line))
    return found


def step_of(found: Sequence[Path]) -> int:
    """The newest step of the newest run."""
    return int(max((line["step"] for line in lines(found[-1])), default=0)) if found else 0


def lost_steps(run: Path) -> int:
    """Completed steps that the run will repeat."""
    kept = checkpoint.load_last(run / "last.pt", quiet=True)["step"] if (run / "last.pt").exists() else 0
    return max(0, step_of([run]) - int(kept))


def unreadable(run: Path) -> Iterator[str]:
    """The errors in a killed run's files."""
    readers: dict[str, Callable[[Path], object]] = {
        "last.pt": lambda path: checkpoint.load_last(path, quiet=True),
        "best.safetensors": checkpoint.read_weights,
        "results.json": lambda path: json.loads(path.read_text(encoding="utf-8")),
        "config.yaml": config.load,
    }
    for name, read in readers.items():
        try:
            if (run / name).exists():
                read(run / name)
        except (UserError, ValueError, OSError) as error:
            yield f"{run / name} doesn't load: {error}"


def compare(expected: Sequence[Path], found: Sequence[Path]) -> tuple[float, list[str]]:
    """The largest difference between weights, losses and accuracies of two sets of runs; and the errors."""
    if [path.name for path in expected] != [path.name for path in found]:
        return 0.0, [f"there are the runs {[path.name for path in found]}"]
    largest, problems = 0.0, []
    for one, other in zip(expected, found, strict=True):
        logs = [
            [(line["step"], line.get("loss", line.get("val_top1")), line.get("top1")) for line in lines(run)]
            for run in (one, other)
        ]
        if [line[0] for line in logs[0]] != [line[0] for line in logs[1]]:
            problems.append(f"{other.name} has logged other steps")
        for before, now in zip(*logs, strict=False):
            largest = max(largest, *(abs((a or 0.0) - (b or 0.0)) for a, b in zip(before, now, strict=True)))
        best = [load_file(run / "best.safetensors") for run in (one, other)]
        last = [checkpoint.load_last(run / "last.pt")["model"] for run in (one, other)]
        for before, now in (best, last):
            largest = max(largest, *((now[name] - tensor).abs().max().item() for name, tensor in before.items()))
    return largest, [*problems, *([f"it differs by {largest:g}"] if largest else [])]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
