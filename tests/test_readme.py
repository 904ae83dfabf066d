"""Every command in the documentation composes, and every file it names is there."""

import re
import runpy
import shlex

import pytest

from aim.benchmark import verb as benchmark
from aim.engine.run.settings import Run
from aim.eval import verb as eval
from aim.ground import choices, config
from aim.prepare.verb import Settings
from aim.study.cells.grid import Study
from tests.conftest import ROOT

EXPERIMENTS = [path for group in ("experiment", "study") for path in sorted((choices.CONFIGS / group).rglob("*.yaml"))]
PAGES = sorted((ROOT / "docs").glob("*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "data" / "README.md", ROOT / "CONTRIBUTING.md", *PAGES, *EXPERIMENTS]
VALUES = {
    "DIR": "some/folder",
    "FILE": "some/file",
    "VIDEO_OR_FOLDER": "some/video.mp4",
    "NAME": "demo",
    "DIR2": "b",
    "NEW": "c",
    "N": "2",
}


def commands() -> list[tuple[str, str, tuple[str, ...]]]:
    found = []
    for document in DOCUMENTS:
        for line in document.read_text(encoding="utf-8").splitlines():
            if match := re.search(r"(?:python -m aim\.|^aim )(train|eval|benchmark|prepare|study)\s+([^`#]*)", line):
                words = shlex.split(match[2].replace("[KEY=VALUE ...]", "").strip(), comments=True)
                if "-m" in words:  # a sweep: its first
                    words = [word.split(",")[0] for word in words]
                words = [word.replace("data.fold=all", "data.fold=1") for word in words]
                if any(word.startswith("data.folds=") for word in words):  # of a sweep, whose folder is read before
                    words.append("data.fold=1")
                found.append((document.name, match[1], tuple(word for word in words if "=" in word)))
    return found


@pytest.mark.parametrize(("document", "verb", "words"), commands())
def test_a_documented_command_composes(document: str, verb: str, words: tuple[str, ...]) -> None:
    overrides = [
        re.sub(r"\b(DIR2|DIR|FILE|VIDEO_OR_FOLDER|NAME|NEW|N)\b", lambda m: VALUES[m[0]], word) for word in words
    ]
    overrides = [word.replace(",", r"\,") if word.startswith("checkpoint=") else word for word in overrides]
    cfg = config.compose(overrides, verb if verb in ("prepare", "study", "eval", "benchmark") else "config")
    if verb == "study":
        given = config.resolve(cfg)
        assert config.build(given["study"], Study).checked() if "input" not in words[0] else given["input"]
    elif verb == "prepare":
        config.build({key: config.resolve(cfg)[key] for key in Settings.__dataclass_fields__}, Settings)
    elif "data.root" in "".join(overrides) or cfg.data.get("root", None):
        config.build(cfg, {"eval": eval.Settings, "benchmark": benchmark.Settings}.get(verb, Run))


def test_the_readme_shows_commands_at_all() -> None:
    assert len([document for document, *_ in commands() if document == "README.md"]) >= 8


@pytest.mark.parametrize("document", ["README.md", "data/README.md", *(f"docs/{page.name}" for page in PAGES)])
def test_files_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for name in re.findall(r"`((?:aim|configs|scripts|tests|data)/[\w./-]+?)`", text):
        assert (ROOT / name).exists(), name


def test_the_tables_are_those_of_the_results() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "readme_tables.py"))["written"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert made(readme.replace("98.8", "99.8")) == readme
