"""The one exception for errors of users, suggestions of near names, and lines on stderr."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """An error that the user can fix; a verb prints it as one line and exits with code 2."""


class RankError(UserError):
    """An error that only one rank knows, so that every rank prints its own. The program ends with `code`."""

    def __init__(self, text: str, code: int = 2) -> None:
        super().__init__(text)
        self.code = code


def nearest(name: str, choices: Iterable[str]) -> str:
    """Say which of `choices` were probably meant: "; nearest: a, b", or nothing."""
    found = difflib.get_close_matches(name, list(choices), n=3, cutoff=0.5)
    return f"; nearest: {', '.join(found)}" if found else ""


def check_all(*checks: Callable[[], object]) -> None:
    """Run every check, and raise all their UserErrors as one."""
    problems = []
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))


def say(text: str) -> None:
    """A line on stderr, from one rank."""
    if os.environ.get("RANK", "0") == "0":
        print(f"aim: {text}", file=sys.stderr, flush=True)
