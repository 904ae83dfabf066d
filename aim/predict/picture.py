"""Time lines as a picture: labels and their probabilities over time; an HTML page of SVG, or a PNG.

Both are drawn from the same shapes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from aim.engine.scores.tasks import Limit
from aim.engine.trained.answer import NONE, Asking
from aim.engine.trained.timeline import Timeline
from aim.ground import files
from aim.pages.drawing import SCALE, Box, Drawing, Shape, Words, as_image
from aim.pages.letters import cut, width
from aim.predict.answers import moment

SUFFIXES = (".png", ".html")
# Eight colours distinguishable with any colour vision: M. Okabe and K. Ito, "Color Universal Design" (2008).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8a8400", "#777777")
WIDTH, LEFT, RIGHT, ROW, STRIP = (
    960,
    190,
    40,
    26,
    20,
)  # pixels: total, beside the strips, a row's height, a strip's
TOP = 54  # pixels above the first strip
PALE, LEVELS = (COLOURS[-1], 0.15), 8  # of none of the labels; steps of the legend
COLUMNS = 480  # at most; neighbours of a longer time line are averaged
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000)  # s between ticks
MAX_HEIGHT = 30000  # of a PNG, in its pixels


def write(path: Path, lines: Sequence[tuple[str, Timeline]], asking: Asking, about: str) -> None:
    """Write the picture of all time lines by their names, PNG or HTML by the file's suffix, atomically.

    `about` describes each.
    """
    palette = palette_of([line for _, line in lines], asking.at_least)
    drawings = [draw(name, line, asking, about, palette) for name, line in lines]
    if path.suffix == ".html":
        files.write_text(path, as_html(drawings))
        return
    image = as_image(drawings)
    files.write_atomically(path, lambda file: image.save(file, "png"))


def fits(path: Path, videos: int | None) -> bool:
    """Whether a file of this kind can hold this many time lines, or an unknown number."""
    return path.suffix == ".html" or (videos is not None and videos * (TOP + 10 * ROW) * SCALE <= MAX_HEIGHT)


def palette_of(lines: Sequence[Timeline], at_least: Limit) -> dict[int, str]:
    """A colour for each main label of the time lines, the same in all of them if there are enough."""
    labels = dict.fromkeys(label for line in lines for label in main_labels(line, at_least))
    return {label: COLOURS[i % (len(COLOURS) - 1)] for i, label in enumerate(labels)}


def draw(name: str, line: Timeline, asking: Asking, about: str, palette: Mapping[int, str]) -> Drawing:
    """A time line as a drawing: segments, the probability of each main label, a clock, a legend.

    Segments are in one row or, if labels may overlap, under the probability of their label.
    """
    classes, at_least = asking.classes, asking.at_least
    segments, (bounds, probability) = line.segments(at_least), columns(line)
    shown, several = main_labels(line, at_least), line.task.several
    height = STRIP // 2 if several else STRIP  # of a probability
    colours = {label: palette[label] for label in shown}
    x_of = (WIDTH - LEFT - RIGHT) / line.duration
    shapes: list[Shape] = [
        Words(10, 22, cut(name, 15, WIDTH - 20, keep_end=True), 15),
        Words(10, 42, about, 12),
        *([] if several else [Words(LEFT - 8, TOP + 14, "label", anchor="end")]),
    ]
    for x in [] if several else segments:
        label = x.named(classes) or NONE
        hint = f"{label}, {moment(x.start)} to {moment(x.end)}, {100 * x.probability:.1f} %"
        colour, opacity = PALE if x.label is None else (colours.get(x.label, COLOURS[-1]), 1.0)
        shapes.append(Box(LEFT + x.start * x_of, TOP, (x.end - x.start) * x_of, STRIP, colour, opacity, hint))
    for row, i in enumerate(shown, 0 if several else 1):
        y = TOP + row * ROW
        shapes.append(Words(LEFT - 8, y + 14, cut(classes[i], 13, LEFT - 16), anchor="end"))
        for start, end, value in zip(bounds[:-1], bounds[1:], probability[:, i].tolist(), strict=True):
            hint = f"{classes[i]}, {moment(start)} to {moment(end)}, {100 * value:.1f} %"
            box = Box(LEFT + start * x_of, y, (end - start) * x_of, height, colours[i], value, hint)
            shapes += [box] if value >= 0.005 else []
        for x in segments if several else []:
            if x.label == i:
                hint = f"{classes[i]} from {moment(x.start)} to {moment(x.end)}, {100 * x.probability:.1f} %"
                left, right = (LEFT + time * x_of for time in (x.start, x.end))
                shapes.append(Box(left, y + height + 1, right - left, STRIP - height, colours[i], 1.0, hint))
    bottom = TOP + (len(shown) + (not several)) * ROW
    shapes += [Words(LEFT + time * x_of, bottom + 14, moment(time), 11, "middle") for time in ticks(line.duration)]
    shapes += [Box(LEFT + time * x_of, bottom - 4, 1, 5, COLOURS[-1], 1) for time in ticks(line.duration)]
    labels = {x.label for x in segments}
    more = list[tuple[str, float, str]]()
    if None in labels and not several:
        more.append((*PALE, f"{NONE}, below {at_least:g}" if isinstance(at_least, float) else NONE))
    if several:
        more.append((COLOURS[0], 1.0, "below it: where the label is given"))
    if others := labels - {*shown, None}:
        more.append((COLOURS[-1], 1.0, f"{len(others)} other labels"))
    shapes += legend(bottom + ROW + 4, more)
    return Drawing(WIDTH, bottom + 2 * ROW, shapes, f"Labels over time: {name}; {about}")


def legend(y: float, more: Sequence[tuple[str, float, str]]) -> list[Shape]:
    """A legend of the colours: strength by probability, and `more` colours with their meaning."""
    shapes: list[Shape] = [Words(LEFT - 8, y + 11, "probability", 11, "end"), Words(LEFT, y + 11, "0 %", 11)]
    x = LEFT + 24.0
    for i in range(LEVELS):
        shapes.append(Box(x + i * 14, y, 14, 13, COLOURS[0], (i + 1) / LEVELS))
    shapes.append(Words(x + LEVELS * 14 + 6, y + 11, "100 %, of each label in its colour", 11))
    x += LEVELS * 14 + 220
    for colour, opacity, words in more:
        shapes += [Box(x, y, 14, 13, colour, opacity), Words(x + 20, y + 11, words, 11)]
        x += 40 + width(words, 11)
    return shapes


def columns(line: Timeline) -> tuple[list[float], Tensor]:
    """The begins of columns and the end of the last, in seconds, and their probabilities "w k"."""
    parts = np.array_split(np.arange(len(line.spans)), min(len(line.spans), COLUMNS))
    bounds = [line.bounds[int(part[0])] for part in parts] + [line.duration]
    return bounds, torch.stack([line.probability[torch.from_numpy(part)].nanmean(0) for part in parts])


def main_labels(line: Timeline, at_least: Limit) -> list[int]:
    """The labels with the longest time, at most one a colour; if there are none, the most probable."""
    seconds = dict[int, float]()
    for x in line.segments(at_least):
        if x.label is not None:
            seconds[x.label] = seconds.get(x.label, 0.0) + x.end - x.start
    most = int(line.task.best(line.probability.nanmean(0)))
    found = sorted(seconds, key=lambda label: (-seconds[label], label)) or [most]
    return found[: len(COLOURS) - 1]


def ticks(duration: float) -> list[float]:
    """Round times from 0 on, at most eight."""
    step = next((step for step in STEPS if duration / step <= 7), STEPS[-1])
    return [i * step for i in range(min(8, int(duration / step) + 1))]


def as_html(drawings: Sequence[Drawing]) -> str:
    """A self-contained page, light or dark as the system."""
    style = (
        ":root{color-scheme:light dark} body{font-family:system-ui,sans-serif;margin:1rem auto;max-width:60rem}"
        " div{overflow-x:auto} svg{width:100%;min-width:44rem;height:auto} text{fill:currentColor}"
    )
    pictures = "\n".join(f"<div>{drawing.svg}</div>" for drawing in drawings)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Labels over time</title>'
    body = f"<body>\n{pictures}\n</body>"
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head>{body}</html>\n'
