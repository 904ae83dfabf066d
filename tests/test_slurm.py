"""scripts/train.slurm, with stand-ins for SLURM's two commands."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aim.engine import checkpoint
from aim.signals import INTERRUPTED
from tests.conftest import ROOT
from tests.toy import TOY

SCRIPT = ROOT / "scripts" / "train.slurm"
SCONTROL = """
import sys
if sys.argv[1] == "show":
    print("node1\\nnode2")
else:
    open("scontrol", "a").write(" ".join(sys.argv[1:]) + "\\n")
"""
# A step that ends by itself, one that a signal ends, and the script's own command with two ranks on the CPU.
ENDS = "import sys; open('srun', 'w').write('\\n'.join(sys.argv[1:])); sys.exit({code})"
WAITS = """
import signal, sys
from pathlib import Path

def save(number, frame):
    Path("saved").touch()
    sys.exit({code})

signal.signal(signal.SIGUSR1, save)
Path("started").touch()
while True:
    signal.pause()
"""
RUNS = """
import os, sys
changes = {"--nproc-per-node=gpu": "--nproc-per-node=2", "--rdzv-endpoint=node1:29500": "--rdzv-endpoint=localhost:0"}
command = [changes.get(argument, argument) for argument in sys.argv[2:]]
os.chdir(os.environ["ROOT"])
os.execv(sys.executable, [sys.executable, "-m", "torch.distributed.run", *command])
"""


@contextmanager
def submitted(folder: Path, step: str, *overrides: str) -> Iterator["subprocess.Popen[str]"]:
    """Start the script in `folder` with an `srun` that is the Python program `step`; leave nothing of it behind."""
    programs = folder / "bin"
    programs.mkdir()
    for name, text in (("srun", step), ("scontrol", SCONTROL)):
        (programs / name).write_text(f"#!{sys.executable}\n{text}")
        (programs / name).chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "ROOT": str(ROOT),
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "1",
    }
    command = ["bash", str(SCRIPT), *overrides]
    job = subprocess.Popen(command, env=environment, cwd="/", stderr=subprocess.PIPE, text=True, start_new_session=True)
    with job:
        try:
            yield job
        finally:
            with suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGTERM)  # torchrun ends its ranks


def signal_when(job: "subprocess.Popen[str]", file: Path) -> None:
    """Do what `--signal=B:USR1@120` does, once the step has left `file`."""
    while not file.exists():
        assert job.poll() is None, job.communicate()
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)


def requeued(folder: Path) -> list[str]:
    asked = folder / "scontrol"
    return asked.read_text().splitlines() if asked.exists() else []


def test_it_asks_slurm_for_what_it_needs() -> None:
    asked = {line.removeprefix("#SBATCH ") for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")}
    assert asked >= {"--signal=B:USR1@120", "--requeue", "--open-mode=append", "--ntasks-per-node=1"}


def test_a_signal_reaches_the_step_and_the_job_goes_back_into_the_queue(tmp_path: Path) -> None:
    with submitted(tmp_path, WAITS.format(code=INTERRUPTED)) as job:
        signal_when(job, tmp_path / "started")
        _, stderr = job.communicate(timeout=60)
    assert job.returncode == INTERRUPTED, stderr
    assert (tmp_path / "saved").exists()
    assert requeued(tmp_path) == ["requeue 1234"]
    assert stderr == "stopped before the time limit; job 1234 goes back into the queue\n"


def test_a_job_that_finishes_after_the_signal_is_done(tmp_path: Path) -> None:
    with submitted(tmp_path, WAITS.format(code=0)) as job:
        signal_when(job, tmp_path / "started")
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, stderr) == (0, "")
    assert (tmp_path / "saved").exists()
    assert requeued(tmp_path) == []


@pytest.mark.parametrize("code", [0, 1, 2, INTERRUPTED])
def test_without_a_signal_the_steps_exit_code_is_the_jobs(tmp_path: Path, code: int) -> None:
    with submitted(tmp_path, ENDS.format(code=code), "+experiment=k400", "data.root=a folder") as job:
        _, stderr = job.communicate(timeout=60)
    assert (job.returncode, stderr) == (code, "")
    assert requeued(tmp_path) == []
    command = (tmp_path / "srun").read_text().splitlines()
    assert "--rdzv-endpoint=node1:29500" in command
    assert command[-4:] == ["-m", "aim.train", "+experiment=k400", "data.root=a folder"]


def test_a_signal_to_torchrun_lets_the_ranks_save(tmp_path: Path, toy_cache: Path) -> None:
    long = ["train.epochs=1000", "train.eval_every=0"]
    with submitted(tmp_path, RUNS, *TOY, *long, f"run_dir={tmp_path / 'run'}") as job:
        signal_when(job, tmp_path / "run" / "last.pt")
        _, stderr = job.communicate(timeout=200)
    state = checkpoint.load_last(tmp_path / "run" / "last.pt")
    assert f"stopped by a signal; saved at step {state['step']} of " in stderr
    assert job.returncode == 1, stderr  # torchrun's, which doesn't say 75
    assert requeued(tmp_path) == ["requeue 1234"]
