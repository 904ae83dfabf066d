"""The cells of a study as parallel processes; the outcome of each is stored beside its run."""

import os
import time
from collections.abc import Mapping, Sequence

from aim.engine.machine.distributed import num_cores
from aim.ground import jobs
from aim.ground.clock import clock
from aim.ground.errors import UserError, say
from aim.ground.files import make_folder
from aim.shell.sweep import scores
from aim.study.cells.planning import Planned
from aim.study.cells.times import Seconds

OUTPUT = "output.txt"  # of a cell's process, in its run directory
ENOUGH = 300  # characters of a reason
ERROR = "aim: error: "


def at_once(asked: int | None, members: Sequence[Planned]) -> tuple[int, int]:
    """The number of cells at once, and the threads of each: on a CPU one a core, on GPUs one with all of them."""
    if asked is not None and asked < 0:
        raise UserError(f"jobs={asked} isn't a number of cells; use 1 or more, or 0 to draw existing results")
    on_cpu = all(member.run.device == "cpu" for member in members)
    number = asked or (num_cores() if on_cpu else 1)
    return number, max(1, num_cores() // number)


def run(
    command: Sequence[str], members: Sequence[Planned], expected: Mapping[str, Seconds], *, number: int, threads: int
) -> tuple[dict[str, int], bool]:
    """Run `command` with the overrides of each cell, `number` in parallel; a line reports each end and the rest.

    The rest is estimated from each cell's `expected` time and the finished cells' times. Returns the exit codes of
    those that ran, by name, and whether a signal stopped them.
    """
    for member in members:
        make_folder(member.cell.run_dir)
    on_cpu = all(member.run.device == "cpu" for member in members)
    own = {"OMP_NUM_THREADS": str(threads)} if on_cpu and "OMP_NUM_THREADS" not in os.environ else {}
    names = [member.cell.name for member in members]
    began, ends = dict[int, float](), dict[int, float]()

    def begins(i: int) -> None:
        began[i] = time.monotonic()

    def ended(i: int, code: int) -> None:
        ends[i] = time.monotonic()
        rest = left([expected[name].value for name in names], began, ends, ends[i]) / number
        found = [f"{words} {text}" for words, text in scores(members[i].cell.run_dir).items()]
        result = ", ".join(found) if code == 0 else why(members[i], code)
        say(f"cell {len(ends)} of {len(names)}, {clock(rest)} left: {names[i]}: {result}")

    codes, stopped = jobs.run(
        [[*command, *member.cell.overrides, f"run_dir={member.cell.run_dir}"] for member in members],
        at_once=number,
        environment=own,
        output=lambda i: members[i].cell.run_dir / OUTPUT,
        begins=begins,
        ended=ended,
    )
    return {names[i]: code for i, code in codes.items()}, stopped


def left(expected: Sequence[float], began: Mapping[int, float], ends: Mapping[int, float], now: float) -> float:
    """Seconds of all unfinished cells, one after another."""
    slower = sum(ends[i] - began[i] for i in ends) / sum(expected[i] for i in ends)
    rest = {i: slower * each for i, each in enumerate(expected) if i not in ends}
    return sum(max(0.0, each - (now - began.get(i, now))) for i, each in rest.items())


def reasons(members: Sequence[Planned], codes: Mapping[str, int]) -> dict[str, str]:
    """The reasons of failed cells, by name: those with an exit code other than 0, now or before."""
    found = {}
    for member in members:
        code = codes.get(member.cell.name)
        if member.done or code == 0:
            continue
        if code is not None:
            found[member.cell.name] = why(member, code)
        elif said := errors_of(member):
            found[member.cell.name] = said[-1]
    return found


def why(member: Planned, code: int) -> str:
    """The reason in a cell's last lines, or else its way to end."""
    reason = [*last_words(member)[-1:], *errors_of(member)][-1:]
    return f"{reason[0]} ({jobs.meaning(code)})" if reason else jobs.meaning(code)


def errors_of(member: Planned) -> list[str]:
    """The errors in a cell's output."""
    return [line.removeprefix(ERROR) for line in last_words(member) if line.startswith(ERROR)]


def last_words(member: Planned) -> list[str]:
    """The output lines of a cell's process."""
    try:
        text = (member.cell.run_dir / OUTPUT).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip()[:ENOUGH] for line in text.splitlines() if line.strip()]
