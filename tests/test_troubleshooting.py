"""docs/troubleshooting.md quotes messages of the program, and has an entry for each class of errors and exit code."""

import ast
import re
import signal
from collections.abc import Iterator
from functools import cache

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "aim").rglob("*.py"))}
LIKE = 0.5  # the least share of a quote that is the text of one message
RAISED = re.compile(r"UserError|BadVideo|RankError|yield|say\(")  # marks of a file with messages


@cache
def messages() -> list[list[str]]:
    """The texts in the program, each as its fixed pieces, between which values stand."""
    trees = (ast.parse(text) for text in SOURCES.values() if RAISED.search(text))
    found = [
        pieces(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant | ast.JoinedStr)
    ]
    return [each for each in found if sum(map(len, each)) > 12]


def pieces(text: ast.Constant | ast.JoinedStr) -> list[str]:
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    fixed = (part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str))
    return [piece for value in fixed if len(piece := value.strip(" ;,:(")) > 2]


def share(quote: str, message: list[str]) -> float:
    """The share of a quote, its numbers, names and settings aside, that is fixed text of a message, in its order."""
    place, found = 0, 0
    for piece in message:
        if (at := quote.find(piece, place)) >= 0:
            place, found = at + len(piece), found + len(piece)
    return found and found / len(re.sub(r"\b[A-Z]{2,}\S*|\d[\d.]*|'[^']*'|\w+\.\w+", "", quote))


def entries() -> Iterator[tuple[str, list[str]]]:
    """The headings of the page's entries, with the messages quoted below each."""
    for entry in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        block = re.search(r"```text\n(.*?)```", entry, flags=re.DOTALL)
        yield entry.splitlines()[0], block[1].splitlines() if block else []


def test_each_entry_quotes_what_the_program_says() -> None:
    assert len(list(entries())) >= 20
    assert not [heading for heading, quotes in entries() if not quotes]
    unknown = {
        quote for _, quotes in entries() for quote in quotes if max(share(quote, each) for each in messages()) < LIKE
    }
    assert not unknown


def test_a_message_that_has_changed_is_noticed() -> None:
    quote = next(quotes[0] for _, quotes in entries() if "is not a folder" in " ".join(quotes))
    assert max(share(quote.replace("must", "should"), each) for each in messages()) < LIKE


def test_each_class_of_errors_has_a_row() -> None:
    classes = {
        name
        for text in SOURCES.values()
        for name in re.findall(r"^class ([A-Z]\w*)\((?:\w*(?:Error|Exception))\):", text, flags=re.MULTILINE)
    }
    assert {"UserError", "RankError", "BadVideo", "Interrupted"} <= classes
    assert not [name for name in classes if f"| `{name}` |" not in PAGE]


def test_each_exit_code_has_a_row() -> None:
    named = {
        int(code)
        for text in SOURCES.values()
        for code in re.findall(r"^[A-Z_]+ = (\d+)  # .*?(?:exit code|EX_)", text, flags=re.MULTILINE)
    }
    assert {3, 75} <= named
    codes = {0, 1, 2, 128 + signal.SIGINT, 128 + signal.SIGPIPE, *named}
    assert not [code for code in codes if not re.search(rf"^\| {code} \|", PAGE, flags=re.MULTILINE)]
