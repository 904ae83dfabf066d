from pathlib import Path
from typing import Any

import pytest

from aim.engine.run import content, results
from tests.messages import named


@pytest.mark.parametrize("name", ["a [x]", "a [/x]", "a :car:"])
def test_a_result_shows_names_as_they_are(capsys: pytest.CaptureFixture[str], name: str) -> None:
    numbers = {"top1": 1.0, "top5": 2.0, "mean_class": 3.0, "params_tuned": 1e6, "params_total": 2e6, "seconds": 60.0}
    more = {
        "num_videos": 8,
        "views": "8x1x1",
        "num_missing": 0,
        "num_classes": 3,
        "world_size": 1,
        "device": f"device {name}",
    }
    results.show({"name": f"run {name}", **numbers, **more}, Path(f"runs/{name}"))
    shown = capsys.readouterr().out
    for text in (f"run {name}", f"device {name}", f"written to runs/{name}\n"):
        assert text in shown


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"top1": 60.0, "mean_class": 50.0}, ["top-1"]),
        ({"top1": 60.1, "mean_class": 40.0}, []),
        ({"top1": 70.0, "mean_class": 33.333}, ["mean"]),
    ],
)
def test_a_result_not_above_the_largest_class_is_doubted(scores: dict[str, float], expected: list[str]) -> None:
    baseline = {"top1": 60.0, "mean_class": 33.333}
    doubts = list(results.doubts({**scores, "num_classes": 3, "num_videos": 10}, baseline))
    assert len(doubts) == len(expected)
    for doubt, words in zip(doubts, expected, strict=True):
        named(doubt, words)
    assert not list(results.doubts({**scores, "num_classes": 3, "num_videos": 10}, {}))


@pytest.mark.parametrize(
    ("found", "expected", "absent"),
    [
        ({"weights": "last", "epochs": 5, "selection": {"epoch": 2.0, "by": "B"}}, ["5", "2,", "B", "test=best"], []),
        ({"weights": "last", "epochs": 5, "selection": {"epoch": 5.0, "by": "B"}}, ["5"], ["B", "test=best"]),
        ({"weights": "last", "epochs": 9, "epochs_trained": 5, "selection": {"epoch": 5.0, "by": "B"}}, ["5"], ["9"]),
        ({"weights": "best", "epochs": 5, "selection": {"epoch": 2.0, "by": "B"}}, ["2,", "B"], ["5", "test=best"]),
        ({"weights": "last", "epochs": 5}, ["5"], ["test=best"]),  # without validations, or an older one
        ({"weights": "last", "epochs": 5, "checkpoint": "runs/a/best.safetensors"}, ["runs/a/best.safetensors"], ["5"]),
    ],
)
def test_the_weights_of_a_result_are_told(found: dict[str, Any], expected: list[str], absent: list[str]) -> None:
    said = content.weights(found)
    named(said, *expected)
    assert not any(word in said for word in absent)
