"""The imports of a command line before its answer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

HEAVY = {"torch", "torchvision", "timm"}


def imported(*arguments: str) -> tuple[int, set[str]]:
    """The exit code of a Python of its own, and the top-level names of all modules that it imported."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.returncode, {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["aim"]),
        (0, ["aim", "--complete", "aim train +experiment="]),
        (2, ["aim.train"]),
        (0, ["aim.train", "--help"]),
        (0, ["aim.train", "+experiment=k400", "--cfg", "job"]),
        (2, ["aim.train", "+experiment=demo", "train.epocs=3"]),
        (2, ["aim.train", "+experiment=dmeo"]),
        (0, ["aim.eval", "--help"]),
        (0, ["aim.predict", "--help"]),
        (2, ["aim.predict", "chekpoint=x"]),
        (2, ["aim.predict", "a.mp4"]),
        (2, ["aim.explain", "a.mp4"]),
        (2, ["aim.explain", "inptu=x"]),
        (0, ["aim.features", "--help"]),
        (0, ["aim.export", "--help"]),
        (0, ["aim.serve", "--help"]),
        (2, ["aim.export", "ot=x.onnx"]),
        (0, ["aim.prepare", "--help"]),
        (0, ["aim.benchmark", "--help"]),
        (2, ["aim.study"]),
        (2, ["aim.study", "+study=demo", "study.seed=[0]"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_needs_no_model_is_answered_without_torch(code: int, arguments: list[str]) -> None:
    left, names = imported("-m", *arguments)
    assert left == code
    assert "hydra" in names
    assert not names & HEAVY


def test_a_report_needs_no_torch(tmp_path: Path) -> None:
    left, names = imported("-m", "aim.report", str(tmp_path))
    assert left == 2  # it is no run's
    assert "aim" in names
    assert not names & HEAVY


def test_importing_the_package_imports_nothing_else() -> None:
    assert imported("-c", "import aim")[1] - imported("-c", "pass")[1] == {"aim"}


def test_help_into_a_pipe_that_nobody_reads_is_no_traceback() -> None:
    """As after `| head`, but the reader is gone from the beginning."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "aim.predict", "--help"]
    with os.fdopen(writes, "wb") as nowhere:
        done = subprocess.run(command, cwd=ROOT, stdout=nowhere, stderr=subprocess.PIPE, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
