"""Checks of a message: the settings, values, files and commands it names, never its English."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from aim.ground.errors import UserError


@contextmanager
def refused(*pieces: str, error: type[Exception] = UserError) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """Expect an error whose message has these pieces."""
    _check(pieces)
    with pytest.raises(error) as caught:
        yield caught
    named(str(caught.value), *pieces)


def named(text: str, *pieces: str) -> None:
    """Assert that the text, such as a program's stderr, has each of these pieces, as whole words."""
    _check(pieces)
    missing = [piece for piece in pieces if not _has(text, piece)]
    assert not missing, f"{missing} missing in: {text}"


def unnamed(text: str, *pieces: str) -> None:
    """Assert that the text has none of these pieces."""
    _check(pieces)
    found = [piece for piece in pieces if _has(text, piece)]
    assert not found, f"{found} in: {text}"


def _has(text: str, piece: str) -> bool:
    """Whether the text has the whole piece: not 2 in 12 or 2.5, not data.max_bad=0.1 in data.max_bad=0.13."""
    before = r"(?<!\w)(?<!\d\.)" if piece[0].isdigit() else r"(?<!\w)" if piece[0].isalnum() else ""
    after = r"(?!\.?\d)(?!\w)" if piece[-1].isdigit() else r"(?!\w)" if piece[-1].isalnum() else ""
    return re.search(before + re.escape(piece) + after, text) is not None


def _check(pieces: tuple[str, ...]) -> None:
    """Refuse English: of several words each must be code, such as `KEY=VALUE`, a path, a number, a flag or quoted."""
    assert pieces, "name the pieces of the message"
    for piece in pieces:
        assert piece.strip() == piece != "", f"{piece!r} begins or ends with a space, or is empty"
        outside = re.sub(r"'[^']*'", "'", piece).split()
        prose = [word for word in outside if re.fullmatch(r"[^\W\d_]{2,}[,;:.]?|.*\w'\w.*", word)]
        assert len(outside) == 1 or not prose, f"{piece!r} is English ({' '.join(prose)}); name settings, values, paths"
