from pathlib import Path

import pytest

from aim.report import verb as report
from aim.report.runs import read
from aim.report.table import table
from tests.report.made import run_directory
from tests.toy import exits


def test_a_run_has_its_page_in_its_folder_and_its_line_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = run_directory(tmp_path / "run", {}, "seed: 0")
    report.main([str(run_dir)])
    out, err = capsys.readouterr()
    assert out == table([read(run_dir)]) + "\n"
    assert err.startswith(f"aim: {run_dir / 'report.html'} is written")
    assert "80.00" in (run_dir / "report.html").read_text(encoding="utf-8")


def test_what_is_no_run_is_left_out_and_what_still_trains_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_directory(tmp_path / "done", {}, "seed: 0")
    run_directory(tmp_path / "begun", None, "train: {epochs: 5}")
    (tmp_path / "eval").mkdir()  # holds folders of tests
    (tmp_path / "multirun.yaml").touch()
    monkeypatch.chdir(tmp_path)
    report.main([str(path) for path in sorted(tmp_path.iterdir())])
    out, err = capsys.readouterr()
    assert out == table([read(done)]) + "\n"
    assert err.splitlines()[0] == "aim: begun has no results yet: epoch 3.0 of 5, validation top-1 80.0 %"
    assert "still training" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_tests_without_a_config_are_reported_beside_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = run_directory(tmp_path / "run", {"seconds": 900}, "seed: 0")
    test = run_directory(tmp_path / "test", {"views": "8x5x3", "checkpoint": "x", "seconds": 30}, "")
    (test / "config.yaml").unlink()
    report.main([str(training), str(test), f"out={tmp_path / 'deep' / 'page.html'}"])
    assert [line.split(" | ")[-2:] for line in capsys.readouterr().out.splitlines()[2:]] == [
        ["900", "- |"],
        ["-", "30 |"],
    ]
    assert (tmp_path / "deep" / "page.html").is_file()


def test_help_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    report.main(["--help"])
    out, err = capsys.readouterr()
    assert "python -m aim.report runs/demo " in out
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "name run directories"),
        (["--hlp"], "name run directories"),
        (["nowhere"], "nowhere doesn't exist"),
        (["run", "data.root=nowhere"], "data.root=nowhere is not a folder"),
        (["run", "out=run/config.yaml/page.html"], "can't be written: a file is where a folder should be"),
        (["out=page.html"], "name run directories"),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: str,
) -> None:
    run_directory(tmp_path / "run", {}, "seed: 0")
    monkeypatch.chdir(tmp_path)
    with exits(2):
        report.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
