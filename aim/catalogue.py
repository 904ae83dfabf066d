"""What there is to choose from: verbs, experiments, groups and settings, read from the files alone."""

import ast
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from aim.config import CONFIGS, leaves


@cache
def verbs() -> dict[str, Path]:
    """The programs of this package: the files that are one when they are run."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    return {path.stem: path for path in files if '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8")}


def purpose(verb: str) -> str:
    """What a verb does, by the first line of its file."""
    text = ast.get_docstring(ast.parse(verbs()[verb].read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].rstrip(".")


def config_of(verb: str) -> str | None:
    """The primary config of a verb; None for one that takes no settings."""
    found = re.search(r'command\.entrypoint\("aim\.\w+", "(\w+)"', verbs()[verb].read_text(encoding="utf-8"))
    return found[1] if found else None


def choices(group: str) -> list[str]:
    """The names that a group of configs offers."""
    folder = CONFIGS / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def groups() -> list[str]:
    """The groups of configs, `experiment` among them."""
    return sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and any(path.glob("*.yaml")))


def added(config_name: str) -> str | None:
    """The group of which a verb with this config takes a file with a plus, as that changes other settings."""
    known = settings(config_name)
    return "study" if "study.name" in known else "experiment" if "train.epochs" in known else None


def reproduces(name: str, group: str = "experiment") -> str:
    """What an experiment is, by the first line of its file's head: a table's row with its number, or a sentence."""
    lines = (CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    text = next(line for line in lines if line.startswith("# ") and "@package" not in line).removeprefix("# ")
    row = re.match(r"(.*): ([\d.]+) top-1", text)
    return f"{row[2]} %  {row[1]}" if row else text


@cache
def settings(config_name: str) -> dict[str, Any]:
    """The dotted settings of a primary config and of all that its groups offer, each with a value."""
    content = _read(CONFIGS / f"{config_name}.yaml")
    found: dict[str, Any] = {}
    for entry in content.pop("defaults", []):
        if isinstance(entry, Mapping):
            for group in entry:
                files = [_read(CONFIGS / group / f"{name}.yaml") for name in choices(group)]
                found |= {f"{group}.{key}": value for file in files for key, value in leaves(file)}
        elif entry != "_self_":
            found |= settings(entry)
    found |= {key: value for key, value in leaves(content) if not key.startswith("hydra.")}
    return {key: value for key, value in found.items() if not re.search(r"(^|\.)(defaults|kind|_target_)$", key)}


def settings_of(verb: str) -> dict[str, Any]:
    """The dotted settings of a verb."""
    name = config_of(verb)
    return settings(name) if name else {}


def config_groups(config_name: str) -> list[str]:
    """The groups that a primary config chooses from."""
    entries = _read(CONFIGS / f"{config_name}.yaml").get("defaults", [])
    own = [group for entry in entries if isinstance(entry, Mapping) for group in entry]
    return [
        *own,
        *(g for entry in entries if isinstance(entry, str) and entry != "_self_" for g in config_groups(entry)),
    ]


def _read(path: Path) -> dict[str, Any]:
    """A config as plain containers."""
    found: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader) or {}
    return found


def version_text() -> str:
    """The versions of what matters most."""
    try:
        own = version("aim-video")
    except PackageNotFoundError:  # a checkout that isn't installed
        own = "(not installed)"
    return f"aim-video {own}, torch {version('torch')}, Python {platform.python_version()}"


def verbs_text() -> str:
    """The verbs and what they do."""
    return columns({verb: purpose(verb) for verb in verbs()})


def wanted_text(verb: str, group: str) -> str:
    """The files of a group that a verb wants one of, and what they are, with a first command."""
    texts = {name: reproduces(name, group) for name in choices(group)}
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
