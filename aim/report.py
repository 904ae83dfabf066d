"""Make one Markdown table of finished runs.

    python -m aim.report runs/demo runs/demo,adapter=none

Runs that differ in their seed alone share a row: mean, and in brackets the smallest and the largest. Of several
arguments, such as runs/*, those without results are left out, and named on stderr.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from aim import command, config
from aim.engine import identity
from aim.errors import UserError

NUMBERS = ("params_tuned", "params_total", "gmacs_per_view", "top1", "top5", "seconds")
KINDS = {"views": str} | dict.fromkeys(NUMBERS, int | float)  # of results.json
HEAD = ("run", "views", "tuned / all parameters (M)", "GMACs per view", "seeds", "top-1 (%)", "top-5 (%)", "time (s)")


def read(run_dir: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results and the settings of a finished run."""
    try:
        settings = identity.experiment_settings(config.load(run_dir / "config.yaml"))
    except (OSError, ValueError) as error:
        raise UserError(f"{run_dir} is not a finished run as aim.train leaves it: {error}") from error
    return read_results(run_dir / "results.json"), settings


def read_results(file: Path) -> dict[str, Any]:
    """What the table needs of a results.json. Raises UserError where it is damaged."""
    mend = "delete it and repeat the command that wrote it, aim.train or aim.eval"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file.parent} is not a finished run: {file.name} can't be read ({error}); {mend}") from error
    if not isinstance(results, dict):
        raise UserError(f"{file} is not a result; {mend}")
    lacking = [key for key, kind in KINDS.items() if not isinstance(results.get(key), kind)]
    if lacking:
        raise UserError(f"{file} lacks {', '.join(lacking)}; {mend}")
    return results


def finished(paths: Sequence[Path]) -> list[Path]:
    """Those that hold results; raises UserError for one that doesn't exist, or if there are none."""
    for path in paths:
        if not path.exists():
            raise UserError(f"{path} doesn't exist; give the directories of finished runs")
    found = [path for path in paths if (path / "results.json").is_file()]
    without = [str(path) for path in paths if (path / "config.yaml").exists() and path not in found]
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: no results.json; give the directories of finished runs")
    if without:
        print(f"aim: no results in {', '.join(without)}", file=sys.stderr)
    return found


def table(run_dirs: Sequence[Path]) -> str:
    """A Markdown table of the runs, in the given order, seeds of one setting joined."""
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    seen = set[str]()
    for run_dir in run_dirs:
        results, settings = read(run_dir)
        name, text = label(run_dir), json.dumps(settings, sort_keys=True)
        alike = json.dumps({key: value for key, value in settings.items() if key != "seed"}, sort_keys=True)
        # What differs in nothing at all, as two checkpoints that are tested alike do, is no other seed.
        groups.setdefault(alike + (name if text in seen else ""), []).append((name, results))
        seen.add(text)
    lines = [" | ".join(HEAD), " | ".join(["---"] * len(HEAD)), *(row(runs) for runs in groups.values())]
    return "\n".join(f"| {line} |" for line in lines)


def label(run_dir: Path) -> str:
    """The run directory's name without its seed."""
    return ",".join(part for part in run_dir.resolve().name.split(",") if not part.startswith("seed="))


def row(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """One line of the table."""
    name, first = runs[0]
    results = [found for _, found in runs]
    cells = [
        name,
        first["views"],
        f"{first['params_tuned'] / 1e6:.2f} / {first['params_total'] / 1e6:.2f}",
        f"{first['gmacs_per_view']:.2f}",
        str(len(runs)),
        spread([found["top1"] for found in results]),
        spread([found["top5"] for found in results]),
        f"{mean(found['seconds'] for found in results):.0f}",
    ]
    return " | ".join(cells)


def spread(values: Sequence[float]) -> str:
    """The mean, and the range where there are several."""
    text = f"{mean(values):.1f}"
    return f"{text} ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else text


def main(arguments: Sequence[str]) -> None:
    """Print the table of the run directories named on the command line."""
    with command.reported(debug=False):
        if not arguments or arguments[0].startswith("-"):
            raise UserError("name run directories: python -m aim.report runs/demo ...")
        print(table(finished([Path(argument) for argument in arguments])))


if __name__ == "__main__":
    main(sys.argv[1:])
