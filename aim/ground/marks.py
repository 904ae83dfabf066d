"""Notes that a setting carries at its own field: `gpus: Annotated[int | None, Mark.MACHINE]`."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from functools import cache
from inspect import isclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

AUTO = "auto"


@dataclass(frozen=True)
class Auto:
    """A value for which YAML may say `auto`: `Annotated[int, Auto(20)]`; `config.build` takes `value` for it.

    Who knows better puts another number into the settings before they are built.
    """

    value: float | str


@dataclass(frozen=True)
class Before:
    """The value of a setting that reproduces runs from before the setting."""

    value: Any


class Mark(Enum):
    """The properties of a setting that decide how a run is named, continued or tested."""

    MACHINE = "of the machine or of logging: it doesn't affect the result, so a run may resume with another value"
    SILENT = "of no interest to anybody when it changes"
    CONTENT = "a path whose content decides, and is compared by a hash"
    LENGTH = "the length of a run, which may be extended"
    PATH = "a path: a command line takes it without quotes"
    TEXT = "any text, such as a regular expression: a command line takes it without quotes"
    COMMAND = "of the command: a test takes it from there, not from its checkpoint"
    MODEL = "of the model: a test with another value would test another model"
    TRAINING = "of the training: an experiment that is named for a test has no say in it"
    IDLE = "of no effect on a test, which refuses it on its command line"
    ELSEWHERE = "may differ from a published run without a word"


@cache
def marked(mark: Mark) -> tuple[str, ...]:
    """The dotted names of the settings, of any verb, that carry a mark.

    They are read from the source text, for a command line and a report are answered without the seconds that torch
    and the classes of a run take to import.
    """
    classes = _classes()
    roots = [own for name, own in classes if name in ("Run", "Settings")]
    return tuple(dict.fromkeys(name for own in roots for name in _named(own, mark, dict(classes), "")))


@cache
def _classes() -> list[tuple[str, dict[str, str]]]:
    """Each class with marks, by its name: its fields with their types as text."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parents[1].rglob("*.py")))
    trees = (ast.parse(text) for text in texts if "Mark." in text)
    nodes = (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    return [
        (
            node.name,
            {
                field.target.id: ast.unparse(field.annotation)
                for field in node.body
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            }
            | {  # of a protocol, which has properties
                field.name: ast.unparse(field.returns)
                for field in node.body
                if isinstance(field, ast.FunctionDef) and field.decorator_list and field.returns
            },
        )
        for node in nodes
    ]


def _named(own: Mapping[str, str], mark: Mark, classes: Mapping[str, Mapping[str, str]], prefix: str) -> Iterator[str]:
    for name, hint in own.items():
        words = re.findall(r"[\w.]+", hint)
        if str(mark) in words:
            yield f"{prefix}{name}"
        for word in words:
            yield from _named(classes.get(word, {}), mark, classes, f"{prefix}{name}.")


def notes(hint: Any) -> tuple[Any, ...]:
    """The annotations of a field."""
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of the arguments, with their notes."""
    return get_type_hints(target.__init__ if isclass(target) else target, include_extras=True)


def groups_of(hint: Any) -> list[type]:
    """The classes of settings that a field's type names; none where it names a protocol or a mapping."""
    if get_origin(hint) is Annotated:
        return groups_of(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [group for arg in get_args(hint) for group in groups_of(arg)]
    return [hint] if isclass(hint) and is_dataclass(hint) else []
