from pathlib import Path

import pytest

from aim.report.runs import RunData, distinct, read
from aim.report.table import differing, table
from tests.report.made import run_directory


def make(folder: Path, name: str, seed: int, ratio: float, top1: float, **more: object) -> RunData:
    return read(run_directory(folder / name, {"top1": top1, **more}, f"seed: {seed}\nadapter: {{ratio: {ratio}}}\n"))


def test_seeds_share_a_row_and_settings_have_a_column(tmp_path: Path) -> None:
    runs = [
        make(tmp_path, "a,seed=0", 0, 0.25, 80.0),
        make(tmp_path, "b", 0, 0.5, 70.0),
        make(tmp_path, "a,seed=1", 1, 0.25, 83.0),
    ]
    head, _, *rows = table(runs).splitlines()
    assert head.startswith("| run | ratio | views |")
    assert "| a | 0.25 | 8x3x1 | 11.00 / 97.00 | 202.00 | 2 | 40 videos | 81.5 (80.0 to 83.0) |" in rows[0]
    assert "| b | 0.5 | 8x3x1 | 11.00 / 97.00 | 202.00 | 1 | 40 videos | 70.0 |" in rows[1]
    assert len(rows) == 2
    assert {line.count("|") for line in table(runs).splitlines()} == {13}
    assert "ratio" not in table(runs[::2])  # nothing but the seed differs


def test_runs_of_one_setting_and_one_seed_keep_rows_of_their_own(tmp_path: Path) -> None:
    runs = [make(tmp_path, name, 0, 0.25, top1) for name, top1 in (("one", 80.0), ("other", 70.0))]
    assert [line.split(" | ")[0] for line in table(runs).splitlines()[2:]] == ["| one", "| other"]


def test_seeds_in_folders_of_their_own_are_called_by_their_common_name(tmp_path: Path) -> None:
    runs = distinct([make(tmp_path / part, "demo", seed, 0.25, 80.0) for seed, part in enumerate("ab")])
    (row,) = table(runs).splitlines()[2:]
    assert row.startswith("| demo | ")
    assert [line[:9] for line in table([runs[0], make(tmp_path, "c", 0, 0.5, 70.0)]).splitlines()[2:]] == [
        *("| a/demo ", "| c | 0.5"),
    ]


def test_times_of_trainings_and_of_tests_are_never_in_one_column(tmp_path: Path) -> None:
    training = make(tmp_path, "run", 0, 0.25, 80.0, seconds=5000)
    test = make(tmp_path, "test", 0, 0.25, 81.0, seconds=30, checkpoint="runs/run/best.safetensors", views="8x5x3")
    head, _, first, second = table([training, test]).splitlines()
    assert head.endswith("| training and test (s) | test alone (s) |")
    assert first.endswith("| 5000 | - |")
    assert second.endswith("| - | 30 |")
    assert table([test]).splitlines()[0].endswith("| top-5 (%) | test alone (s) |")
    assert "| 8x5x3 |" in second


def test_a_name_with_a_bar_stays_in_its_cell(tmp_path: Path) -> None:
    assert r"| a\|b | 8x3x1 |" in table([make(tmp_path, "a|b", 0, 0.25, 80.0)])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([{"adapter.ratio": 0.25, "optim.lr": 1}, {"adapter.ratio": 0.5, "optim.lr": 1}], {"ratio": ["0.25", "0.5"]}),
        ([{"a.lr": 1, "b.lr": 1}, {"a.lr": 2, "b.lr": 3}], {"a.lr": ["1", "2"], "b.lr": ["1", "3"]}),
        (
            [
                {"adapter.kind": "aim", "adapter.ratio": 0.25},
                {"adapter.kind": "lora", "adapter.rank": 8},
            ],
            {"adapter": ["aim", "lora"]},
        ),
        ([{"views.temporal": 1, "seed": 1}, {"views.temporal": 5, "seed": 2}], {}),
        ([{"backbone.weights": "/a/b/c.pt"}, {}], {"weights": ["c.pt", "-"]}),
        (  # the resize follows the size
            [{"clip.size": 64, "views.resize": 64}, {"clip.size": 112, "views.resize": 112}],
            {"size": ["64", "112"]},
        ),
        (  # it doesn't in one of them
            [{"clip.size": 64, "views.resize": 64}, {"clip.size": 112, "views.resize": 128}],
            {"size": ["64", "112"], "resize": ["64", "128"]},
        ),
        ([{"optim.lr": 0.1 + 0.2}, {"optim.lr": 1e-4}], {"lr": ["0.3", "0.0001"]}),
        ([{f"x{i}": 0 for i in range(9)}, {f"x{i}": 1 for i in range(9)}], {f"x{i}": ["0", "1"] for i in range(9)}),
    ],
)
def test_columns_are_what_differs(settings: list[dict[str, object]], expected: dict[str, list[str]]) -> None:
    assert differing(settings) == expected
    assert differing(settings, most=6) == dict(list(expected.items())[:6])


def test_scores_stand_beside_the_largest_class_and_without_top5_of_two_classes(tmp_path: Path) -> None:
    per_class = {"a": {"videos": 30, "right": 30}, "b": {"videos": 10, "right": 0}}
    older = make(tmp_path, "older", 0, 0.25, 75.0, per_class=per_class, num_classes=2)
    baseline = {"top1": 60.0, "mean_class": 50.0}
    new = make(tmp_path, "new", 0, 0.5, 70.0, baseline=baseline, num_classes=2, chose=["weights (test=best)"])
    third = make(tmp_path, "third", 0, 1.0, 70.0, baseline=baseline, num_classes=2, chose=[])
    head, _, *rows = (line.split(" | ") for line in table([older, new, third]).splitlines())
    assert head[6:10] == [
        "tested on",
        "top-1 (%)",
        "largest class (%)",
        "mean per class (%)",
    ]  # of two classes no top-5
    assert [row[6:10] for row in rows] == [
        ["40 videos", "75.0", "75.0", "79.0"],
        ["40 validation videos, which chose", "70.0", "60.0", "79.0"],
        ["40 test videos", "70.0", "60.0", "79.0"],
    ]
