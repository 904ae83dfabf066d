from pathlib import Path

import pytest

from aim.report import data
from aim.report import verb as report
from aim.report.page import render
from aim.report.runs import RunData, distinct, read
from aim.report.table import table
from tests.report.made import run_directory


def of(folder: Path, name: str, train: str = "t" * 64, val: str = "v" * 64, root: str = "/videos/birds") -> RunData:
    results = {"data_hash": val, "identity": {"train_hash": train, "data_hash": val}}
    return read(run_directory(folder / name, results, f"seed: {name[-1]}\ndata: {{root: {root}}}\n"), whole=True)


def test_runs_of_one_list_have_no_column_of_data_wherever_it_lies(tmp_path: Path) -> None:
    runs = [of(tmp_path, "a0"), of(tmp_path, "b1", root="/moved/birds")]
    assert (data.column(runs), data.warning(runs)) == ([], "")
    assert "Careful" not in render(runs)
    assert "| data |" not in table(runs)


@pytest.mark.parametrize(
    ("other", "shown", "warned"),
    [
        ({"train": "u" * 64}, ["birds, training tttttttt", "birds, training uuuuuuuu"], "trained"),
        ({"val": "w" * 64}, ["birds, test vvvvvvvv", "birds, test wwwwwwww"], "tested"),
        ({"root": "/videos/other"}, ["birds", "other"], ""),  # copies of the same videos
    ],
)
def test_differing_data_are_the_first_column_and_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[str, str], shown: list[str], warned: str
) -> None:
    runs = distinct([of(tmp_path, "a0"), of(tmp_path, "b0", **other)])
    head, _, *rows = table(runs).splitlines()
    assert head.startswith("| run | data | ")
    assert [row.split(" | ")[1] for row in rows] == shown
    report.main([*(str(run.path) for run in runs), f"out={tmp_path / 'page.html'}"])
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert [f"{warned} on different videos" in line for line in told] == [True] * bool(warned)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert ("Careful" in page) is bool(warned)
    assert all(text in page for text in shown)


def test_seeds_share_no_row_where_their_videos_differ(tmp_path: Path) -> None:
    runs = [of(tmp_path, "x,seed=0"), of(tmp_path, "x,seed=1", train="u" * 64)]
    assert len(table(runs).splitlines()) == 4
    assert len(table([runs[0], of(tmp_path / "more", "x,seed=1")]).splitlines()) == 3


def test_what_an_older_run_does_not_tell_is_no_difference(tmp_path: Path) -> None:
    older = read(run_directory(tmp_path / "older", {}, "seed: 1"), whole=True)
    assert data.column([of(tmp_path, "a0"), older]) == []
