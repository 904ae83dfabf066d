"""Files that others may have written, or truncated, and libraries of extras: their errors become one line."""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aim.ground.errors import UserError

T = TypeVar("T")


@contextmanager
def reading(path: Path, expected: str, way_out: str) -> Iterator[None]:
    """Turn an error over the content of `path` into a UserError with the expectation, the reason and the way out.

    Parsers raise whatever they stumble over (MemoryError, RecursionError, OverflowError, KeyError), so every error is
    caught, and the block holds no more than the parser's call and a look at what it gave. An error of ours that names
    the path already stays as it is.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) and str(path) in str(error):
            raise
        raise UserError(f"{path} can't be read as {expected} ({reason(error)}); {way_out}") from error


def reason(error: BaseException) -> str:
    """The reason at the bottom of an error, in at most 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, RecursionError):
        return "nested too deeply"
    text = " ".join(str(error).split())
    if not text or isinstance(error, LookupError | AttributeError):
        text = f"{type(error).__name__} {text}".strip()
    return text if len(text) <= 200 else f"{text[:200]}..."


def library(name: str, user: str, extra: str) -> Any:
    """A library that an extra of ours brings, for its `user`. Raises UserError where it can't be imported."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        why = f"{user} needs {name}, which can't be imported ({reason(error)})"
        raise UserError(f"{why}: pip install 'aim-video[{extra}]'") from error


def read_json(path: Path, kind: type[T], expected: str, way_out: str) -> T:
    """The content of a JSON file with an object or a list at its top. Raises UserError for anything else."""
    with reading(path, expected, way_out):
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(found, kind):
            raise TypeError(f"at its top is no {'object' if kind is dict else 'list'}: {json.dumps(found)[:40]}")
    return found


def read_lines(path: Path, expected: str, way_out: str) -> list[Any]:
    """The lines of a file of JSON lines, none where there is no file; a last one that a kill cut short isn't one.

    Raises UserError for anything else.
    """
    with reading(path, expected, way_out):
        try:
            *lines, _ = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        return [*map(json.loads, lines)]
