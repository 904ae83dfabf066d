import pytest

from aim.ground.errors import printable, say


def test_control_characters_of_names_are_told_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\tb\x1b[2J\x7f\u202egpj.mp4\r\x9b") == r"a\tb\x1b[2J\x7f\u202egpj.mp4\r\x9b"
    plain = "caf\u00e9 \u8df3 one\ntwo \\t"
    assert printable(plain) == plain
    say("a\tb")
    assert capsys.readouterr().err == "aim: a\\tb\n"
