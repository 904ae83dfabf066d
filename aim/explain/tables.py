"""Explanations on a terminal."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rich.console import Console

from aim.explain.explanation import Explanation, orders_as_json
from aim.explain.order import ORDERS, Sensitivity
from aim.explain.page import verdicts
from aim.ground.console import plain_table

BAR = 24  # characters


def show(console: Console, found: Explanation) -> None:
    """The frames' weights, the orders, and the map's reliability."""
    most = float(found.frames.abs().max().clamp_min(1e-6))
    frames = [f"{begin + 1} to {end}" if end > begin + 1 else str(end) for begin, end in pairwise(found.steps)]
    bars = ["#" * round(BAR * max(0.0, value) / most) for value in found.frames.tolist()]
    rows = zip(frames, (f"{value:+.2f}" for value in found.frames.tolist()), bars, strict=True)
    console.print(plain_table(rows, ["frame", "evidence lost", ""], title="If it stands still"))
    show_orders(console, orders_as_json(found.orders, found.label, found.classes, found.task), found.name)
    (deletion, insertion), chance = found.faithfulness.areas, found.chance
    scores = [
        ("removed from the clip", f"{deletion:.3f}", f"{chance[0]:.3f}", "smaller"),
        ("put back into a blur", f"{insertion:.3f}", f"{chance[1]:.3f}", "larger"),
    ]
    head = ["its best cells first", "mean probability", "by chance", "true is"]
    console.print(plain_table(scores, head, title="Is the map true to the model?"))
    likeness = [(name, f"{value:+.2f}") for name, value in found.similarity.items()]
    console.print(plain_table(likeness, ["after randomising", "likeness (0: none, 1: same)"]))
    for text in verdicts(found):
        console.print(text)


def show_orders(console: Console, orders: dict[str, Any], name: str) -> None:
    """The answers to a clip in each order."""
    rows = [(order, f"{100 * answer['probability']:.1f} %", answer["label"]) for order, answer in orders.items()]
    console.print(plain_table(rows, ["order of frames", name, "taken for"], title="Does the order matter?"))


def show_sensitivity(console: Console, found: Sensitivity, classes: Sequence[str]) -> None:
    """The answers to a data set's videos in each order."""
    rows = [
        (order, *(f"{value:.1f} %" for value in values))
        for order, *values in zip(ORDERS, found.top1, found.of_label, found.changed, strict=True)
    ]
    head = ["order of frames", "top-1", "mean probability of the class", "other answer"]
    console.print(plain_table(rows, head, title=f"{len(found.label)} videos"))
    turned = [(classes[i], classes[j], f"{count} of {seen}") for i, j, count, seen in found.reversals(10)]
    if turned:
        console.print(plain_table(turned, ["taken for", "and reversed for", "videos"]))
