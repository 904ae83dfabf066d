"""From the cells of a study to its points: rows of study.json, and their curves over each axis."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from aim.data.demo.moving_shapes import MovingShapes
from aim.data.demo.shape_motions import PAIRS
from aim.engine.scores import predictions
from aim.ground.errors import UserError
from aim.study.cells.grid import Study, trunk_errors
from aim.study.cells.planning import Planned
from aim.study.findings.curves import ALL, Curve
from aim.study.findings.intervals import Interval
from aim.study.findings.scores import SCORES, guessed, score

State = Literal["done", "failed", "missing"]

AXES = {
    "flops": "training FLOPs",
    "parameters": "parameters",
    "tuned": "tuned parameters",
    "videos": "training videos",
    "trunk_error": "the trunk's linear-probe error on stills",
    "difficulty": "difficulty of the videos",
}
SIZES = ("flops", "parameters", "tuned", "trunk_error")  # properties of trunks; more videos are another axis
PAIR_SIZES = ("parameters",)  # of these for pairs of classes: all are similar, and each fit takes time
NORMAL = 1.959964  # standard errors from the middle of a 95 % interval to its ends


@dataclass(frozen=True)
class Row:
    """A cell with its outcome: its scores by task, none if it isn't done."""

    member: Planned
    state: State
    why: str | None
    trunk_error: float | None
    tasks: Mapping[str, Mapping[str, Interval]]
    chance: Mapping[str, float] = field(default_factory=dict)  # of the scores of all classes

    @property
    def name(self) -> str:
        return self.member.cell.name

    @property
    def places(self) -> dict[str, float | None]:
        """Its place on each of AXES."""
        return {
            "flops": self.member.flops,
            "parameters": self.member.cost.parameters,
            "tuned": self.member.cost.tuned,
            "videos": self.member.videos,
            "trunk_error": self.trunk_error,
            "difficulty": self.member.cell.difficulty,
        }

    def as_json(self) -> dict[str, Any]:
        """The row of study.json."""
        cell = self.member.cell
        return {
            "name": cell.name, "trunk": cell.trunk, "adapter": cell.adapter, "share": cell.share, "seed": cell.seed,
            "state": self.state, "why": self.why, "run_dir": str(cell.run_dir),
            **self.places,
            "seconds": self.member.seconds,
            "scores": {name: list(interval) for name, interval in self.tasks.get(ALL, {}).items()},
        }  # fmt: skip


def rows(study: Study, members: Sequence[Planned], reasons: Mapping[str, str]) -> list[Row]:
    """The result of every cell; `reasons` of failed cells, by name."""
    errors = trunk_errors(study)
    pairs = study.pairs if study.pairs is not None else known_pairs(members[0])
    found = []
    for member in members:
        name, error = member.cell.name, errors.get(member.cell.trunk)
        tasks: Mapping[str, Mapping[str, Interval]] = {}
        chance: Mapping[str, float] = {}
        state: State = "failed" if name in reasons else "missing"
        why = reasons.get(name)
        if member.done:
            try:
                told = predictions.read(member.cell.run_dir / predictions.TEST)
                tasks, chance = score(told, pairs), guessed(told)
                state, why = "done", None
            except UserError as problem:
                state, why = "failed", str(problem)
        found.append(Row(member, state, why, error, tasks, chance))
    return found


def known_pairs(member: Planned) -> Sequence[tuple[str, str]]:
    """The pairs of mutually reversed classes, of data that has them, with one label a video."""
    source = member.run.data.lists
    return PAIRS[source.phases] if isinstance(source, MovingShapes) and not member.run.task.several else ()


def curves(found: Sequence[Row], difficulty: float | None = None) -> list[Curve]:
    """The points of every task and score: over the trunks with the most data, a series an adapter; and over the data.

    Those are at one `difficulty`; over the difficulties with the most data. An axis without two places in any series is
    left out, unless it's the only one.
    """
    done = [row for row in found if row.state == "done"]
    if not done:
        return []
    most = max(row.member.cell.share for row in done)
    at_most = [row for row in done if row.member.cell.share == most]
    plain = [row for row in done if row.member.cell.difficulty == difficulty]
    sized = [row for row in plain if row.member.cell.share == most]
    made = list[Curve]()
    for task in done[0].tasks:
        for axis in SIZES if task == ALL else PAIR_SIZES:
            made += over(task, axis, sized, lambda row: row.member.cell.adapter)
        for axis, among in (("videos", plain), ("difficulty", at_most)):
            made += over(task, axis, among, lambda row: f"{row.member.cell.adapter}, {row.member.cell.trunk}")
    drawn = {curve.axis for curve in made if len(set(curve.scale)) > 1} or {PAIR_SIZES[0]}
    return [
        curve for curve in made
        if curve.axis in drawn and (len(set(curve.scale)) > 1 or curve.axis in (*SIZES, *PAIR_SIZES))
    ]  # fmt: skip


def over(task: str, axis: str, found: Sequence[Row], series: Callable[[Row], str]) -> list[Curve]:
    """The curves of a task over an axis, one a series and score; rows without a place on it are left out."""
    placed = [(row, place) for row in found if (place := row.places[axis]) is not None]
    made = []
    for name in dict.fromkeys(series(row) for row, _ in placed):
        own = [(row, place) for row, place in placed if series(row) == name]
        first = own[0][0]
        for key in first.tasks[task]:
            of_pair = SCORES[key].chance if task != ALL else None
            intervals = [row.tasks[task][key] for row, _ in own]
            made.append(
                Curve(
                    task=task, series=name, score=key, axis=axis,
                    scale=np.array([place for _, place in own], np.float64),
                    value=np.array([interval.value for interval in intervals]),
                    seed=np.array([row.member.cell.seed for row, _ in own]),
                    chance=of_pair(2) if of_pair else first.chance[key], better=SCORES[key].better,
                    error=np.array([(interval.high - interval.low) / (2 * NORMAL) for interval in intervals]),
                )
            )  # fmt: skip
    return made
