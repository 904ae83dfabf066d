import pytest

from aim.engine.console import Display


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
    monkeypatch.setattr("aim.engine.console.LINE_SECONDS", 0.0)
    with Display("train", 10, visible=True) as display:
        display.update(4, "loss 1.000")
    assert capsys.readouterr().out.startswith("train 4/10  loss 1.000  0s left")


def test_other_ranks_say_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim.engine.console.LINE_SECONDS", 0.0)
    with Display("train", 10, visible=False) as display:
        display.update(4, "loss 1.000")
        display.say("hello")
    assert capsys.readouterr().out == ""
