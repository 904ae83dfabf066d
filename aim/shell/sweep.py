"""The jobs of a sweep: checked together, run one after the other, listed in a table."""

import os
import shutil
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aim.ground.errors import UserError, say
from aim.ground.foreign import read_json
from aim.ground.jobs import meaning, run, verdict
from aim.ground.signals import INTERRUPTED


@dataclass(frozen=True)
class Job:
    """One member of a sweep: its part of the command line, where it writes if that is known, and its error."""

    overrides: list[str]
    run_dir: Path | None
    problem: str | None


def sweep(command: Sequence[str], jobs: Sequence[Job]) -> int:
    """Run the jobs one after the other, failed ones or not; return the exit code of all.

    A signal goes to the job that runs, and no further one starts. A table of them is printed at the end. Raises
    UserError if one of them can't run at all.
    """
    common = set.intersection(*(set(job.overrides) for job in jobs))
    names = [" ".join(text for text in job.overrides if text not in common) or "the only one" for job in jobs]
    if problems := [f"{name}: {job.problem}" for name, job in zip(names, jobs, strict=True) if job.problem]:
        raise UserError("; ".join(problems))
    found, stopped = run(
        [[*command, *job.overrides] for job in jobs],
        begins=lambda number: say(f"job {number + 1} of {len(jobs)}: {names[number]}"),
    )
    codes = list(found.values())
    show(names, jobs, codes)
    if stopped:
        say(f"stopped by a signal in job {len(codes)} of {len(jobs)}; the same command continues")
        return INTERRUPTED
    if failed := [f"{name} ({meaning(code)})" for name, code in zip(names, codes, strict=True) if code]:
        say(f"error: {len(failed)} of {len(jobs)} jobs failed: {'; '.join(failed)}")
    return verdict(codes)


def show(names: Sequence[str], jobs: Sequence[Job], codes: Sequence[int]) -> None:
    """Print a line for each job: its state, its top-1, and its run directory."""
    if os.environ.get("RANK", "0") != "0":
        return
    states = [*map(meaning, codes), *["not started"] * (len(jobs) - len(codes))]
    scores = [top1(job.run_dir) if state == "done" else "" for job, state in zip(jobs, states, strict=True)]
    columns = shutil.get_terminal_size().columns
    width = min(max(map(len, names)), max(20, columns - 50))
    print(f"\n{'job':{width}}  {'state':18}  {'top-1':>8}  run directory")
    for name, job, state, score in zip(names, jobs, states, scores, strict=True):
        first, *more = textwrap.wrap(name, width)
        line, run_dir = f"{first:{width}}  {state:18}  {score:>8}", str(job.run_dir or "")
        fits = len(line) + 2 + len(run_dir) <= columns
        print(f"{line}  {run_dir}".rstrip() if fits else line.rstrip(), *more, sep="\n", flush=True)
        if not fits:
            print(f"  {run_dir}", flush=True)


def top1(run_dir: Path | None) -> str:
    """The result that a job left, if it leaves one."""
    with suppress(UserError, KeyError, TypeError, ValueError):
        if run_dir:
            found: dict[str, Any] = read_json(run_dir / "results.json", dict, "the result of a run", "delete it")
            return f"{found['top1']:.2f} %"
    return ""
