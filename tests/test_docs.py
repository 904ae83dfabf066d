"""The pages link to existing files and headings, and Sphinx makes a site of them."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [*ROOT.glob("*.md"), ROOT / "data" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def text_of(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_anchors_are_those_of_a_forge() -> None:
    assert {"does-it-fit", "gpus", "several-labels-a-video"} <= anchors(ROOT / "docs" / "running.md")
    assert "aimtrain" in anchors(ROOT / "docs" / "settings.md")


def test_python_in_the_pages_imports_what_there_is() -> None:
    code = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)]
    imports = re.findall(r"^from (aim[\w.]*) import (\w+(?:, \w+)*)", "\n".join(code), flags=re.MULTILINE)
    assert len(imports) >= 4
    for module, names in imports:
        place = ROOT / module.replace(".", "/")
        files = list(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        for name in names.split(", "):
            there = place / f"{name}.py", place / name
            defined = any(re.search(rf"^(class|def) {name}\b", file.read_text("utf-8"), re.MULTILINE) for file in files)
            assert defined or any(path.exists() for path in there), (module, name)


@pytest.mark.slow
def test_sphinx_makes_a_site_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("furo")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", ".", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        assert (tmp_path / page.relative_to(ROOT).with_suffix(".html")).is_file()
    assert "docs/troubleshooting.html" in (tmp_path / "README.html").read_text(encoding="utf-8")
