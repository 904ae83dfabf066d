from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from numpy.typing import NDArray
from PIL import Image, ImageDraw, features

from aim.pages import letters
from aim.study.shown import figures
from tests.conftest import ROOT

JUMP = "\u8df3\u9ad8"  # two Chinese characters
CACHED = (letters.runs, letters.file_of, letters.others, letters.tell, letters.check_order, letters.has)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of fonts besides the first one."""
    monkeypatch.setattr(letters, "folders", lambda: [tmp_path])
    for each in CACHED:
        each.cache_clear()
    yield tmp_path
    for each in CACHED:
        each.cache_clear()


def make_font(path: Path, characters: str) -> None:
    """A font with a black square for each of these, twice as large as the box for all others."""

    def square(side: int) -> object:
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, side), (side, side), (side, 0)):
            pen.lineTo(corner)
        pen.closePath()
        return pen.glyph()

    names = [f"uni{ord(each):X}" for each in characters]
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap(dict(zip(map(ord, characters), names, strict=True)))
    builder.setupGlyf({".notdef": square(400)} | {name: square(800) for name in names})
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", *names), (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


def drawn(text: str, anchor: str = "ls", x: int = 20) -> NDArray[np.bool_]:
    """Where there is ink."""
    image = Image.new("L", (400, 80), 255)
    letters.write(ImageDraw.Draw(image), (x, 40), text, 20, 0, anchor)
    return np.asarray(image) < 128


def test_characters_are_drawn_in_a_font_that_has_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "AAA Sans.ttf").write_bytes(b"none")  # a damaged one
    make_font(folder / "Squares.ttf", JUMP)
    assert letters.width(JUMP, 20) == 40
    ink = drawn(JUMP)
    assert ink.sum() == pytest.approx(2 * 16 * 16, rel=0.1)
    assert not ink[41:].any()
    mixed = drawn(f"jump {JUMP}!")
    start = round(letters.width("jump ", 20))
    assert mixed[24:40, 21 + start : 55 + start].mean() > 0.7
    for anchor, x in (("ls", 20), ("ms", 200), ("rs", 380)):
        columns = np.flatnonzero(drawn(f"jump {JUMP}", anchor, x).any(0))
        middle = x + {"l": 0.5, "m": 0, "r": -0.5}[anchor[0]] * letters.width(f"jump {JUMP}", 20)
        assert columns.mean() == pytest.approx(middle, abs=4)
    assert figures.families(f'{{"task": "{JUMP}"}}') == ["DejaVu Sans", "Squares"]
    assert capsys.readouterr().err == ""


def test_what_no_font_has_is_said_once_with_the_package_that_brings_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (JUMP, f"{JUMP}\u8fd0", "run \U0001f3c3", "\u0926\u094c\u0921\u093c"):
        assert drawn(text).any()
    packages = [line.rpartition("package ")[2] for line in capsys.readouterr().err.splitlines()]
    assert [each.partition(",")[0] for each in packages] == ["fonts-noto-cjk", "fonts-symbola", "fonts-noto-core"]


@pytest.mark.parametrize(
    "text", ["plain", "cafe\u0301", "\u0416\u03b2", "\u05e8\u05d9\u05e6\u05d4", "\u062c\u0631\u064a", "a\u200db\ufe0f"]
)
def test_scripts_of_the_first_font_need_no_other(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert drawn(text).any()
    assert len(letters.runs(text)) == 1
    assert capsys.readouterr().err == ""


def test_accents_stand_on_their_letters(folder: Path) -> None:
    assert (drawn("cafe\u0301") == drawn("caf\xe9")).all()
    make_font(folder / "Squares.ttf", f"{JUMP}\u0301")
    assert [part for part, _ in letters.runs(f"a{JUMP}\u0301b")] == ["a", f"{JUMP}\u0301", "b"]


def test_letters_from_right_to_left_are_in_order_or_it_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if features.check("raqm"):
        forced = drawn("\u202d\u05d1\u05d0\u202c")  # from left to right, in the reverse order
        assert (drawn("\u05d0\u05d1") == forced).mean() > 0.99
    monkeypatch.setattr(features, "check", lambda _: False)
    letters.runs.cache_clear()
    letters.check_order.cache_clear()
    for text in ("\u05d0", "\u05d1"):
        letters.runs(text)
    (line,) = capsys.readouterr().err.splitlines()
    assert "libfribidi0" in line


def test_a_text_is_cut_to_its_room(folder: Path) -> None:
    make_font(folder / "Squares.ttf", JUMP)
    assert letters.cut("short", 20, 100) == "short"
    assert letters.cut("pretending to pour", 20, 100) == "pretend..."
    assert letters.cut("a folder/video.mp4", 20, 130, keep_end=True) == "...video.mp4"
    assert letters.cut(JUMP * 50, 20, 100) == f"{JUMP * 2}..."[-7:]
    assert letters.cut("anything", 20, 1) == "..."


def test_a_machine_without_fonts_draws_in_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(file: str, *_: object, **__: object) -> object:
        raise OSError(file)

    letters.first.cache_clear()
    monkeypatch.setattr("PIL.ImageFont.truetype", none)
    assert letters.first() == ""
    monkeypatch.undo()
    letters.first.cache_clear()
    assert letters.font("", 20).getname() == ("Aileron", "Regular")


def test_all_text_in_pictures_goes_through_one_room() -> None:
    """Another font would have other missing letters, and not report them."""
    files = [file for file in (ROOT / "aim").rglob("*.py") if "ImageFont" in file.read_text(encoding="utf-8")]
    assert files == [ROOT / "aim" / "pages" / "letters.py"]
