import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from aim.ground import config
from aim.ground.errors import RankError, UserError
from aim.ground.signals import INTERRUPTED, Interrupted
from aim.predict import verb as predict
from aim.shell import command
from tests import programs
from tests.conftest import ROOT
from tests.messages import named, refused, unnamed
from tests.toy import exits

RUN = "aim.engine.run.settings.Run"


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run aim.train's entry point on a command line that must fail; returns its stdout and stderr."""

    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["aim/train/__main__.py", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        with exits(2):
            command.entrypoint("aim.train", "config", "aim.engine.run.settings.Run")
        return capsys.readouterr()

    return run


def test_folds_of_a_sweep_have_folders_inside_of_its_own() -> None:
    words = ["+experiment=finetune", "data.root=/x/pets"]
    for fold, folder in (("2/10", "fold2of10"), ("2", "fold2")):
        more = [f"data.fold={fold}", *(["data.folds=x"] if fold == "2" else [])]
        job = command.job_of("aim.train", config.compose([*words, "run_dir='runs/a b'", *more]).copy(), RUN)
        assert (job.run_dir, job.problem) == (Path("runs/a b") / folder, None)
        assert f"run_dir='runs/a b/{folder}'" in job.overrides
    job = command.job_of("aim.train", config.compose([*words, "data.fold=12/10"]).copy(), RUN)
    named(str(job.problem), "data.fold=12/10", "data.fold=10/10")


def test_a_sweep_over_folds_alone_has_one_run_directory(shell: Callable[..., tuple[str, str]]) -> None:
    """A comma in it divides it only where -m is given."""
    wrong = ["+experiment=finetune", "data.root=x", "run_dir=runs/ut,folds", "data.fold=all/2", "train.epochs=many"]
    named(shell(*wrong)[1], "run_dir='runs/ut,folds/fold1of2'")
    named(shell("-m", *wrong)[1], "run_dir='runs/ut/fold1of2'", "run_dir='folds/fold1of2'")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["+experiment=demo", "train.batchsize=3"], ["'train.batchsize'", "train.batch_size"]),
        (["+experiment=demo", "+train.batchsize=3"], ["'train.batchsize'", "batch_size"]),
        (["+experiment=dmeo"], ["'dmeo'", "demo"]),
        (["adapter=aimm"], ["adapter", "'aimm'", "aim"]),
        (["+experiment=demo", "train.epochs=many"], ["train.epochs='many'"]),
        (["+experiment=demo", "device=tpu"], ["device='tpu'", "auto", "cuda", "cpu"]),
        (["experiment=demo"], ["+experiment=demo"]),
        (["+experiment=demo", "optim.lr_mult={head.*: 2.0}"], ["+optim.lr_mult={KEY: VALUE}"]),
        (["+experiment=demo", "train.epochs"], ["train.epochs"]),
        (["+experiment=demo", "name=a=b"], ["\"KEY='VALUE'\""]),
        (["+experiment=demo", "hydra/sweeper=optuna"], ["hydra/sweeper", "'optuna'", "basic"]),
        (["+experiment=finetune"], ["data.root=DIR"]),
        (["+experiment=demo,k400"], ["+experiment=demo,k400", "-m"]),
        (
            ["+experiment=k400", "device=cpu", "data.root=/nowhere", "init=runs/a b,seed=1/it's.safetensors"],
            ["b,seed=1/it's.safetensors"],
        ),
    ],
)
def test_bad_command_lines_get_one_line_and_exit_code_2(
    shell: Callable[..., tuple[str, str]], arguments: list[str], expected: list[str]
) -> None:
    out, err = shell(*arguments)
    assert out == ""
    *started, said = err.strip().splitlines()
    assert started in ([], [line for line in started if "PyTorch" in line][:1]), err
    named(said, "error:", *expected)


def test_debug_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["aim/train/__main__.py", "+experiment=demo", "+train.batchsize=3", "debug=true"])
    with refused("'train.batchsize'"):
        command.entrypoint("aim.train", "config", "aim.engine.run.settings.Run")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Interrupted("stopped here"), INTERRUPTED, "here"),
        (KeyboardInterrupt(), 130, "Ctrl-C"),
    ],
)
def test_ctrl_c_is_one_line_in_every_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, said: str
) -> None:
    def stop(_: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["aim/predict/__main__.py", "checkpoint=none", "input=none"])
    monkeypatch.setattr(predict, "main", stop)
    with exits(code):
        command.entrypoint("aim.predict", "predict")
    _, line = capsys.readouterr().err.splitlines()
    named(line, said)


def test_the_shell_sees_the_exit_code_and_composing_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aim.train", "+experiment=demo"]
    shown, failed = (
        subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        for more in (["--cfg", "job"], ["train.epochs=0"])
    )
    out, err = shown.communicate(timeout=120)
    assert shown.returncode == 0, err
    assert OmegaConf.create(out).name == "demo"
    out, err = failed.communicate(timeout=120)
    assert (failed.returncode, out) == (2, "")
    loading, error = err.splitlines()
    named(loading, "aim.train", "demo", "PyTorch")
    named(error, "error:", "train.epochs=0", "1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rank", "local", "expected"),
    [("0", "0", "aim: error: fix it\n"), ("9", "1", ""), ("8", "0", "aim: error: fix it\n")],
)
def test_what_all_ranks_of_a_machine_find_is_said_by_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, local: str, expected: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("LOCAL_RANK", local)
    with exits(2), command.reported(debug=False):
        raise UserError("fix it")
    assert capsys.readouterr().err == expected
    with exits(1), command.reported(debug=False):
        raise RankError("rank 1 lost contact", code=1)
    assert capsys.readouterr().err == "aim: error: rank 1 lost contact\n"


