"""The verbs and experiments as text, read from the files alone."""

import ast
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from aim.ground import choices
from aim.ground.choices import CONFIGS
from aim.ground.formats import own_version


@cache
def verbs() -> dict[str, Path]:
    """The programs of this package, by the folder of each: those with a door."""
    return {path.parent.name: path.parent for path in sorted(Path(__file__).parents[1].glob("*/__main__.py"))}


def purpose(verb: str) -> str:
    """The purpose of a verb, from the first line of its file."""
    text = ast.get_docstring(ast.parse((verbs()[verb] / "verb.py").read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].rstrip(".")


def config_of(verb: str) -> str | None:
    """The primary config of a verb; None for one that takes no settings."""
    door = (verbs()[verb] / "__main__.py").read_text(encoding="utf-8")
    found = re.search(r'command\.entrypoint\(\s*"aim\.\w+", "(\w+)"', door)
    return found[1] if found else None


def reproduces(name: str, group: str = "experiment") -> str:
    """An experiment in a line, from its file's head: a table's row with its number, or a sentence."""
    lines = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    text = next(line for line in lines if line.startswith("# ") and "@package" not in line).removeprefix("# ")
    row = re.match(r"(.*): ([\d.]+) top-1", text)
    return f"{row[2]} %  {row[1]}" if row else text


def version_text() -> str:
    """The versions of aim-video, torch and Python."""
    return f"aim-video {own_version()}, torch {version('torch')}, Python {platform.python_version()}"


def verbs_text() -> str:
    """The verbs with their purposes."""
    return columns({verb: purpose(verb) for verb in verbs()})


def wanted_text(verb: str, group: str) -> str:
    """The files of a group of which a verb needs one, each in a line, with a first command."""
    texts = {name: reproduces(name, group) for name in choices.choices(group)}
    families = sorted({name.partition("/")[0] for name in texts if "/" in name})
    title = "Experiments" if group == "experiment" else "Studies"
    parts = [f"{title}, +{group}=NAME:", columns({name: text for name, text in texts.items() if "/" not in name})]
    for family in families:
        own = {name.removeprefix(f"{family}/"): text for name, text in texts.items() if name.startswith(f"{family}/")}
        parts += [f"\n+{group}={family}/NAME:", columns(own)]
    return "\n".join([*parts, f"\nTo begin with: python -m {verb} +{group}=demo; --help lists all settings"])


def columns(rows: Mapping[str, str]) -> str:
    """Names with their texts beside them, a line each, cut where a terminal ends."""
    width, room = max(map(len, rows)), shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    lines = (f"  {name:{width}}  {text}" for name, text in rows.items())
    return "\n".join(line if len(line) <= room else f"{line[: room - 3].rstrip()}..." for line in lines)
