"""docs/settings.md is its script's output for configs/, and describes every setting."""

import re
import runpy
from pathlib import Path

import pytest

from aim.ground import choices
from tests.conftest import ROOT

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "settings_reference.py"))
PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")


def test_the_page_is_that_of_the_configs() -> None:
    assert SCRIPT["written"]() == PAGE, "run python scripts/settings_reference.py"


def rows() -> list[tuple[str, str]]:
    """Each setting in the page's tables with its description."""
    return re.findall(r"^\| `([\w.]+\.?\w+)` \| (?:must|each|`).*?\| (.*?) \|(?:[^|]*\|)?$", PAGE, flags=re.MULTILINE)


def test_each_row_says_what_the_setting_is() -> None:
    assert len(rows()) > 200
    assert not [name for name, about in rows() if not re.search(r"\w{3}", about)], "write a comment behind each"


@pytest.mark.parametrize("verb", choices.primary())
def test_every_setting_has_a_row(verb: str) -> None:
    there = {name for name, _ in rows()}
    for setting in choices.settings(verb):
        assert any(setting == name or setting.startswith(f"{name}.") for name in there), setting


def test_a_default_and_its_comment_are_read_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("# Some: a file.\nname: a#b  # of | it\nclip:  # of a video\n  sizes: [1, 2]\nhydra: {run: 1}\n")
    assert SCRIPT["read"](path) == [
        ("name", "a#b", "of | it"),
        ("clip", "", "of a video"),
        ("clip.sizes", "[1, 2]", ""),
    ]
    assert SCRIPT["prose"]("`a|b` or c*d|e (docs/shell.md)") == r"`a|b` or c\*d\|e ([shell.md](shell.md))"
