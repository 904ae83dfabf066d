"""The jobs of a sweep: checked together, run one after the other, listed in a table."""

import os
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aim.ground.errors import UserError, say
from aim.ground.folds import is_fold
from aim.ground.foreign import read_json
from aim.ground.jobs import meaning, run, verdict
from aim.ground.signals import INTERRUPTED

MAIN = {"name": "top1", "words": "top-1", "unit": "percent"}  # of results that don't say which score is the main one


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
    sweeps = {job.run_dir.parent for job in jobs if job.run_dir and is_fold(job.run_dir)}
    if len(sweeps) == 1 and not failed:
        say(f"python -m aim.report {sweeps.pop()} pools the folds")
    return verdict(codes)


def show(names: Sequence[str], jobs: Sequence[Job], codes: Sequence[int]) -> None:
    """Print a line for each job: its state, its top-1, and its run directory."""
    if os.environ.get("RANK", "0") != "0":
        return
    states = [*map(meaning, codes), *["not started"] * (len(jobs) - len(codes))]
    found = [scores(job.run_dir) if state == "done" else {} for job, state in zip(jobs, states, strict=True)]
    heads = list(dict.fromkeys(head for each in found for head in each)) or [MAIN["words"]]
    widths = {head: max(8, len(head)) for head in heads}
    columns = shutil.get_terminal_size().columns
    width = min(max(map(len, names)), max(20, columns - 40 - sum(widths.values())))
    print(f"\n{'job':{width}}  {'state':18}  {'  '.join(f'{head:>{widths[head]}}' for head in heads)}  run directory")
    for name, job, state, score in zip(names, jobs, states, found, strict=True):
        first, *more = textwrap.wrap(name, width)
        cells = "  ".join(f"{score.get(head, ''):>{widths[head]}}" for head in heads)
        line, run_dir = f"{first:{width}}  {state:18}  {cells}", str(job.run_dir or "")
        fits = len(line) + 2 + len(run_dir) <= columns
        print(f"{line}  {run_dir}".rstrip() if fits else line.rstrip(), *more, sep="\n", flush=True)
        if not fits:
            print(f"  {run_dir}", flush=True)


def scores(run_dir: Path | None) -> dict[str, str]:
    """The main scores that a job left, by their words, and that of one answer to all videos; none if it leaves none."""
    if run_dir is None:
        return {}
    said = dict[str, str]()
    with suppress(UserError, AttributeError, IndexError, KeyError, TypeError, ValueError):  # somebody else's file
        found: dict[str, Any] = read_json(run_dir / "results.json", dict, "the result of a run", "delete it")
        heads, baseline = found.get("headline", [MAIN]), found.get("baseline", {})
        said |= {head["words"]: text(found[head["name"]], head) for head in heads if head["name"] in found}
        if heads[0]["name"] in baseline:
            said[heads[0].get("constant_words", "largest class")] = text(baseline[heads[0]["name"]], heads[0])
    return said


def text(value: float, head: Mapping[str, str]) -> str:
    """A score as its head says."""
    return f"{value:.3f}" if head["unit"] == "number" else f"{100 * value if head['unit'] == 'share' else value:.2f} %"
