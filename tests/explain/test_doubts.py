"""Each reason to distrust a map, and none without its cause."""

from dataclasses import replace

import pytest
import torch

from aim.engine.scores.tasks import MultiLabel
from aim.explain import page
from aim.explain.doubts import doubts
from aim.explain.explanation import Explanation
from aim.explain.scores import Faithfulness
from tests.explain.test_page import explanation

FOUND = replace(explanation(4), chance=(0.7, 0.3))
FLAT = Faithfulness(torch.full((5,), 0.69), torch.full((5,), 0.31))
GUESS = torch.tensor([0.45, 0.4, 0.15])


def test_a_sure_right_and_faithful_map_is_not_doubted() -> None:
    for true in (None, "a class"):
        assert doubts(FOUND, true) == []
    assert page.verdicts(FOUND) == [page.TRUSTED]


@pytest.mark.parametrize(
    ("found", "true", "words"),
    [
        (replace(FOUND, probability=GUESS, classes=["x", "y", "z"]), None, ["x 45 %", "y 40 %"]),
        (FOUND, "[another]", ["wrong", "[another]"]),
        (replace(FOUND, label=1), None, ["a class (75 %)", "[another] (25 %)"]),
        (replace(FOUND, relevance=-FOUND.relevance), None, ["empty", "a class"]),
        (replace(FOUND, faithfulness=FLAT), None, ["random", "0.69", "0.70", "0.31", "0.30"]),
        (replace(FOUND, similarity={"head": 0.95, "head and adapters": 0.2}), None, ["head", "+0.95"]),
    ],
)  # fmt: skip
def test_each_doubt_is_told_by_what_it_rests_on(found: Explanation, true: str | None, words: list[str]) -> None:
    (text,) = doubts(found, true)
    assert [word for word in words if word not in text] == []
    doubted = replace(found, doubts=[text])
    assert text in page.verdicts(doubted)[0]
    assert doubted.as_json()["doubts"] == [text]
    assert page.page(doubted, "x").height >= page.page(found, "x").height


def test_one_of_several_labels_is_doubted_by_its_own_probability_alone() -> None:
    several = replace(FOUND, task=MultiLabel(1.0), probability=torch.tensor([0.9, 0.8]), label=1)
    assert doubts(several, "a class") == []
    (text,) = doubts(replace(several, probability=torch.tensor([0.9, 0.2])), None)
    assert "[another] (20 %)" in text


def test_many_doubts_stand_below_each_other() -> None:
    two = replace(FOUND, doubts=["a reason " * 40, "another"])
    assert len(page.verdicts(two)) == 2
    assert page.page(two, "x").height > page.page(FOUND, "x").height
