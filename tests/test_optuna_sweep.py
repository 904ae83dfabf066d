"""scripts/optuna_sweep.py: machines that share a study try everything once, and redo a killed machine's trial."""

import os
import runpy
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, missing
from tests.messages import named

SCRIPT = ROOT / "scripts" / "optuna_sweep.py"
# In place of aim.train: it notes its run and leaves a score.
TRAINER = """
import json, sys
from pathlib import Path
given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
run = Path(given["run_dir"])
with (run.parent.parent / "tried.txt").open("a") as file:
    file.write(run.parent.name + "\\n")
if given.get("fails"):
    sys.exit(int(given["fails"]))
score = {"name": "top1", "words": "top-1", "unit": "percent"}
run.mkdir(parents=True)
(run / "results.json").write_text(json.dumps({"headline": [score], "top1": int(given["a"]) * 10 + int(given["b"])}))
"""
WORKER = f"""
import runpy, sys
script = runpy.run_path({str(SCRIPT)!r})
script["train"].__globals__["TRAIN"] = (sys.executable, "-c", {TRAINER!r})
sys.exit(script["main"](sys.argv[1:]))
"""
VALUES = ["--try", "a=0,1,2", "--try", "b=0..3"]


@pytest.fixture(scope="module")
def script() -> Any:
    try:
        import optuna  # noqa: F401
    except ImportError:
        missing("Optuna isn't installed: pip install 'aim-video[optuna]'")
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def worker(script: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worker in this process."""
    monkeypatch.setitem(script["train"].__globals__, "TRAIN", (sys.executable, "-c", TRAINER))
    return script["main"]


def tried(out: Path) -> list[str]:
    return (out / "tried.txt").read_text().splitlines()


def test_two_machines_on_one_study_try_all_values_once(script: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path), "--trials", "12", *VALUES, "+experiment=demo"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [job.communicate(timeout=120)[1] for job in both]
    assert [job.returncode for job in both] == [0, 0]
    found = tried(tmp_path)
    assert len(found) == len(set(found))
    assert len(found) >= 8  # of twelve there are
    assert {path.parent.parent.name for path in tmp_path.glob("*/run/results.json")} == set(found)
    named(said[0], max(found))
    study = script["optuna"].load_study(study_name="aim", storage=storage_of(script, tmp_path))
    assert study.best_value == int(max(found)[2]) * 10 + int(max(found)[-1])


def storage_of(script: Any, out: Path) -> Any:
    return script["JournalStorage"](script["JournalFileBackend"](str(out / "study.journal")))


def test_what_a_killed_worker_had_is_tried_again_and_what_is_alive_is_not(
    script: Any, worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = script["optuna"].create_study(study_name="aim", storage=storage_of(script, tmp_path), direction="maximize")
    ranges = dict(map(script["range_of"], VALUES[1::2]))
    study.enqueue_trial({"a": "2", "b": 3})
    study.ask(ranges)  # whose worker is killed now
    monkeypatch.setitem(worker.__globals__, "LOST", timedelta(0))
    study.enqueue_trial({"a": "1", "b": 3})
    study.ask(ranges)
    with script["lease"].held(tmp_path / "a=1,b=3"):
        assert worker([str(tmp_path), "--trials", "3", *VALUES]) == 0
    assert tried(tmp_path)[0] == "a=2,b=3"
    assert "a=1,b=3" not in tried(tmp_path)


def test_an_interrupted_trial_goes_on_and_an_error_ends_the_worker(worker: Any, tmp_path: Path) -> None:
    given = [str(tmp_path), "--trials", "1", *VALUES]
    assert worker([*given, "fails=2"]) == 2
    assert worker([*given, "fails=75"]) == 75
    first = tried(tmp_path)
    assert worker(given) == 0
    assert tried(tmp_path) == [*first, first[-1]]


def test_values_that_are_none_are_an_error(worker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert worker([str(tmp_path), "--trials", "1", "--try", "optim.lr=0..1.5"]) == 2
    named(capsys.readouterr().err, "optim.lr=0..1.5", "KEY=A..B")
