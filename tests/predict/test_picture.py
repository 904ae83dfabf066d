import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from aim.data.windows import Span
from aim.pages.drawing import Box
from aim.predict import picture
from aim.predict.picture import columns, draw, fits, main_labels, ticks, write
from aim.predict.timeline import Timeline
from tests.pages.browser import look

CLASSES = ["<b>walk</b>", "run", "sit"]
SPANS = [Span(i, i + 2) for i in range(3)]
LINE = Timeline(Path("a & b.mp4"), 4.0, SPANS, torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.3, 0.7, 0.0]]))


def test_boxes_lie_where_labels_are() -> None:
    shapes = draw(LINE, CLASSES, None).shapes
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
    unsure = [x for x in draw(LINE, CLASSES, 0.75).shapes if isinstance(x, Box) and x.hint]
    assert unsure[1].hint.startswith("none of these, ")


def test_a_long_time_line_is_averaged_to_the_width_of_the_picture() -> None:
    n = 10 * picture.COLUMNS
    probability = torch.linspace(0, 1, n)[:, None].repeat(1, 2)
    long = Timeline(Path("a.mp4"), n + 1.0, [Span(i, i + 2) for i in range(n)], probability)
    bounds, means = columns(long)
    assert len(bounds) == len(means) + 1 == picture.COLUMNS + 1
    assert (bounds[0], bounds[-1]) == (0, n + 1)
    torch.testing.assert_close(means[0], probability[:10].mean(0))
    assert len(draw(long, CLASSES[:2], None).shapes) < 3 * picture.COLUMNS


def test_the_labels_seen_longest_are_shown() -> None:
    assert main_labels(LINE, None) == [0, 1]
    assert main_labels(LINE, 0.75) == [0]
    assert main_labels(LINE, 0.95) == [0]  # none of them is seen: the most probable
    assert ticks(10800) == [0, 1800, 3600, 5400, 7200, 9000, 10800]
    assert ticks(0.04) == [0]


def test_the_page_shows_names_as_they_are_and_needs_no_network(tmp_path: Path) -> None:
    write(tmp_path / "a.html", [LINE, replace(LINE, path=Path("c.mp4"))], CLASSES, None)
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
    write(tmp_path / "a.html", [LINE], CLASSES, None)
    tab = look(browser, tmp_path / "a.html", 390, "dark")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert tab.evaluate("document.querySelector('div').scrollWidth") > 390
    assert tab.wrong == []
    tab.close()


def test_the_png_has_the_colours_of_the_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.png", [LINE], CLASSES, None)
    drawing = draw(LINE, CLASSES, None)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (2 * picture.WIDTH, 2 * drawing.height)
        for box in (x for x in drawing.shapes if isinstance(x, Box) and x.hint):
            middle = (round(2 * box.x + box.width), round(2 * box.y + box.height))
            colour = [int(box.colour[i : i + 2], 16) for i in (1, 3, 5)]
            expected = [255 + (part - 255) * box.opacity for part in colour]
            assert image.getpixel(middle) == pytest.approx(expected, abs=1)
    assert fits(Path("a.png"), 40)
    assert not fits(Path("a.png"), 100)
    assert fits(Path("a.html"), 100)
