import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aim.engine.scores.guessing import Chance, OneAnswer
from aim.engine.telling import progress as reporting
from aim.engine.telling.progress import Journal, Report
from aim.engine.telling.watching import Watch
from tests.messages import named, refused
from tests.toy import file_size_limit


def test_the_journal_drops_what_came_after_the_step_it_continues_from(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = Journal(path, 0, 0)
    for step in (1, 2, 3):
        first(step, {"loss": float(step)})
    first.close()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # a crash in the middle of a line
    second = Journal(path, 2, 0)
    second(3, {"loss": 30.0})
    second.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 30.0},
    ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_journal_drops_a_validation_that_no_save_knows_of(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    journal = Journal(path, 0, 0)
    for epoch in (1, 2):
        journal(3 * epoch, {"epoch": float(epoch), "loss": 1.0})
        journal(3 * epoch, {"epoch": epoch, "val_top1": 50.0})
    journal.close()
    Journal(path, 6, 3).close()
    assert [(line["step"], line["epoch"], "val_top1" in line) for line in lines(path)] == [
        (3, 1, False),
        (3, 1, True),
        (6, 2, False),
    ]
    Journal(path, 6, 0).close()
    assert ["val_top1" in line for line in lines(path)] == [False, False]


def test_a_crash_while_the_journal_is_shortened_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    journal = Journal(path, 0, 0)
    journal(1, {"loss": 1.0})
    journal.close()
    before = path.read_bytes()
    original = Path.write_text

    def dies(self: Path, text: str, **more: Any) -> int:
        original(self, text[:5], **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", dies)
    with pytest.raises(KeyboardInterrupt):
        Journal(path, 1, 0)
    assert path.read_bytes() == before


def test_a_log_that_has_no_room_is_one_clear_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log.jsonl", 0, 0)
    with file_size_limit(100):
        with refused("log.jsonl", "ulimit", "command"):
            journal(1, {str(i): 0.0 for i in range(100)})
        with refused("log.jsonl", "ulimit"):
            journal.close()


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: self.now))


@contextmanager
def report_to(run_dir: Path, step: int = 0) -> Iterator[Report]:
    with Report(
        run_dir, lambda step, values: None, step=step, rested=0, total=1000, steps_per_epoch=10, batch_size=8,
        device=torch.device("cpu"), visible=True,
        watch=Watch(
            step=step, chance=Chance(0.125, 2.1), clips=8,
            warm_up=0, steps_per_epoch=10, total=1000, cure="workers",
        ),
    ) as report:  # fmt: skip
        yield report


def test_a_line_of_several_labels_a_video_is_named_by_what_it_counts(tmp_path: Path) -> None:
    with report_to(tmp_path) as report:
        report.line(10, 0.1, 1.0, [1.0, 8.0, 4.0, 1.0, 1.0])
        named(report.text, "12.5%", "50.0")
        assert "top-1" in report.text
        report.watch.chance = Chance(0.8, 0.5, several=True)
        report.line(20, 0.1, 1.0, [1.0, 8.0, 6.0, 1.0, 1.0])
    named(report.text, "80.0%", "75.0")
    assert "top-1" not in report.text
    assert "largest class" not in report.text


def test_the_speed_is_that_of_training_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second, a quarter of it waiting for data; the time between epochs is 500 seconds."""
    clock, window = Clock(monkeypatch), [1.0, 1.0, 0.0, 1.0, 1.0]
    with report_to(tmp_path) as report:
        for step in range(1, 31):
            clock.now += 1.0
            if step in (4, 8, 10, 14, 29):  # across an epoch's end, after it, and at it
                report.line(step, 0.1, step / 4, window)
            if step % 10 == 0:
                report.pause()
                clock.now += 500.0
                report.validated(step, {"top1": 50.0}, "top-1 50.00 %", improved=True, one_answer=None)
                report.resume()
        clock.now += 1.0
        report.line(31, 0.1, 31 / 4, window)  # two steps, the validation between them
    found = [line for line in lines(tmp_path / "log.jsonl") if "loss" in line]
    assert [line["step"] for line in found] == [4, 8, 10, 14, 29, 31]
    assert [line["clips_per_second"] for line in found] == pytest.approx([8.0] * 6)
    assert [line["waiting"] for line in found] == pytest.approx([0.25] * 6)


def test_a_validation_whose_predictions_are_one_class_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with report_to(tmp_path) as report:
        one = OneAnswer(label=0, taken=187, videos=187)
        report.validated(10, {"top1": 69.5}, "top-1 69.52 %", improved=True, one_answer=one)
        report.validated(20, {"top1": 80.0}, "top-1 80.00 %", improved=False, one_answer=None)
    first, second = (line for line in capsys.readouterr().out.splitlines() if "validation" in line)
    assert first.startswith("epoch 1: validation top-1 69.52 %; best so far; but 187 of 187 videos")
    assert second == "epoch 2: validation top-1 80.00 %"


def test_a_line_without_a_step_or_a_second_has_no_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    with report_to(tmp_path, step=5) as report:
        report.pause()
        report.line(5, 0.1, 0.0, [0.0] * 5)
        report.line(6, 0.1, 0.0, [1.0, 1.0, 0.0, 1.0, 1.0])
    assert [line["clips_per_second"] for line in lines(tmp_path / "log.jsonl")] == [0.0, 0.0]
