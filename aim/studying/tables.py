"""Anybody's table of scores by scale: a CSV file, read into curves."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from aim.errors import UserError
from aim.studying.curves import Curve

NEEDED, OPTIONAL = ("scale", "score", "seed", "task"), ("series", "chance")
SHAPE = f"a table has the columns {', '.join(NEEDED)} and, if you like, {', '.join(OPTIONAL)}"


def read(path: Path, chance: float = 0.0, better: Literal["high", "low"] = "high") -> list[Curve]:
    """The curves of a table, one for each task and series, in the order of their first rows.

    `chance` holds where the table has no such column. An empty score, or nan, is a missing value.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, skipinitialspace=True)
            columns = [name.strip() for name in table.fieldnames or ()]
            table.fieldnames = columns
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: can't be read ({error}); {SHAPE}") from error
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; {SHAPE}")
    if not rows:
        raise UserError(f"{path}: no rows; {SHAPE}")
    found: dict[tuple[str, str], list[tuple[float, float, int, float]]] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        if None in row or None in row.values():
            raise UserError(f"{where}: not as many cells as the {len(columns)} columns; a comma in a name needs quotes")
        scale = number(row["scale"], f"{where}: scale")
        if not 0 < scale < math.inf:
            raise UserError(
                f"{where}: scale={row['scale'].strip()}: scales are positive, as they are put on a log axis"
            )
        seed = number(row["seed"], f"{where}: seed")
        if not seed.is_integer():
            raise UserError(f"{where}: seed={row['seed'].strip()}: a seed is a whole number")
        score = number(row["score"] if row["score"].strip() else "nan", f"{where}: score")
        level = number(row["chance"], f"{where}: chance") if "chance" in columns else chance
        if not math.isfinite(level) or math.isinf(score):
            raise UserError(f"{where}: chance={level}, score={score}: both are finite, or the score is nan")
        key = row["task"].strip(), row.get("series", "").strip()
        found.setdefault(key, []).append((scale, score, int(seed), level))
    return [curve(path, *key, values, better) for key, values in found.items()]


def curve(
    path: Path, task: str, series: str, rows: Sequence[tuple[float, float, int, float]], better: Literal["high", "low"]
) -> Curve:
    """The rows of one task and series as a curve; chance must be the same in all."""
    scale, score, seed, level = (np.array(each) for each in zip(*rows, strict=True))
    if len(set(level.tolist())) > 1:
        raise UserError(f"{path}: task {task} has chance {level.min():g} and {level.max():g}; one for a task")
    return Curve(task, series, "score", "scale", scale, score, seed, float(level[0]), better)


def number(text: str, what: str) -> float:
    """A cell as a number."""
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{what}={text.strip()} is no number") from error