def sweep(tmp_path: Path, *overrides: str) -> "subprocess.Popen[str]":
    """Start a sweep of a verb that ends with its seed as exit code."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [*programs.command("verb"), "-m", "+experiment=demo", *overrides]
    return subprocess.Popen(
        line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_sweep_runs_each_job_in_a_process_of_its_own_and_names_those_that_failed(tmp_path: Path) -> None:
    process = sweep(tmp_path, "name='a b,c=1'", "seed=3,0,9,2")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    jobs = [line.rsplit(maxsplit=2) for line in out.splitlines()[:4]]
    assert [job[0] for job in jobs] == ["3 a b,c=1", "0 a b,c=1", "9 a b,c=1", "2 a b,c=1"]
    assert len({job[1] for job in jobs} | {str(process.pid)}) == 5
    # Each counts its time from its own start, and they start a second of imports after each other.
    assert all(float(later[2]) > float(job[2]) + 0.1 for job, later in itertools.pairwise(jobs))
    table = [re.split(r"\s{2,}", line) for line in out.splitlines()[5:]]
    assert [row[:2] for row in table] == [
        ["job", "state"],
        ["seed=3", "exit code 3"],
        ["seed=0", "done"],
        ["seed=9", "killed by SIGKILL"],
        ["seed=2", "exit code 2"],
    ]
    *begun, error = [line for line in err.splitlines() if "PyTorch" not in line]
    assert [re.findall(r"\d", line) for line in begun] == [[str(i), "4", seed] for i, seed in enumerate("3092", 1)]
    named(error, "error:", "seed=3", "seed=9", "SIGKILL", "seed=2")
    unnamed(error, "seed=0")


def test_a_signal_stops_the_job_and_the_sweep(tmp_path: Path) -> None:
    process = sweep(tmp_path, "seed=0,8,1")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("8 "):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED
    assert [line.split()[:2] for line in out.splitlines()[2:]] == [
        ["seed=0", "done"],
        ["seed=8", "interrupted,"],
        ["seed=1", "not"],
    ]
    named(err.splitlines()[-1], "2", "3")
    unnamed(err, "Traceback")


def test_all_jobs_of_a_sweep_are_checked_before_the_first_one_starts(
    shell: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    _, err = shell("-m", "+experiment=demo", "train.epochs=1,0,x")
    assert err == (
        "aim: error: train.epochs=0: train.epochs=0 must be 1 or more; "
        "train.epochs=x: train.epochs='x' is not a whole number or auto\n"
    )


def test_all_settings_that_lack_a_value_are_named_at_once() -> None:
    with refused("checkpoint=VALUE", "out=VALUE"):
        command.require_all(config.compose([], "export"))
    command.require_all(config.compose(["checkpoint=x", "out=y"], "export"))


def test_names_that_are_not_utf8_are_read_and_printed_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"odd \xff.mp4"), encoding="utf-8"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="utf-8"))
    command.take_any_name()
    name = sys.stdin.read()
    assert name == os.fsdecode(b"odd \xff.mp4")
    print(json.dumps(name, ensure_ascii=False), flush=True)
    assert json.loads(printed.getvalue()) == name
    monkeypatch.undo()


def test_names_are_read_where_there_is_no_locale() -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    order = [sys.executable, "-m", "aim.train", "data.root=\u00e9", "--cfg", "job"]
    done = subprocess.run(order, cwd=ROOT, capture_output=True, env={**os.environ, **plain}, timeout=60)
    assert "root: \u00e9\n" in done.stdout.decode()


@pytest.mark.parametrize(
    "content", [b"a: [1, 2\nb: }", b"\xff\xfe\x00", b"defaults: 5\n", b"a: 1\na: 2\n", b"# @package x.!y z\na: 1\n"]
)
def test_a_config_of_ones_own_that_is_none_is_named(
    shell: Callable[..., tuple[str, str]], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "odd.yaml").write_bytes(content)
    named(shell("--config-dir", str(tmp_path), "+experiment=odd")[1], str(tmp_path), "YAML")


def test_what_the_system_refuses_is_a_line_but_for_ranks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with exits(2), command.reported(debug=False):
        Path("n" * 300).stat()
    named(capsys.readouterr().err, "n" * 300, "debug=true")
    for debug, rank, error in (
        (True, None, OSError(2, "no", "x")),
        (False, "0", OSError(2, "no", "x")),
        (False, None, OSError("x")),
    ):
        if rank is not None:
            monkeypatch.setenv("RANK", rank)
        with pytest.raises(OSError, match="x"), command.reported(debug=debug):
            raise error
        monkeypatch.delenv("RANK", raising=False)
