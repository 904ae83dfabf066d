"""A study's grid: trunks x adapters x shares of the training videos x difficulties x seeds, and its chosen cells."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aim.ground import choices
from aim.ground.errors import UserError, nearest
from aim.ground.foreign import reading
from aim.weights.trunk import weights_file

AXES = ("trunks", "adapters", "shares", "difficulties", "seeds")
DIFFICULTY = "data.lists.difficulty"


@dataclass(frozen=True)
class Study:
    """The values of `study` in configs/study.yaml."""

    name: str
    title: str
    experiment: str | None
    trunks: Mapping[str, Sequence[str]]
    adapters: Mapping[str, Sequence[str]]
    shares: Sequence[float]
    epochs: Mapping[float, int]
    difficulties: Sequence[float | None]
    seeds: Sequence[int]
    common: Sequence[str]
    cells: Sequence[Mapping[str, Sequence[str | float | None]]]
    pairs: Sequence[Sequence[str]] | None
    trunk_errors: str | None

    def checked(self) -> "Study":
        """This study. Raises UserError if it is invalid."""
        if self.experiment is None:
            there = ", ".join(choices.choices("study"))
            raise UserError(f"there is nothing to study: add +study=NAME, one of {there}, or input=FILE.csv")
        for axis in AXES:
            values = list(getattr(self, axis))
            if not values:
                raise UserError(f"study.{axis} is empty; name one or more")
            if len(set(values)) < len(values):
                raise UserError(f"study.{axis}={values} names one twice")
        for share in (*self.shares, *self.epochs):
            if not (isinstance(share, float | int) and 0 < share <= 1):
                raise UserError(f"study.shares: {share} isn't a share of the videos above 0 and up to 1")
        for each in self.difficulties:
            if not (each is None or (isinstance(each, float | int) and 0 < each <= 1)):
                raise UserError(f"study.difficulties: {each} is neither null nor above 0 and up to 1")
        if wrong := [pair for pair in self.pairs or () if len(set(pair)) != 2]:
            raise UserError(f"study.pairs: {list(wrong[0])} isn't a pair of two classes")
        if not self.cells:
            raise UserError("study.cells is empty; [{}] is the whole grid")
        for axis, names in (each for part in self.cells for each in part.items()):
            if axis not in AXES:
                raise UserError(f"study.cells: no axis {axis!r}{nearest(axis, AXES)}; there are: {', '.join(AXES)}")
            values = list(getattr(self, axis))
            if unknown := [name for name in names if name not in values]:
                close = nearest(str(unknown[0]), map(str, values))
                raise UserError(f"study.cells names {unknown[0]}, which study.{axis}={values} lacks{close}")
        trunk_errors(self)
        return self

    @property
    def varied(self) -> set[str]:
        """The settings of the grid, which can't be given for all cells."""
        axes = itertools.chain(self.trunks.values(), self.adapters.values())
        hard = {DIFFICULTY} if list(self.difficulties) != [None] else set[str]()
        return {key_of(text) for texts in axes for text in texts} | {"seed", "data.share", "experiment"} | hard


@dataclass(frozen=True)
class Cell:
    """A training of the grid: `overrides` are for aim.train, without its run directory."""

    trunk: str
    adapter: str
    share: float
    difficulty: float | None  # of the videos; None if the study doesn't set it
    seed: int
    overrides: Sequence[str]
    run_dir: Path

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.run_dir.name


def cells(study: Study, given: Sequence[str], folder: Path) -> list[Cell]:
    """The cells of all slices, each once, with the `given` overrides. Raises UserError for one that an axis varies."""
    for text in given:
        if key_of(text) in study.varied:
            raise UserError(f"{text} is for all cells, but the study varies {key_of(text)}; change study.* instead")
    wanted = dict[tuple[str, str, float, float | None, int], None]()
    for part in study.cells:
        chosen = [[value for value in getattr(study, axis) if value in part.get(axis, [value])] for axis in AXES]
        wanted |= dict.fromkeys(itertools.product(*chosen))
    found = []
    for trunk, adapter, share, difficulty, seed in wanted:
        epochs = [f"train.epochs={study.epochs[share]}"] if share in study.epochs else []
        hard = [] if difficulty is None else [f"++{DIFFICULTY}={difficulty:g}"]
        own = [*study.trunks[trunk], *study.adapters[adapter], f"data.share={share:g}", *epochs, *hard, f"seed={seed}"]
        overrides = [f"+experiment={study.experiment}", *last([*study.common, *own, *given])]
        said = "" if difficulty is None else f",difficulty={difficulty:g}"
        name = f"{trunk},{adapter},share={share:g}{said},seed={seed}"
        found.append(Cell(trunk, adapter, share, difficulty, seed, overrides, folder / name))
    return found


def key_of(override: str) -> str:
    """The setting that an override changes."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def last(overrides: Iterable[str]) -> list[str]:
    """The last one of several overrides of a setting."""
    return list({key_of(text): text for text in overrides}.values())


def trunk_errors(study: Study) -> dict[str, float]:
    """Trunk -> the error of its own linear probe on stills, if in the study's file.

    It may be under the study's name for the trunk or its backbone's. Raises UserError if it can't be read.
    """
    if study.trunk_errors is None:
        return {}
    path = weights_file(study.trunk_errors)
    with reading(path, "study.trunk_errors", 'name a JSON of {TRUNK: {"probe_error": NUMBER}}'):
        said: Any = json.loads(path.read_text(encoding="utf-8"))
        errors = {name: float(entry["probe_error"]) for name, entry in said.items()}
    found: dict[str, float] = {}
    for trunk, overrides in study.trunks.items():
        names = [trunk, *(text.partition("=")[2] for text in overrides if key_of(text) == "backbone")]
        if known := [errors[name] for name in names if name in errors]:
            found[trunk] = known[0]
    return found
