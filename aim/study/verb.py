"""Study how adaptation scales: a grid of trainings over trunks, adapters, data and seeds, and its analysis.

    python -m aim.study +study=demo                        # four trunks, AIM and its ablations, five shares of the data
    python -m aim.study +study=demo --dry                  # the cells and their cost
    python -m aim.study +study=demo study.seeds=[0] train.epochs=2
    python -m aim.study input=FILE.csv                     # analyses a table: columns scale, score, seed, task

The same command continues. Exit codes: 0 done, 2 an error to fix, 75 interrupted and saved; else that of a failed cell,
which is named and left out.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf.dictconfig import DictConfig

from aim.engine.machine import distributed
from aim.engine.run import identity, naming, results
from aim.ground import config, jobs, lease
from aim.ground.errors import UserError, say
from aim.ground.marks import Mark
from aim.ground.paths import path_of
from aim.ground.signals import Interrupted
from aim.shell import command
from aim.study.cells import times
from aim.study.cells.grid import Study, cells, key_of
from aim.study.cells.planning import Planned, in_order, planned
from aim.study.cells.running import at_once, reasons, run
from aim.study.findings import tables
from aim.study.findings.analysis import analyse
from aim.study.findings.points import AXES, Row, curves, rows
from aim.study.findings.scores import described
from aim.study.shown import output

OWN = ("study", "input", "chance", "better", "out", "jobs", "dry", "run_dir")  # all other settings go to the cells


@dataclass(frozen=True)
class Settings:
    """The settings of aim.study besides those of its cells."""

    study: Study
    input: Annotated[str | None, Mark.PATH]
    chance: float
    better: Literal["high", "low"]
    out: Annotated[str | None, Mark.PATH]
    jobs: int | None
    dry: bool
    run_dir: Annotated[str | None, Mark.PATH]


def main(cfg: DictConfig) -> None:
    """Check every cell, run the unfinished ones, and print the findings of all, or of a table."""
    distributed.refuse_bare_slurm("aim.study")
    asked = config.resolve(cfg)
    settings = config.build({key: asked[key] for key in Settings.__dataclass_fields__}, Settings)
    if settings.input is not None:
        of_table(path_of(settings.input), settings)
        return
    study = settings.study.checked()
    given = [text for text in config.task_overrides() if key_of(text).partition(".")[0] not in OWN]
    name = naming.run_name(study.name, given, identity.MACHINE)
    folder = path_of(settings.run_dir or Path("runs", "study", name))
    members = planned(cells(study, given, folder), look=not settings.dry)
    number, threads = at_once(settings.jobs, members)
    if settings.dry:
        times.show(members, times.seconds(members, threads), number)
        return
    with lease.held(folder):
        code = conduct(study, members, folder, number if settings.jobs != 0 else 0, threads)
    sys.exit(code)


def conduct(study: Study, members: Sequence[Planned], folder: Path, number: int, threads: int) -> int:
    """Run the unfinished cells, `number` in parallel, and write the findings of all; return the exit code.

    Raises Interrupted if a signal stopped them, and UserError if none is done.
    """
    codes: dict[str, int] = {}
    todo = [member for member in members if not member.done] if number else []
    if todo:
        expected = times.seconds(members, threads)
        say(times.total(members, expected, number))
        codes, stopped = run(command.program("aim.train"), in_order(todo), expected, number=number, threads=threads)
        if stopped:
            done = sum(member.done for member in members)
            raise Interrupted(f"stopped by a signal; {done} of {len(members)} cells are done in {folder}")
    found = rows(study, members, reasons(members, codes))
    if failed := [f"{row.name}: {row.why}" for row in found if row.state == "failed"]:
        say(f"error: {len(failed)} of {len(found)} cells failed and are left out: {'; '.join(failed)}")
    if missing := [row.name for row in found if row.state == "missing"]:
        say(f"{len(missing)} of {len(found)} cells are not done and left out: {', '.join(missing)}")
    if all(row.state != "done" for row in found):
        raise UserError(f"no cell in {folder} is done; fix that, and repeat the command")
    leave(told(study, found), folder)
    return jobs.verdict([*codes.values(), *(1 for _ in failed)])


def told(study: Study, found: Sequence[Row]) -> dict[str, Any]:
    """The contents of study.json for a grid."""
    done = [row for row in found if row.state == "done"]
    left = [results.read(row.member.cell.run_dir / "results.json") for row in done]
    scores, cells = described(done[0].chance), [row.as_json() for row in found]
    about = {
        "name": study.name,
        "title": study.title,
        "machine": str(left[0]["device"]),
        "commit": results.commit(),
        "seconds": sum(float(each["seconds"]) for each in left),
        "axes": AXES,
        "difficulty": (difficulty := study.difficulties[0]),
        "scores": scores,
        "cells": cells,
    }
    plain = [cell for cell in cells if cell["difficulty"] == difficulty]
    return about | analyse(curves(found, difficulty), plain, scores, AXES)


def of_table(path: Path, settings: Settings) -> None:
    """Analyse a user's table, and write the findings into `out`. Raises UserError if it can't be read."""
    found = tables.read(path, settings.chance, settings.better)
    axes = {"scale": "scale"}
    score = {"name": "score", "better": settings.better, "thresholded": True, "chance": settings.chance}
    about: dict[str, Any] = {
        "name": path.stem, "title": path.name, "machine": "", "commit": results.commit(), "seconds": 0.0,
        "axes": axes, "scores": {"score": score}, "cells": [],
    }  # fmt: skip
    leave(about | analyse(found, [], {"score": score}, axes), path_of(settings.out or path.with_suffix("")))


def leave(study: dict[str, Any], folder: Path) -> None:
    """Write it as page, text, numbers and figures, and print the summary."""
    written = output.write(study, folder)
    print("\n".join(study["summary"]), flush=True)
    say(f"{', '.join(path.name for path in written[:3])} and {len(written) - 3} figures are written to {folder}")
