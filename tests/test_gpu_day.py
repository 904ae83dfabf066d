"""The script for the first day with a GPU, as far as a machine without one can test it."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import test_gpu
from tests.conftest import ROOT
from tests.messages import named
from tests.toy import TOY

NO_BROWSER = "import sys; sys.modules['playwright'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def test_the_gpu_s_tests_start_without_a_browser_package() -> None:
    command = [sys.executable, "-c", NO_BROWSER, "-m", "gpu", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, "tests/test_gpu.py"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    named(done.stdout, "tests/test_gpu.py")


def test_the_mode_that_refuses_to_wait_may_warn_of_itself() -> None:
    """torch warns where it is switched on, and warnings are errors here."""
    marks: Any = test_gpu.test_a_step_and_a_test_wait_for_nothing_but_results
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            torch._C._cuda_set_sync_debug_mode(1)
        for mark in marks.pytestmark:
            if mark.name == "filterwarnings":
                action, message = mark.args[0].split(":")
                warnings.filterwarnings(action, message)
        torch._C._cuda_set_sync_debug_mode(1)
        torch._C._cuda_set_sync_debug_mode(0)


def test_gradients_of_the_gpu_s_tests_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their runs, of a small trunk and with the CPU as their GPU: what is frozen has the type of its precision."""
    monkeypatch.setattr(test_gpu, "CUDA", torch.device("cpu"))
    monkeypatch.setattr(test_gpu, "PAPER", [word for word in TOY if not word.startswith("precision")])
    test_gpu.test_bf16_gradients_point_where_float32_ones_do()
    run = test_gpu.paper("bf16")
    assert (run.device, run.train.compile) == ("cuda", False)  # what peak_of_step plans for


@pytest.mark.slow
def test_the_day_goes_through_all_its_parts_on_a_cpu(tmp_path: Path) -> None:
    given = {"DRY": "1", "OUT": str(tmp_path), "PYTHON": sys.executable, "SECONDS_IN_ALL": "240"}
    done = subprocess.run(
        ["bash", "scripts/gpu_day.sh"], cwd=ROOT, env=os.environ | given, capture_output=True, text=True, timeout=280
    )
    parts = (tmp_path / "parts.txt").read_text()
    assert parts.count("exit code 0") == 3, parts
    rows = json.loads((tmp_path / "bench.json").read_text())
    of_gpus = ("cudnn", "efficient")  # which a CPU hasn't
    assert not [row for row in rows if isinstance(row.get("error"), str) and not row["what"].endswith(of_gpus)], rows
    steps = [row for row in rows if row["what"].startswith("step, ")]
    assert len(steps) >= 5
    assert all(row["clips_s"] > 0 for row in steps)
    assert (tmp_path / "kernels.txt").exists()
    for piece in ("train_eager", "clips_s", "of_ceiling", "class token", "not_finite", "fc1"):
        assert piece in done.stdout
    assert (tmp_path / "TABLE").read_text() in done.stdout
