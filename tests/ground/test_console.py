import re
from types import SimpleNamespace

import pytest

from aim.ground import console
from aim.ground.console import Display
from tests.messages import named


def test_no_markup_in_lines_and_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with Display("read [x]", 2, visible=True) as display:
        display.update(1, "a [/x] :car:")
        display.say("b [x] [/x] :car:")
    shown = capsys.readouterr().out
    for text in ("read [x]", "a [/x] :car:", "b [x] [/x] :car:"):
        assert text in shown


def test_the_display_prints_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aim.ground.console.LINE_SECONDS", 0.0)
    with Display("train", 10, visible=True) as display:
        display.update(4, "loss 1.000")
    assert capsys.readouterr().out == "train 4/10  loss 1.000\n"


def test_the_time_left_is_told_once_it_means_something(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    with Display("train", 10, visible=True) as display:
        for step, seconds in enumerate([60.0, 4.0, 2.0, 2.0, 4.0], 1):  # the first one starts processes, and compiles
            now[0] += seconds
            display.update(step, "x")
    said = ["train 1/10  x", "train 2/10  x", "train 3/10  21s left  x", "train 4/10  16s left  x"]
    assert capsys.readouterr().out.splitlines() == [*said, "train 5/10  15s left  x"]


def test_other_ranks_say_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim.ground.console.LINE_SECONDS", 0.0)
    with Display("train", 10, visible=False) as display:
        display.update(4, "loss 1.000")
        display.say("hello")
    assert capsys.readouterr().out == ""


def test_bar_counter_and_time_left_are_shown_on_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    text = "loss 1.234  top-1 56.1 %  12.3 clips/s  waiting for data 12%  lr 3.0e-03"
    monkeypatch.setattr(console, "PACED_SECONDS", 0.0)
    with Display("train", 30000, visible=True) as display:
        for done in (1232, 1233, 1234):
            display.update(done, text)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    (line,) = {line.strip() for line in re.split(r"[\r\n]", shown) if "1234/30000" in line}
    assert len(line) <= 80
    assert re.fullmatch(r"train \S+  ?1234/30000 \d+s left loss 1.234  top-1 56.1 %  12.3 clips/s.*", line)


def test_what_concludes_ends_with_a_line_however_short(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("train", 2, visible=True, concludes=True) as display:
        display.update(1, "loss 2")
        display.update(2, "loss 1")
    assert capsys.readouterr().out == "train 2/2  0s left  loss 1\n"


def test_a_step_that_takes_longer_than_half_a_minute_is_told_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Display, "_watch", lambda self: None)  # the thread that looks once a second
    with Display("train", 9, visible=True, hint="take a smaller model") as display:
        now[0] += 29
        assert not display.look()
        display.update(1, "")
        now[0] += 29
        assert not display.look()
        display.pause()
        now[0] += 500
        assert not display.look()
        display.resume()
        now[0] += 31
        assert display.look()
    said = capsys.readouterr().out.splitlines()
    named(said[-1], "train:", "2", "smaller", "model")


def test_the_watch_ends_once_it_has_spoken_or_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(Display, "look", lambda self: looks.append(1) or len(looks) == 3)
    display = Display("train", 9, visible=True, hint="x")
    monkeypatch.setattr(display.closed, "wait", lambda seconds: False)
    display._watch()
    assert len(looks) == 3
    monkeypatch.undo()
    display.closed.set()
    display._watch()
