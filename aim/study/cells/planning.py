"""Checks before the first cell of a study: each is composed, its data found, its model built of fake tensors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from aim.data.demo.moving_shapes import MovingShapes
from aim.engine.machine import distributed
from aim.engine.run import identity, results
from aim.engine.run.plan import training_videos
from aim.engine.run.settings import Run
from aim.engine.run.sizing import settled
from aim.engine.scores import predictions
from aim.ground import config
from aim.ground.errors import UserError, check_all
from aim.shell import words
from aim.study.cells.cost import Cost, count
from aim.study.cells.grid import Cell

NAMED = 3  # problems


@dataclass(frozen=True)
class Planned:
    """A cell that can start: its run by its overrides."""

    cell: Cell
    run: Run
    settings: Mapping[str, Any]
    videos: int  # of training
    tested: int  # videos of the test
    classes: int
    cost: Cost

    @property
    def flops(self) -> float:
        """Operations of its training, forward and backward."""
        clips = self.videos * self.run.train.clips_per_video * self.run.train.epochs
        return self.cost.train_flops * clips

    @property
    def test_flops(self) -> float:
        views = self.run.views
        return self.cost.test_flops * self.tested * views.temporal * views.spatial

    @property
    def kind(self) -> tuple[str, str, float]:
        """The key that all seeds of a cell share."""
        return self.cell.trunk, self.cell.adapter, self.cell.share

    @property
    def done(self) -> bool:
        """Whether all its files for a study exist."""
        return all((self.cell.run_dir / name).exists() for name in ("results.json", predictions.TEST))

    @property
    def seconds(self) -> float | None:
        """Its duration, from start to result; None if unfinished."""
        return float(results.read(self.cell.run_dir / "results.json")["seconds"]) if self.done else None


def planned(cells: Sequence[Cell], *, look: bool = True) -> list[Planned]:
    """The cells, checked. Raises one UserError for all obstacles, and for folders of other runs.

    Without a `look` at the data, which may not be here, videos are counted like in `aim.benchmark what=plan`.
    """
    counts, costs = dict[str, Counts](), dict[tuple[str, str], Cost]()
    composed = dict[tuple[str, ...], dict[str, Any]]()
    found, problems = list[Planned](), dict[str, str]()  # error -> the first cell with it

    def plan(cell: Cell) -> Planned:
        but_seed = tuple(text for text in cell.overrides if not text.startswith("seed="))
        if but_seed not in composed:
            composed[but_seed] = config.resolve(config.compose(list(map(words.quoted, but_seed))))
        asked = composed[but_seed] | {"seed": cell.seed, "run_dir": str(cell.run_dir)}
        run = config.build(asked, Run).placed()
        key = json.dumps(asked["data"], sort_keys=True, default=str)
        if key not in counts:
            counts[key] = counted(run, look=look)
        videos, tested, classes = counts[key]
        settings = settled(asked, videos, identity.earlier(cell.run_dir))
        run = config.build(settings, Run).placed()
        check_all(
            lambda: run.check_batch(distributed.num_ranks(run.device, run.gpus)),
            *run.checks(),
            lambda: check_same(cell.run_dir, settings),
        )
        if (pair := (cell.trunk, cell.adapter)) not in costs:
            costs[pair] = count(run, classes)
        return Planned(cell, run, settings, videos, tested, classes, costs[pair])

    for cell in cells:
        try:
            found.append(plan(cell))
        except UserError as error:
            problems.setdefault(str(error), cell.name)
    if problems:
        texts = [f"{name}: {problem}" for problem, name in problems.items()]
        raise UserError("; ".join(texts[:NAMED]) + (f"; and {len(texts) - NAMED} more" if len(texts) > NAMED else ""))
    check_distinct(found)
    return found


class Counts(NamedTuple):
    """Training videos, videos of the test, and classes."""

    videos: int
    tested: int
    classes: int


def counted(run: Run, *, look: bool) -> Counts:
    """The numbers of videos and classes. Raises UserError if a look finds none."""
    if not look:
        videos, _, classes = training_videos(run)
        source = run.data.lists
        return Counts(videos, source.num_val if isinstance(source, MovingShapes) else 0, classes)
    lists = run.load_lists()
    return Counts(len(lists.train), len(lists.test), len(lists.classes))


def check_same(run_dir: Path, settings: Mapping[str, Any]) -> None:
    """Raise UserError if a folder holds another run than the cell's, also with other epochs."""
    before = identity.earlier(run_dir)
    if before is None:
        return
    if text := [text for text in identity.changes(before, settings, run_dir) if text.startswith(f"{identity.LENGTH} ")]:
        raise UserError(f"{run_dir} holds a run of another length: {text[0]}; set run_dir=DIR, or delete the folder")


def check_distinct(found: Sequence[Planned]) -> None:
    """Raise UserError if two cells would train the same."""
    seen = dict[str, str]()
    for member in found:
        other = seen.setdefault(identity.config_hash(member.settings), member.cell.name)
        if other != member.cell.name:
            raise UserError(
                f"{other} and {member.cell.name} are the same training; change study.trunks or study.adapters"
            )


def in_order(found: Sequence[Planned]) -> list[Planned]:
    """One seed after another, the long cells of each first, so none runs alone at the end."""
    seeds = list(dict.fromkeys(member.cell.seed for member in found))
    return sorted(found, key=lambda member: (seeds.index(member.cell.seed), -member.flops))
