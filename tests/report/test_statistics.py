from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from aim.report import statistics
from tests.report.made import predicted, random_predictions

# Six videos of three classes: 0 0 1 1 1 2.
FOUND = predicted(
    [0, 0, 1, 1, 1, 2],
    [[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.1, 0.7, 0.2], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]],
)


def only(first: int, second: int, rest: int = 0, label: NDArray[np.int64] | None = None) -> list[statistics.Paired]:
    """Two models, and the videos that each alone has right."""
    n = first + second + rest
    label = np.zeros(n, np.int64) if label is None else label
    right = predicted(label.tolist(), np.eye(4)[label].tolist())
    wrong = np.eye(4)[(label + 1) % 4].astype(np.float32)
    one, other = (np.where(part[:, None], right.probability, wrong) for part in (
        np.arange(n) < first, (np.arange(n) >= first) & (np.arange(n) < first + second)))  # fmt: skip
    return statistics.paired(replace(right, probability=one), replace(right, probability=other))


@pytest.mark.parametrize(
    ("first", "second"),
    [(0, 0), (1, 0), (3, 12), (0, 5), (0, 6), (40, 61), (250, 251), (2, 40), (5000, 5100), (0, 19881)],
)
def test_top1_is_compared_by_mcnemars_exact_test(first: int, second: int) -> None:
    n = first + second
    expected = stats.binomtest(first, n, 0.5).pvalue if n else 1.0
    found, swapped = only(first, second, 1)[0], only(second, first, 1)[0]
    assert found.p == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert (swapped.p, swapped.low, swapped.high) == pytest.approx((found.p, -found.high, -found.low))


def test_an_interval_and_a_verdict_never_contradict() -> None:
    rng, verdicts = np.random.default_rng(0), set()
    for _ in range(200):
        first, second, rest = rng.integers([12, 25, 40])
        for found in only(first, second, rest, rng.integers(4, size=first + second + rest)):
            assert (found.p >= 0.05) == (found.low <= 0 <= found.high)
            assert found.low <= found.difference <= found.high
            assert ("+" in f"{found.low:+.3g}") == ("+" in f"{found.high:+.3g}") or found.verdict == "may be chance"
            verdicts.add((found.score, found.verdict))
    assert len(verdicts) == 4  # of both scores both


def test_mean_per_class_is_compared_too() -> None:
    """With a rare class learnt and a frequent one forgotten, the two scores differ in sign."""
    label = np.repeat([0, 1], [100, 10])
    rare = predicted(label.tolist(), np.eye(2)[np.repeat([0, 1], [100, 10])].tolist())
    probability = np.eye(2)[np.concatenate([np.repeat([0, 1], [85, 15]), np.ones(10, np.int64)])].astype(np.float32)
    frequent = np.eye(2)[np.zeros(110, np.int64)].astype(np.float32)
    top1, mean = statistics.paired(replace(rare, probability=frequent), replace(rare, probability=probability))
    assert (top1.score, mean.score) == ("top-1", "mean per class")
    assert top1.difference == pytest.approx(100 * (95 - 100) / 110)
    assert mean.difference == pytest.approx(100 * ((0.85 + 1) / 2 - 0.5))
    signs = np.array([[(-1) ** (i >> j) for j in range(12)] for i in range(2**12)])
    few = statistics.sign_test("few", np.array([1] * 10 + [-1] * 2), np.repeat([1.0, 3.0], 6))
    every = np.abs(signs @ np.repeat([1.0, 3.0], 6))
    assert few.p == pytest.approx((every >= 12).mean(), abs=0.02)


@pytest.mark.parametrize(("right", "videos"), [(30, 40), (5, 480), (15000, 19881)])
def test_the_interval_is_that_of_drawing_videos_again(right: int, videos: int) -> None:
    rng = np.random.default_rng(1)
    seen = np.arange(videos) < right
    if videos < 1000:
        drawn = 100 * np.array([rng.choice(seen, videos).mean() for _ in range(4000)])
        expected = np.percentile(drawn, [2.5, 97.5])
    else:
        expected = 100 * stats.binom(videos, right / videos).ppf([0.025, 0.975]) / videos
    assert statistics.interval(right, videos) == pytest.approx(expected, abs=150 / videos + 0.02)


def test_no_videos_say_nothing() -> None:
    assert statistics.interval(0, 0) == (0.0, 100.0)


def test_two_models_are_compared_on_the_videos_that_both_could_read() -> None:
    better = FOUND.probability.copy()
    better[2] = [0.1, 0.8, 0.1]  # right now
    better[5] = [0.5, 0.3, 0.2]  # wrong now
    better[4] = [0.2, 0.7, 0.1]  # right now
    other = replace(FOUND, probability=better)
    found = statistics.paired(FOUND, other)[0]
    assert (found.videos, found.only_first, found.only_second) == (6, 1, 2)
    assert found.difference == pytest.approx(100 / 6)
    assert found.low < found.difference < found.high
    rest = replace(
        other, **{name: getattr(other, name)[1:5] for name in ("index", "path", "span", "label", "probability")}
    )
    shorter = statistics.paired(FOUND, rest)[0]
    assert (shorter.videos, shorter.only_first, shorter.only_second) == (4, 0, 2)
    assert [each.p for each in statistics.paired(FOUND, FOUND)] == [1.0, 1.0]
    elsewhere = replace(other, path=np.array([f"other{i}.mp4" for i in range(6)]))
    assert statistics.paired(FOUND, elsewhere) == []


def test_the_interval_of_a_difference_is_that_of_drawing_pairs_again() -> None:
    first, second = random_predictions(400, 5), random_predictions(400, 5, seed=1, skill=2.5)
    d = second.right.astype(int) - first.right.astype(int)
    rng = np.random.default_rng(3)
    expected = np.percentile([100 * rng.choice(d, 400).mean() for _ in range(4000)], [2.5, 97.5])
    found = statistics.paired(first, second)[0]
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.6)


def test_classes_are_sorted_by_accuracy_and_pairs_by_mistakes() -> None:
    found = statistics.by_class(FOUND)
    assert [(each.name, each.right, each.videos) for each in found] == [
        ("class 0", 2, 2), ("class 2", 1, 1), ("class 1", 1, 3),
    ]  # fmt: skip
    assert found[2].accuracy == pytest.approx(100 / 3)
    (pair,) = statistics.most_confused(FOUND, 9)
    assert (pair.true, pair.predicted, pair.count, pair.videos) == ("class 1", "class 0", 2, 3)


def test_examples_are_the_surest_mistakes_and_the_least_sure_right_ones() -> None:
    assert statistics.worst_mistakes(FOUND, 9) == [2, 4]
    assert statistics.worst_mistakes(FOUND, 1) == [2]
    assert statistics.least_sure(FOUND, 2) == [1, 3]


def test_smoothing_keeps_the_mean_and_few_values() -> None:
    values = list(range(1000))
    assert statistics.smoothed(values, 2000) == values
    assert statistics.smoothed(values, 10) == [49.5 + 100 * i for i in range(10)]
