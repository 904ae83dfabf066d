import numpy as np
import pytest

from aim.engine.scores import quality as scores

# Four videos of three classes: right and sure, right and unsure, wrong, wrong and sure.
PROBABILITY = np.array([[0.9, 0.05, 0.05], [0.3, 0.39, 0.31], [0.59, 0.3, 0.11], [0.0, 0.0, 1.0]], np.float32)
LABEL = np.array([0, 1, 1, 0])


def test_scores_of_a_hand_written_table() -> None:
    expected = -np.log([0.9, 0.39, 0.3])
    found = scores.cross_entropies(PROBABILITY, LABEL)
    assert found[:3] == pytest.approx(expected, abs=1e-6)
    assert found[3] == pytest.approx(38 * np.log(10))  # of a probability of 0: finite
    each = (0.1**2 + 2 * 0.05**2, 0.61**2 + 0.3**2 + 0.31**2, 0.7**2 + 0.59**2 + 0.11**2, 2.0)
    assert scores.brier(PROBABILITY, LABEL).mean() == pytest.approx(sum(each) / 4, abs=1e-6)


def test_bins_of_a_hand_written_table() -> None:
    bins = scores.reliability(PROBABILITY, LABEL, bins=5)
    assert [each.videos for each in bins] == [0, 1, 1, 0, 2]
    assert bins[4].confidence == pytest.approx(0.95)
    assert bins[4].accuracy == 0.5
    by_hand = abs(1 - 0.39) / 4 + abs(0 - 0.59) / 4 + abs(0.5 - 0.95) / 2
    assert scores.calibration_error(bins) == pytest.approx(by_hand, abs=1e-6)


def test_probabilities_that_are_what_they_say_have_little_calibration_error() -> None:
    rng = np.random.default_rng(0)
    probability = rng.dirichlet(np.ones(10), size=20000)
    label = np.array([rng.choice(10, p=row) for row in probability])
    good, sure = (
        scores.calibration_error(scores.reliability(p.astype(np.float32), label))
        for p in (probability, probability**3 / (probability**3).sum(1, keepdims=True))
    )
    assert good < 0.02 < 0.2 < sure


def test_no_videos_have_no_error() -> None:
    nothing, labels = np.empty((0, 3), np.float32), np.empty(0, np.int64)
    assert scores.brier(nothing, labels).shape == (0,)
    assert scores.calibration_error(scores.reliability(nothing, labels)) == 0
