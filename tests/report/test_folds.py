"""Folds of one setting as one result."""

import json
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest

from aim.report import page, verb
from aim.report.folds import pooled
from aim.report.runs import RunData, read, reportable
from aim.report.table import table
from tests.messages import named, refused
from tests.report.made import predicted, run_directory


def fold(folder: Path, number: int, count: int, right: str, lr: float = 0.1) -> Path:
    """A fold of two classes in whose test a 1 stands for each right video."""
    label = [i % 2 for i in range(len(right))]
    answers = [own if sign == "1" else 1 - own for own, sign in zip(label, right, strict=True)]
    found = predicted(label, [[0.9 - 0.8 * answer, 0.1 + 0.8 * answer] for answer in answers])
    found.path[:] = [f"{number}{i}" for i in range(len(right))]
    result = {
        "top1": 100 * right.count("1") / len(right), "num_videos": len(right), "seconds": 5.0,
        "data_hash": f"h{number}", "identity": {"train_hash": f"t{number}", "data_hash": f"h{number}"},
    }  # fmt: skip
    settings = f"data: {{fold: {number}/{count}}}\noptim: {{lr: {lr}}}\n"
    return run_directory(folder / f"fold{number}of{count}", result, settings, found)


def folds(folder: Path, *rights: str) -> list[RunData]:
    for number, right in enumerate(rights, 1):
        fold(folder, number, len(rights), right)
    return [read(path, whole=True) for path in reportable([folder])]


RIGHTS = ("1111", "1100", "1110", "11100011")


def test_folds_are_one_result_of_all_their_videos(tmp_path: Path) -> None:
    (run,), said = pooled(folds(tmp_path / "sweep", *RIGHTS))
    each = [100 * right.count("1") / len(right) for right in RIGHTS]
    assert run.results is not None
    assert run.found is not None
    found = run.results["folds"]
    assert (run.results["top1"], found["mean"]) == (pytest.approx(mean(each)), pytest.approx(mean(each)))
    assert found["sd"] == pytest.approx(stdev(each), abs=1e-3)
    assert (run.results["num_videos"], run.results["seconds"]) == (20, 20.0)
    assert found["of_all_videos"] == 70.0  # 14 of 20, by hand: not the mean over folds
    assert run.found.right.sum() == 14
    low, high = found["interval"]
    assert low < 70 < high
    assert run.results["per_class"] == {"class 0": {"videos": 10, "right": 8}, "class 1": {"videos": 10, "right": 6}}
    assert (said, run.name) == ([], "sweep")
    assert f"| 20 videos in 4 folds | {mean(each):.1f} (sd {stdev(each):.1f}) |" in table([run])
    text = page.render([run])
    assert f"mean over 4 folds, standard deviation {stdev(each):.1f} %; all 20 videos together: 70.0 %, " in text
    assert f"{low:.1f} to {high:.1f} % (95 % bootstrap interval over videos)" in text
    assert text.count('id="run1"') == 1


def test_a_fold_without_a_result_and_folds_of_other_settings_are_named(tmp_path: Path) -> None:
    runs = folds(tmp_path, *RIGHTS)
    found, said = pooled(runs[1:])
    assert len(found) == 1
    named(said[0], "1", "4", "1/4")
    other = read(fold(tmp_path / "other", 1, 4, "1111", lr=0.2), whole=True)
    found, said = pooled([*runs[1:], other])
    assert len(found) == 2
    named(" ".join(said), "1/4", "lr=0.1", "0.2")


def test_folds_that_have_tested_the_same_video_are_refused(tmp_path: Path) -> None:
    one, two, *_ = folds(tmp_path, *RIGHTS)
    assert two.found is not None
    two.found.path[0] = "10"
    with refused(str(one.path), str(two.path), "1", "10"):
        pooled([one, two])


def test_seeds_of_folds_share_a_row_and_other_runs_stay(tmp_path: Path) -> None:
    runs = folds(tmp_path / "a", *RIGHTS)
    alone = read(run_directory(tmp_path / "b", {}, "optim: {lr: 0.1}\n"), whole=True)
    found, said = pooled([alone, *runs])
    assert [run.name for run in found] == ["b", "a"]
    assert said == []
    assert np.isclose(len(table(found).splitlines()), 4)


def test_the_report_of_a_sweep_leaves_its_pooled_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folds(tmp_path / "sweep", *RIGHTS)
    verb.main([str(tmp_path / "sweep")])
    left = json.loads((tmp_path / "sweep" / "folds.json").read_text(encoding="utf-8"))
    assert left["folds"]["count"] == 4
    assert (tmp_path / "sweep" / "report.html").exists()
    assert "in 4 folds" in capsys.readouterr().out
