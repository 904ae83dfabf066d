"""A table of scores by scale from elsewhere: a CSV file, read into curves."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from aim.ground.errors import UserError
from aim.ground.foreign import reading
from aim.study.findings.curves import Curve

NEEDED, OPTIONAL = ("scale", "score", "seed", "task"), ("series", "chance", "error")
SHAPE = f"a table has the columns {', '.join(NEEDED)} and, if you like, {', '.join(OPTIONAL)}"


class Row(NamedTuple):
    """A row of a table."""

    scale: float
    score: float
    seed: float
    chance: float
    error: float


def read(path: Path, chance: float = 0.0, better: Literal["high", "low"] = "high") -> list[Curve]:
    """The curves of a table, one for each task and series, in the order of their first rows.

    `chance` is the default for a missing column. An empty score, or nan, is a missing value. `error` is the standard
    error of the score over the test.
    """
    with reading(path, "a table", SHAPE), path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in table.fieldnames or ()]
        table.fieldnames = columns
        rows = [(table.line_num, row) for row in table]
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; {SHAPE}")
    if not rows:
        raise UserError(f"{path}: no rows; {SHAPE}")
    found: dict[tuple[str, str], list[Row]] = {}
    for line, row in rows:
        if None in row or None in row.values():
            wrong = f"not as many cells as the {len(columns)} columns; a comma in a name needs quotes"
            raise UserError(f"{path}, line {line}: {wrong}")
        key = row["task"].strip(), row.get("series", "").strip()
        found.setdefault(key, []).append(parsed(row, f"{path}, line {line}: ", chance))
    return [curve(path, *key, values, better) for key, values in found.items()]


def parsed(cells: Mapping[str, str], where: str, chance: float) -> Row:
    """The numbers of a row. Raises UserError that begins with `where`."""
    otherwise = {"scale": None, "score": math.nan, "seed": None, "chance": chance, "error": 0.0}
    row = Row(*(number(cells, column, where, value) for column, value in otherwise.items()))
    if not row.scale > 0:
        raise UserError(f"{where}scale={cells['scale'].strip()}: a log axis takes only positive scales")
    if not row.seed.is_integer():
        raise UserError(f"{where}seed={cells['seed'].strip()}: a seed is a whole number")
    if math.isnan(row.chance) or not row.error >= 0:
        raise UserError(f"{where}chance={row.chance:g}, error={row.error:g}: numbers, and no error below zero")
    return row


def curve(path: Path, task: str, series: str, rows: Sequence[Row], better: Literal["high", "low"]) -> Curve:
    """The rows of one task and series as a curve; chance must be the same in all."""
    scale, score, seed, level, error = (np.array(each) for each in zip(*rows, strict=True))
    if len(set(level.tolist())) > 1:
        raise UserError(f"{path}: task {task} has chance {level.min():g} and {level.max():g}; one for a task")
    known = error if error.any() else None
    return Curve(task, series, "score", "scale", scale, score, seed.astype(np.int64), float(level[0]), better, known)


def number(cells: Mapping[str, str], column: str, where: str, otherwise: float | None) -> float:
    """A finite number or nan; `otherwise` for an empty cell or a missing column."""
    text = cells.get(column, "").strip()
    if not text and otherwise is not None:
        return otherwise
    try:
        value = float(text)
    except ValueError as error:
        raise UserError(f"{where}{column}={text or 'nothing'} isn't a number; write it as 0.25 or 2.5e-1") from error
    if math.isinf(value):
        raise UserError(f"{where}{column}={text} isn't finite")
    return value
