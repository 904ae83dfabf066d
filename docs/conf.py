"""The documentation as a site, by Sphinx: `make docs`. The pages are plain Markdown, and lie where they are."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIRST = ["docs/first-hour", "docs/commands", "docs/running", "docs/settings", "docs/troubleshooting", "data/README"]
LAST = [
    "docs/architecture",
    "docs/decisions",
    "docs/extending",
    "docs/testing",
    "docs/releasing",
    "CONTRIBUTING",
]

project = "aim-video"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = project
html_copy_source = False
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "data/README.md", "docs/*.md"]
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("data", "docs")]
exclude_patterns += [f"data/{path.name}" for path in (ROOT / "data").iterdir() if path.is_dir()]
myst_heading_anchors = 4  # as a forge has them
suppress_warnings = ["misc.highlighting_failure"]  # JSON with [...] in it


def contents() -> str:
    """The site's table of contents; a new page of docs/ is in it by being there."""
    others = sorted(f"docs/{path.stem}" for path in (ROOT / "docs").glob("*.md"))
    parts = {
        "Use": [*FIRST, *(page for page in others if page not in (*FIRST, *LAST)), "CHANGELOG"],
        "For maintainers": LAST,
    }
    return "".join(
        "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", *pages, "```", ""])
        for caption, pages in parts.items()
    )


def setup(app: Any) -> None:
    """Put the contents below the README, whose own text stays free of Sphinx."""

    def add(_: Any, page: str, source: list[str]) -> None:
        source[0] += contents() if page == root_doc else ""

    app.connect("source-read", add)
