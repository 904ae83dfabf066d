"""Nothing that Windows lacks is needed: tested with POSIX hidden from this project, not on Windows."""

import ast
import json
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.programs import command
from tests.programs.without_posix import MODULES
from tests.toy import videos


def test_no_module_of_posix_is_imported_at_the_top() -> None:
    for path in (ROOT / "aim").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not set(names) & set(MODULES), path


@pytest.mark.slow
def test_every_module_is_imported_and_a_cpu_predicts(unbroken: Path, toy_cache: Path, tmp_path: Path) -> None:
    video = videos(toy_cache)[0]
    verbs = (
        "predict --help",
        f"report {unbroken} out={tmp_path}/report.html",
        f"predict checkpoint={unbroken} {video} device=cpu workers=0 top=1",
    )
    done = subprocess.run(command("without_posix", *verbs), capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("predict ended with 0") == 2, done.stderr
    assert (tmp_path / "report.html").stat().st_size > 10_000
    (answer,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert answer["path"] == str(video)
