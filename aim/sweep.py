"""The jobs of a sweep: checked together, run one after the other, told of in a table."""

import json
import os
import shutil
import signal
import subprocess
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aim.errors import UserError, say
from aim.signals import INTERRUPTED, SIGNALS, as_parent, forwarded

STOPPED = (INTERRUPTED, *(-number for number in SIGNALS))  # exit codes of a job that a signal ended


@dataclass(frozen=True)
class Job:
    """One member of a sweep: its part of the command line, where it writes if that is known, and what is wrong."""

    overrides: list[str]
    run_dir: Path | None
    problem: str | None


def sweep(command: Sequence[str], jobs: Sequence[Job]) -> int:
    """Run the jobs one after the other, whatever becomes of each; return the exit code of all.

    A signal goes to the job that runs, and no further one starts. A table of them is printed at the end. Raises
    UserError if one of them can't run at all.
    """
    common = set.intersection(*(set(job.overrides) for job in jobs))
    names = [" ".join(text for text in job.overrides if text not in common) or "the only one" for job in jobs]
    if problems := [f"{name}: {job.problem}" for name, job in zip(names, jobs, strict=True) if job.problem]:
        raise UserError("; ".join(problems))
    codes: list[int] = []
    running: list[int] = []
    with forwarded(lambda: running) as stop:
        for i, (name, job) in enumerate(zip(names, jobs, strict=True), 1):
            say(f"job {i} of {len(jobs)}: {name}")
            # Ranks that torchrun has started meet once a job.
            environment = os.environ | as_parent() | {"AIM_JOB": str(i)}
            process = subprocess.Popen([*command, *job.overrides], env=environment, start_new_session=True)
            running[:] = [process.pid]
            if stop:  # it came before there was a job to pass it on to
                process.terminate()
            codes.append(process.wait())
            running.clear()
            if stop and (codes[-1] in STOPPED or i < len(jobs)):
                break
    show(names, jobs, codes)
    if stop and (len(codes) < len(jobs) or codes[-1] in STOPPED):
        say(f"stopped by a signal in job {len(codes)} of {len(jobs)}; the same command continues")
        return INTERRUPTED
    if failed := [f"{name} ({meaning(code)})" for name, code in zip(names, codes, strict=True) if code]:
        say(f"error: {len(failed)} of {len(jobs)} jobs failed: {'; '.join(failed)}")
    worst = [code if code > 0 else 1 for code in codes if code]
    return 2 if 2 in worst else next(iter(worst), 0)


def show(names: Sequence[str], jobs: Sequence[Job], codes: Sequence[int]) -> None:
    """Print what became of each job, a line each: its state, its number, and where it is."""
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
    try:
        found = json.loads((run_dir / "results.json").read_text(encoding="utf-8")) if run_dir else {}
    except (OSError, ValueError):
        return ""
    return f"{found['top1']:.2f} %" if "top1" in found else ""


def meaning(code: int) -> str:
    """The exit code of a process in words."""
    if code == 0:
        return "done"
    if code == INTERRUPTED:
        return "interrupted, saved"
    return f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"
