"""scripts/train.slurm and sweep.slurm, with stand-ins for SLURM's two commands."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aim.engine.trained import checkpoint
from aim.ground.signals import INTERRUPTED
from tests.conftest import ROOT
from tests.messages import named
from tests.toy import TOY, journal, killed_at

SCRIPT = ROOT / "scripts" / "train.slurm"
SWEEP = ROOT / "scripts" / "sweep.slurm"
SHARDS = ROOT / "scripts" / "shards.slurm"


@contextmanager
def submitted(
    folder: Path, step: list[object], *overrides: str, nodes: int = 1, script: Path = SCRIPT, task: int = 1
) -> Iterator["subprocess.Popen[str]"]:
    """Start the script in `folder`, with `programs/slurm_STEP.py` as `srun`; leave nothing behind."""
    programs = folder / "bin"
    programs.mkdir()
    for name, words in (("srun", step), ("scontrol", ["scontrol"])):
        line = [sys.executable, ROOT / "tests" / "programs" / f"slurm_{words[0]}.py", *words[1:]]
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(map(str, line))} "$@"\n')
        (programs / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "ROOT": str(ROOT),
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_ARRAY_TASK_ID": str(task),
    }
    command = ["bash", str(script), *overrides]
    job = subprocess.Popen(command, env=environment, cwd="/", stderr=subprocess.PIPE, text=True, start_new_session=True)
    with job:
        try:
            yield job
        finally:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGTERM)  # torchrun ends its ranks


def signal_when(job: "subprocess.Popen[str]", file: Path) -> None:
    """Send the signal of `--signal=B:USR1@120` once the step has written `file`."""
    while not file.exists():
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)


def requeued(folder: Path) -> list[str]:
    asked = folder / "scontrol"
    return asked.read_text().splitlines() if asked.exists() else []


@pytest.mark.parametrize("script", [SCRIPT, SWEEP, SHARDS])
def test_it_asks_slurm_for_what_it_needs(script: Path) -> None:
    asked = {line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH")}
    assert asked >= {"--signal=B:USR1@120", "--requeue", "--open-mode=append", "--ntasks-per-node=1"}


def test_a_signal_reaches_the_step_and_the_job_goes_back_into_the_queue(tmp_path: Path) -> None:
    with submitted(tmp_path, ["waits", INTERRUPTED]) as job:
        signal_when(job, tmp_path / "started")
        _, stderr = job.communicate(timeout=60)
    assert job.returncode == INTERRUPTED, stderr
    assert (tmp_path / "saved").exists()
    assert requeued(tmp_path) == ["requeue 1234"]
    (said,) = stderr.splitlines()
    named(said, "1234")


def test_a_job_that_finishes_after_the_signal_is_done(tmp_path: Path) -> None:
    with submitted(tmp_path, ["waits", 0]) as job:
        signal_when(job, tmp_path / "started")
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, stderr) == (0, "")
    assert (tmp_path / "saved").exists()
    assert requeued(tmp_path) == []


@pytest.mark.parametrize("code", [0, 1, 2, INTERRUPTED])
def test_without_a_signal_the_steps_exit_code_is_the_jobs(tmp_path: Path, code: int) -> None:
    with submitted(tmp_path, ["ends", code], "+experiment=k400", "data.root=a folder") as job:
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, stderr) == (code, "")
    assert requeued(tmp_path) == []
    command = (tmp_path / "srun").read_text().splitlines()
    assert "--rdzv-endpoint=node1:21234" in command
    assert command[-4:] == ["-m", "aim.train", "+experiment=k400", "data.root=a folder"]


def test_the_step_gets_the_cores_that_the_job_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "64")
    with submitted(tmp_path, ["ends", 0]) as job:
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, stderr) == (0, "")
    assert (tmp_path / "cores").read_text() == "64"


def test_a_job_that_makes_room_for_another_goes_back_into_the_queue(tmp_path: Path) -> None:
    """SLURM then signals only its step, and requeues only a job that doesn't end."""
    (tmp_path / "preempted").touch()
    with submitted(tmp_path, ["ends", 1]) as job:
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, requeued(tmp_path)) == (1, ["requeue 1234"])
    (said,) = stderr.splitlines()
    named(said, "1234")


@pytest.mark.slow
def test_a_signal_to_torchrun_lets_the_ranks_save(tmp_path: Path, toy_cache: Path) -> None:
    long = ["train.epochs=1000", "train.eval_every=0"]
    with submitted(tmp_path, ["runs"], *TOY, *long, f"run_dir={tmp_path / 'run'}") as job:
        signal_when(job, tmp_path / "run" / "last.pt")
        _, stderr = job.communicate(timeout=200)
    state = checkpoint.load_last(tmp_path / "run" / "last.pt")
    named(stderr, str(state["step"]), str(tmp_path / "run"))
    assert job.returncode == 1, stderr  # torchrun's, which doesn't pass on 75
    assert requeued(tmp_path) == ["requeue 1234"]


