"""Writes docs/settings.md: every setting with its default and the comment beside it, from the files of configs/.

python scripts/settings_reference.py
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from aim.ground import choices
from aim.ground.marks import Mark, marked
from aim.shell import verbs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
INTRODUCTION = """\
# Settings

Each setting with its default, from the files of `configs/`; `python scripts/settings_reference.py` writes this page.
`NAME=VALUE` on a command line sets one (`train.epochs=5`), `GROUP=NAME` takes a file of a group (`adapter=lora`).
`aim VERB --help` shows the same defaults, `aim train +experiment=NAME --cfg job` those of an experiment. A misspelt
name is an error that suggests the nearest. `aim report` takes folders and two words ([report.md](report.md))."""
LISTED = ("backbone", "experiment", "study")  # groups of many files; the first line of a head is shown
ADDED = ("experiment", "study")  # groups given with a plus, which change settings of others
NAMELESS = ("defaults", "hydra", "kind")  # keys that no user sets


class Setting(NamedTuple):
    """A leaf of a file: its dotted name, the text of its value, and its comment."""

    name: str
    value: str  # "" for a group of settings, which has a comment alone
    about: str


def head(path: Path) -> str:
    """The comment at the top of a file, as one text."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return " ".join(line.removeprefix("#").strip() for line in lines[:end])


def read(path: Path) -> list[Setting]:
    """The settings of a file, in its order; a commented group comes before its settings."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()

    def found(node: yaml.MappingNode, prefix: str) -> Iterator[Setting]:
        for key, value in node.value:
            if key.value in NAMELESS:
                continue
            name, comment = f"{prefix}{key.value}", re.search(r" #\s*(.*)", lines[key.start_mark.line])
            about = comment[1] if comment else ""
            if isinstance(value, yaml.MappingNode) and not value.flow_style:
                yield from [Setting(name, "", about)] if about else []
                yield from found(value, f"{name}.")
            else:
                yield Setting(name, text[value.start_mark.index : value.end_mark.index], about)

    return list(found(yaml.compose(text, yaml.CSafeLoader), ""))


def with_base(group: str, name: str) -> dict[str, Setting]:
    """The settings of a group's file and of the files that it extends, by name."""
    path = choices.CONFIGS / group / f"{name}.yaml"
    bases = yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", [])
    rows = {key: row for base in bases for key, row in with_base(group, base).items()}
    for row in read(path):
        rows[row.name] = row._replace(about=row.about or (rows[row.name].about if row.name in rows else ""))
    return rows


def prose(text: str) -> str:
    """A comment as Markdown, with links to the pages that it names."""
    text = re.sub(r"`[^`]*`|[\\*<>|]", lambda m: m[0] if m[0][0] == "`" else f"\\{m[0]}", text)
    text = re.sub(r"\bdocs/([\w-]+\.md)", r"[\1](\1)", text)
    return text.replace("data/README.md", "[data/README.md](../data/README.md)")


def code(value: str) -> str:
    """A value as Markdown."""
    return "must be given" if value == "???" else f"`{value}`" if value else ""


def table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, ("---",) * len(titles), *rows])


def of_file(rows: Iterable[Setting]) -> str:
    """The settings of one file as a table."""
    cells = ((f"`{row.name}`" if row.value else f"**{row.name}**", code(row.value), prose(row.about)) for row in rows)
    return table(("setting", "default", ""), cells)


def values(own: dict[str, str]) -> str:
    """The values of one setting, each with the files of a group that have it, if these are few."""
    names: dict[str, list[str]] = {}
    for name, value in own.items():
        names.setdefault(value, []).append(name)
    if len(names) == 1:
        return code(*names)
    few = len(names) <= 3 and len(own) <= 16
    return ", ".join(f"{code(value)} ({', '.join(files)})" for value, files in names.items()) if few else "each its own"


def of_group(group: str) -> str:
    """The settings of a group's files as a table: those of one name and one comment in a row."""
    files = {name: with_base(group, name) for name in choices.choices(group)}
    merged: dict[tuple[str, str], dict[str, str]] = {}
    once: dict[str, str] = {}  # by setting; one of many files has the comment
    for name, rows in files.items():
        for row in rows.values():
            once[row.name] = once.get(row.name) or row.about
            merged.setdefault((row.name, "" if group in LISTED else row.about), {})[name] = row.value
    cells = (
        (
            f"`{group}.{setting}`",
            values(own),
            prose(about or once[setting]),
            "all" if len(own) == len(files) else ", ".join(own) if len(own) <= 10 else f"{len(own)} of them",
        )
        for (setting, about), own in sorted(merged.items())
    )
    return table(("setting", "default", "", f"`{group}=`"), cells) if merged else ""


def files_of(group: str) -> str:
    """The files of a group as a table, each with its head."""
    about = {
        name: verbs.reproduces(name, group) if group in LISTED else head(choices.CONFIGS / group / f"{name}.yaml")
        for name in choices.choices(group)
    }
    plus = "+" if group in ADDED else ""
    return table((f"`{plus}{group}=`", ""), ((f"`{name}`", prose(text)) for name, text in about.items()))


def written() -> str:
    """The page."""
    parts = [INTRODUCTION]
    for name in ("config", *(name for name in choices.primary() if name != "config")):
        path = choices.CONFIGS / f"{name}.yaml"
        title, _, about = head(path).partition(": ")
        parts.append(f"## {title}\n{prose(about[:1].upper() + about[1:])}")
        rows = read(path)
        if name != "config":
            parts.append(of_file(rows))
            continue
        parts.append(of_file(row for row in rows if "." not in row.name and row.value))
        for group in dict.fromkeys(row.name.partition(".")[0] for row in rows if "." in row.name):
            parts.append(f"### {group}\n{of_file(row for row in rows if row.name.partition('.')[0] == group)}")
        free = ", ".join(f"`{name}`" for name in marked(Mark.MACHINE) if name in {row.name for row in rows})
        parts.append(f"A run may resume with other values of these settings, which don't affect the result: {free}.")
    for group in choices.groups():
        parts += [f"## The group {group}", files_of(group), *([] if group in ADDED else [of_group(group)])]
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
