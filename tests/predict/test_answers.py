import csv
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from aim.data.windows import Span
from aim.engine.scores.tasks import MultiLabel
from aim.engine.trained.answer import Answer, Asking, as_json
from aim.engine.trained.timeline import Timeline
from aim.ground import files
from aim.predict.answers import moment, show, write, write_segments

CLASSES = ["[/walk]", "[run] :car:", "sit"]
PROBABILITY = torch.tensor([0.25, 0.7, 0.05])
LINE = Timeline(Path("a.mp4"), 4.0, [Span(0, 2), Span(2, 4)], torch.tensor([[0.9, 0.1, 0.0], [0.3, 0.3, 0.4]]))


def test_json_lines_have_the_label_and_what_it_was_chosen_from() -> None:
    (found,) = Asking(CLASSES, 2, None).answers("a.mp4", PROBABILITY)
    labels = [{"label": "[run] :car:", "probability": 0.7}, {"label": "[/walk]", "probability": 0.25}]
    assert json.loads(as_json(found)) == {"path": "a.mp4", "label": "[run] :car:", "labels": labels}
    (unsure,) = Asking(CLASSES, 2, 0.71).answers("a.mp4", PROBABILITY)
    assert json.loads(as_json(unsure)) == {"path": "a.mp4", "label": None, "labels": labels}
    assert json.loads(as_json(Answer("b.mp4", error="torn"))) == {"path": "b.mp4", "error": "torn"}
    spans = [json.loads(as_json(x)) for x in Asking(CLASSES, 5, None).answers("a.mp4", LINE)]
    assert [(x["start"], x["end"], x["label"], len(x["labels"])) for x in spans] == [
        (0, 2, "[/walk]", 3),
        (2, 4, "sit", 3),
    ]


def test_csv_has_a_row_an_answer(tmp_path: Path) -> None:
    found = [
        *Asking(CLASSES, 2, None).answers("a, b.mp4", PROBABILITY),
        *Asking(CLASSES, 1, 0.5).answers("a.mp4", LINE),
        Answer("c\udcff.mp4", error="torn"),
    ]
    write(tmp_path / "out.csv", found, CLASSES)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    columns = ["path", "start", "end", "label", "error", "label_1", "probability_1", "label_2", "probability_2"]
    assert rows == [
        [*columns, "probability:[/walk]", "probability:[run] :car:", "probability:sit"],
        ["a, b.mp4", "", "", "[run] :car:", "", "[run] :car:", "0.7000", "[/walk]", "0.2500",
         "0.250000", "0.700000", "0.050000"],
        ["a.mp4", "0.000", "2.000", "[/walk]", "", "[/walk]", "0.9000", "", "", "0.900000", "0.100000", "0.000000"],
        ["a.mp4", "2.000", "4.000", "none of these", "", "sit", "0.4000", "", "", "0.300000", "0.300000", "0.400000"],
        [r"c\udcff.mp4", "", "", "", "torn", "", "", "", "", "", "", ""],
    ]  # fmt: skip
    write(tmp_path / "out.jsonl", found, CLASSES)
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(as_json(x)) for x in found]


def test_segments_are_rows_of_start_end_label_and_mean_probability(tmp_path: Path) -> None:
    found: list[tuple[str, Timeline | str]] = [("a, b.mp4", LINE), ("c\udcff.mp4", "torn")]
    write_segments(tmp_path / "s.csv", found, Asking(CLASSES, 5, 0.5))
    with (tmp_path / "s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["path", "start", "end", "label", "probability", "error"],
        ["a, b.mp4", "0.000", "2.000", "[/walk]", "0.9000", ""],
        ["a, b.mp4", "2.000", "4.000", "none of these", "0.4000", ""],
        [r"c\udcff.mp4", "", "", "", "", "torn"],
    ]
    write_segments(tmp_path / "s.jsonl", found, Asking(CLASSES, 5, 0.5))
    lines = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [list(line.values())[1:] for line in lines] == [[0, 2, "[/walk]", 0.9], [2, 4, None, 0.4], ["torn"]]


def test_a_file_that_is_not_whole_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out.csv").write_text("before")

    class Torn(Answer):
        @property
        def label(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out.csv", [*Asking(CLASSES, 2, None).answers("a", PROBABILITY), Torn("b")], CLASSES)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv", "before")]
    files.check_writable(tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "before"


@pytest.mark.parametrize("width", [40, 80, 400])
def test_the_table_fits_the_terminal_and_keeps_names_whole(width: int) -> None:
    console = Console(width=width, force_terminal=True, no_color=True, markup=False, emoji=False, highlight=False)
    path = "a folder/" + "long" * 30 + "[x] :car:.mp4"
    classes = ["[/walk]", "[run] :car:", "a label that is far too long for any of the narrow terminals"]
    with console.capture() as capture:
        show(console, path, torch.tensor([0.25, 0.05, 0.7]), Asking(classes, 5, None))
        show(console, "a.mp4", LINE, Asking(CLASSES, 5, 0.5))
        show(console, path, "no [x] in [/x]", Asking(classes, 5, None))
    lines = capture.get().splitlines()
    assert [line for line in lines if line.strip() == path] == [path] * 2
    rows = [line for line in lines if "%" in line]
    assert len(rows) == 3 + 2  # no more than there are classes; a segment each
    assert all(len(line) <= width for line in rows)
    assert rows[0].endswith(" 70.0 %")
    assert ("far too long for any of the narrow terminals" in rows[0]) == (width == 400)
    assert "none of these" in rows[4] or width == 40
    assert lines[-1] == "  could not be read: no [x] in [/x]"
    bars = [row.count("\N{FULL BLOCK}") for row in rows[:3]]
    assert bars == ([9, 3, 0] if width == 40 else [16, 6, 1])  # of 14 and 24


def test_times_are_written_to_a_tenth_of_a_second() -> None:
    assert [moment(x) for x in (0, 65.25, 59.96, 3 * 3600 + 61)] == ["0:00:00.0", "0:01:05.2", "0:01:00.0", "3:01:01.0"]


def test_of_several_labels_all_that_are_given_are_told(tmp_path: Path) -> None:
    many, task = torch.tensor([0.6, 0.3, 0.7]), MultiLabel(1.0)
    (found,) = Asking(CLASSES, 1, None, task).answers("a.mp4", many)
    line = json.loads(as_json(found))
    assert line["label"] == ["sit", "[/walk]"]
    assert [each["label"] for each in line["labels"]] == ["sit", "[/walk]"]  # more than the one best
    (own,) = Asking(CLASSES, 3, torch.tensor([0.7, 0.2, 0.8]), task).answers("a.mp4", many)
    assert (own.label, own.shown) == (["[run] :car:"], [("[run] :car:", pytest.approx(0.3))])
    (none,) = Asking(CLASSES, 1, 0.9, task).answers("a.mp4", many)
    assert json.loads(as_json(none))["label"] == []
    assert none.shown[0] == ("none of these", None)
    write(tmp_path / "out.csv", [found, own, none], CLASSES)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["sit,[/walk]", "[run] :car:", "none of these"]
    console = Console(width=80, record=True)
    show(console, "a.mp4", many, Asking(CLASSES, 5, torch.tensor([0.7, 0.2, 0.8]), task))
    lines = [line.rstrip() for line in console.export_text().splitlines()[1:]]
    assert [line.startswith("*") for line in lines] == [False, False, True]
