import json
from pathlib import Path

import pytest

from aim import report
from aim.errors import UserError


def make(folder: Path, name: str, seed: int, ratio: float, top1: float) -> Path:
    run_dir = folder / name
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text(f"seed: {seed}\nadapter: {{ratio: {ratio}}}\n")
    found = {"views": "8x3x1", "params_tuned": 11e6, "params_total": 97e6, "gmacs_per_view": 202.0}
    found |= {"top1": top1, "top5": 90.0, "seconds": 60.0}
    (run_dir / "results.json").write_text(json.dumps(found))
    return run_dir


def test_seeds_share_a_row_and_settings_do_not(tmp_path: Path) -> None:
    runs = [
        make(tmp_path, "a,seed=0", 0, 0.25, 80.0),
        make(tmp_path, "b", 0, 0.5, 70.0),
        make(tmp_path, "a,seed=1", 1, 0.25, 83.0),
    ]
    lines = report.table(runs).splitlines()
    assert len(lines) == 4
    assert "| a | 8x3x1 | 11.00 / 97.00 | 202.00 | 2 | 81.5 (80.0 to 83.0) |" in lines[2]
    assert "| b | 8x3x1 | 11.00 / 97.00 | 202.00 | 1 | 70.0 |" in lines[3]
    assert {line.count("|") for line in lines} == {9}


def test_runs_of_one_setting_and_one_seed_keep_rows_of_their_own(tmp_path: Path) -> None:
    runs = [make(tmp_path, name, 0, 0.25, top1) for name, top1 in (("one", 80.0), ("other", 70.0))]
    lines = report.table(runs).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| one", "| other"]


def test_what_holds_no_results_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = make(tmp_path, "done", 0, 0.25, 80.0)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "config.yaml").touch()
    (tmp_path / "eval").mkdir()  # holds folders of tests
    (tmp_path / "multirun.yaml").touch()
    report.main([str(path) for path in sorted(tmp_path.iterdir())])
    out, err = capsys.readouterr()
    assert out.splitlines() == report.table([done]).splitlines()
    assert err == f"aim: no results in {tmp_path / 'begun'}\n"


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    run_dir = make(tmp_path, "run", 0, 0.25, 80.0)
    (run_dir / "results.json").write_text("{}")
    with pytest.raises(UserError, match=r"run/results\.json lacks views, "):
        report.table([run_dir])
    (run_dir / "results.json").write_text("{")
    with pytest.raises(
        UserError, match=r"run is not a finished run: results\.json can't be read \(Expecting.*; delete it"
    ):
        report.table([run_dir])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", r"results\.json is not a result; delete it"),
        ('{"views": "8x1x1", "params_tuned": null}', r"results\.json lacks params_tuned, params_total"),
        (b"\xff\xfe", r"results\.json can't be read"),
    ],
)
def test_results_of_the_wrong_kind_are_named(tmp_path: Path, text: str | bytes, expected: str) -> None:
    run_dir = make(tmp_path, "run", 0, 0.25, 80.0)
    (run_dir / "results.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=expected):
        report.table([run_dir])


@pytest.mark.parametrize(("name", "expected"), [(".", "no results.json"), ("nowhere", "doesn't exist")])
def test_no_results_at_all_are_an_error(tmp_path: Path, name: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        report.finished([tmp_path / name])
