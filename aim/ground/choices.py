"""The available choices: the folder of configs, their groups and their settings, read from the files alone."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

# A built wheel carries the configs inside the package, a checkout beside it.
CONFIGS = next(
    path for path in (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs") if path.is_dir()
)


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a nested mapping, lists being values."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def primary() -> list[str]:
    """The names of the configs that verbs start from."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def choices(group: str) -> list[str]:
    """The names that a group of configs offers."""
    folder = CONFIGS / group
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def name_of(group: str, node: Mapping[str, Any]) -> str:
    """The name by which a command line chooses a run's group of settings.

    It's the kind or, where no file is called so, the file of that kind with the most settings of the run.
    """
    kind, names = str(node["kind"]), choices(group)
    files = {name: _read(CONFIGS / group / f"{name}.yaml") for name in names if kind not in names}
    own = [name for name, content in files.items() if content.get("kind") == kind]
    alike = {name: sum(node.get(key) == value for key, value in files[name].items()) for name in own}
    return max(own, key=lambda name: (alike[name], -len(files[name])), default=kind)


def groups() -> list[str]:
    """The groups of configs, `experiment` among them."""
    return sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and any(path.glob("*.yaml")))


def added(config_name: str) -> str | None:
    """The group of which a verb with this config takes a file with a plus, as that changes other settings."""
    known = settings(config_name)
    return "study" if "study.name" in known else "experiment" if "train.epochs" in known else None


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


@cache
def followers() -> set[tuple[str, str]]:
    """Settings of a training that some config takes from another one: (setting, the other)."""
    files = [CONFIGS / "config.yaml", *(CONFIGS / "experiment").rglob("*.yaml")]
    found = [leaf for file in files for leaf in leaves(_read(file))]
    return {(key, match[1]) for key, value in found if (match := re.fullmatch(r"\$\{([\w.]+)\}", str(value)))}


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
