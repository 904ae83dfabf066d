"""The one exception for errors of users, suggestions of near names, and lines on stderr."""

import difflib
import fnmatch
import os
import re
import sys
from collections.abc import Callable, Iterable

# C0 and C1 without the line feed, and the marks that turn the direction of what follows (UAX #9, 2.1 to 2.5).
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


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


def check_least(settings: object, least: float, *names: str, prefix: str = "") -> None:
    """Raise UserError where one of these settings is below `least`; null is not."""
    for name in names:
        if (value := getattr(settings, name)) is not None and value < least:
            raise UserError(f"{prefix}{name}={value} must be {least} or more")


def matching(patterns: Iterable[str], names: Iterable[str], setting: str) -> set[str]:
    """The names that these glob patterns of a setting match. Raises UserError for a pattern that matches none."""
    names, found = list(names), set[str]()
    for pattern in patterns:
        if not (own := fnmatch.filter(names, pattern)):
            raise UserError(f"the {setting} pattern {pattern!r} matches nothing{nearest(pattern, names)}")
        found.update(own)
    return found


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
        print(printable(f"aim: {text}"), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """The text with tabs and other control characters, which names of files may hold, as escapes such as `\\t`."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