@pytest.mark.slow
def test_two_nodes_train_save_at_a_signal_and_continue(tmp_path: Path, unbroken: Path) -> None:
    long = ["train.epochs=1000", "train.eval_every=0"]
    (tmp_path / "first").mkdir()
    with submitted(tmp_path / "first", ["nodes"], *TOY, *long, f"run_dir={tmp_path / 'long'}", nodes=2) as job:
        signal_when(job, tmp_path / "long" / "last.pt")
        _, stderr = job.communicate(timeout=280)
    assert job.returncode == 1, stderr
    named(stderr, str(checkpoint.load_last(tmp_path / "long" / "last.pt")["step"]), str(tmp_path / "long"))
    assert requeued(tmp_path / "first") == ["requeue 1234"]

    (tmp_path / "second").mkdir()
    killed_at(2, tmp_path / "run")
    with submitted(tmp_path / "second", ["nodes"], *TOY, f"run_dir={tmp_path / 'run'}", nodes=2) as job:
        _, stderr = job.communicate(timeout=280)
    assert job.returncode == 0, stderr
    assert requeued(tmp_path / "second") == []
    for line, expected in zip(journal(tmp_path / "run"), journal(unbroken), strict=True):
        assert line == pytest.approx(expected, rel=1e-4)


def test_a_task_of_a_sweep_trains_its_line(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "train.slurm").symlink_to(SCRIPT)
    (tmp_path / "grid").write_text("+experiment=k400 seed=0\n+experiment=k400 'data.root=a folder' seed=1\n")
    with submitted(tmp_path, ["ends", INTERRUPTED], "grid", script=SWEEP, task=2) as job:
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, stderr) == (INTERRUPTED, "")
    command = (tmp_path / "srun").read_text().splitlines()
    assert command[-5:] == ["-m", "aim.train", "+experiment=k400", "data.root=a folder", "seed=1"]


def test_a_task_of_a_sweep_without_a_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "grid").write_text("+experiment=k400\n")
    with submitted(tmp_path, ["ends", 0], "grid", script=SWEEP, task=2) as job:
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, stderr) == (2, "grid has no line 2; use --array=1-1\n")


def test_a_line_of_a_sweep_with_an_open_quote_trains_nothing(tmp_path: Path) -> None:
    (tmp_path / "grid").write_text("+experiment=k400 'data.root=a folder seed=1\n")
    with submitted(tmp_path, ["ends", 0], "grid", script=SWEEP) as job:
        _, stderr = job.communicate(timeout=60)
    assert job.returncode == 2
    assert "quote" in stderr
    assert not (tmp_path / "srun").exists()


def test_a_grids_last_line_counts_without_a_line_break(tmp_path: Path) -> None:
    """As the script's head says."""
    (tmp_path / "GRID").write_text("seed=0\nseed=1")
    (count,) = re.findall(r"--array=1-\$\((.*)\) scripts", SWEEP.read_text())
    done = subprocess.run(["bash", "-c", count], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"


def test_a_signal_reaches_the_step_of_a_sweeps_task(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "train.slurm").symlink_to(SCRIPT)
    (tmp_path / "grid").write_text("+experiment=k400\n")
    with submitted(tmp_path, ["waits", INTERRUPTED], "grid", script=SWEEP) as job:
        signal_when(job, tmp_path / "started")
        _, stderr = job.communicate(timeout=60)
    assert job.returncode == INTERRUPTED, stderr
    assert requeued(tmp_path) == ["requeue 1234"]


@pytest.mark.parametrize("code", [0, 1, 2])
def test_a_task_of_shards_does_its_portion(tmp_path: Path, code: int) -> None:
    with submitted(tmp_path, ["ends", code], "aim.features", "a folder", "out=DIR", script=SHARDS) as job:
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, stderr, requeued(tmp_path)) == (code, "", [])
    command = (tmp_path / "srun").read_text().splitlines()
    assert command == ["python", "-m", "aim.features", "a folder", "out=DIR", "shard=auto"]


def test_a_task_of_shards_that_is_run_again_alone_is_of_as_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDS", "64")
    with submitted(tmp_path, ["ends", 0], "aim.features", "out=DIR", script=SHARDS) as job:
        job.communicate(timeout=60)
    assert (tmp_path / "srun").read_text().splitlines()[-1] == "shard=auto/64"


def test_a_signalled_task_of_shards_goes_back_into_the_queue(tmp_path: Path) -> None:
    with submitted(tmp_path, ["waits", INTERRUPTED], "aim.features", "out=DIR", script=SHARDS) as job:
        signal_when(job, tmp_path / "started")
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, stderr, requeued(tmp_path)) == (INTERRUPTED, "", ["requeue 1234"])
