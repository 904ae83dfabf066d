import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim.data.windows import Span
from aim.engine.trained.answer import Asking
from aim.engine.trained.timeline import Timeline
from aim.pages.drawing import Box, Drawing, Words
from aim.predict import picture
from aim.predict.picture import columns, draw, fits, main_labels, palette_of, ticks, write
from tests.pages.browser import look

CLASSES = ["<b>walk</b>", "run", "sit"]
SPANS = [Span(i, i + 2) for i in range(3)]
LINE = Timeline(Path("a & b.mp4"), 4.0, SPANS, torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0]]))

ABOUT = "windows of 2 s every 1 s"


def drawn(at_least: float | None = None) -> Drawing:
    return draw("a & b.mp4", LINE, Asking(CLASSES, 1, at_least), ABOUT, palette_of([LINE], at_least))


def test_the_picture_says_what_its_windows_and_colours_are() -> None:
    words = [x.text for x in drawn(0.75).shapes if isinstance(x, Words)]
    assert ABOUT in words
    assert [text for text in words if "%" in text] == ["0 %", "100 %, of each label in its colour"]
    assert any(text.startswith("none of these") and "0.75" in text for text in words)
    assert not any("none of these" in text for text in (x.text for x in drawn().shapes if isinstance(x, Words)))
    many = Timeline(Path("a.mp4"), 9.0, [Span(i, i + 1) for i in range(9)], torch.eye(9))
    words = [
        x.text
        for x in draw("a.mp4", many, Asking(list("abcdefghi"), 1, None), ABOUT, palette_of([many], None)).shapes
        if isinstance(x, Words)
    ]
    assert "2 other labels" in words
    assert words.count("h") == 0


def test_boxes_lie_where_labels_are() -> None:
    shapes = drawn().shapes
    boxes = [x for x in shapes if isinstance(x, Box) and x.hint]
    assert [x.hint for x in boxes[:2]] == [
        "<b>walk</b>, 0:00:00.0 to 0:00:02.5, 85.0 %",
        "run, 0:00:02.5 to 0:00:04.0, 70.0 %",
    ]
    left, right = boxes[:2]
    assert left.x + left.width == pytest.approx(right.x)
    assert left.width / right.width == pytest.approx(2.5 / 1.5)
    assert len(boxes) == 2 + 2 * 3  # the segments, and two labels in three windows; nobody sits
    assert [x.opacity for x in boxes[2:]] == pytest.approx([0.9, 0.8, 0.3, 0.1, 0.2, 0.7])
    unsure = [x for x in drawn(at_least=0.75).shapes if isinstance(x, Box) and x.hint]
    assert unsure[1].hint.startswith("none of these, ")


def test_a_long_time_line_is_averaged_to_the_width_of_the_picture() -> None:
    n = 10 * picture.COLUMNS
    probability = torch.linspace(0, 1, n)[:, None].repeat(1, 2)
    long = Timeline(Path("a.mp4"), n + 1.0, [Span(i, i + 2) for i in range(n)], probability)
    bounds, means = columns(long)
    assert len(bounds) == len(means) + 1 == picture.COLUMNS + 1
    assert (bounds[0], bounds[-1]) == (0, n + 1)
    torch.testing.assert_close(means[0], probability[:10].mean(0))
    assert (
        len(draw("a.mp4", long, Asking(CLASSES[:2], 1, None), ABOUT, palette_of([long], None)).shapes)
        < 3 * picture.COLUMNS
    )


def test_the_labels_seen_longest_are_shown() -> None:
    assert main_labels(LINE, None) == [0, 1]
    assert main_labels(LINE, 0.75) == [0]
    assert main_labels(LINE, 0.95) == [0]  # none of them is seen: the most probable
    assert ticks(10800) == [0, 1800, 3600, 5400, 7200, 9000, 10800]
    assert ticks(0.04) == [0]


def test_the_page_shows_names_as_they_are_and_needs_no_network(tmp_path: Path) -> None:
    write(tmp_path / "a.html", [("a & b.mp4", LINE), ("c.mp4", LINE)], Asking(CLASSES, 1, None), ABOUT)
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert not re.search("http|<script|<link|url\\(", text)
    opened, said = list[str](), list[str]()
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: opened.append(tag)  # type: ignore[method-assign]
    parser.handle_data = said.append  # type: ignore[method-assign]
    parser.feed(text)
    assert opened.count("svg") == 2
    assert "b" not in opened
    assert said.count("<b>walk</b>") == 2
    assert "a & b.mp4" in said


def test_a_phone_scrolls_the_time_line_and_not_the_page(browser: Any, tmp_path: Path) -> None:
    write(tmp_path / "a.html", [("a & b.mp4", LINE)], Asking(CLASSES, 1, None), ABOUT)
    tab = look(browser, tmp_path / "a.html", 390, "dark")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate("document.querySelector('div').scrollWidth") > 390
    assert tab.wrong == []
    tab.close()


def test_the_png_has_the_colours_of_the_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.png", [("a & b.mp4", LINE)], Asking(CLASSES, 1, None), ABOUT)
    drawing = drawn()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (2 * picture.WIDTH, 2 * drawing.height)
        for box in (x for x in drawing.shapes if isinstance(x, Box) and x.hint):
            middle = (round(2 * box.x + box.width), round(2 * box.y + box.height))
            colour = [int(box.colour[i : i + 2], 16) for i in (1, 3, 5)]
            expected = [255 + (part - 255) * box.opacity for part in colour]
            assert image.getpixel(middle) == pytest.approx(expected, abs=1)
    assert fits(Path("a.png"), 40)
    assert not fits(Path("a.png"), None)
    assert not fits(Path("a.png"), 100)
    assert fits(Path("a.html"), 100)
    assert fits(Path("a.html"), None)


def test_a_label_has_one_colour_in_all_time_lines_of_a_picture() -> None:
    other = Timeline(Path("b.mp4"), 4.0, SPANS, torch.tensor([[0.0, 0.1, 0.9], [0.0, 0.2, 0.8], [0.3, 0.7, 0.0]]))
    palette = palette_of([LINE, other], None)
    assert sorted(palette) == [0, 1, 2]
    assert len(set(palette.values())) == 3
    assert palette_of([other], None) != {label: palette[label] for label in main_labels(other, None)}
