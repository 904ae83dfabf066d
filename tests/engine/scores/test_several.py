"""Scores of several labels a video, against scikit-learn and its definitions written out."""

import numpy as np
import pytest
import torch

from aim.engine.scores import metrics, several
from aim.engine.scores.calibration import Calibration, fitted
from aim.engine.scores.guessing import baseline, one_answer
from aim.engine.scores.tasks import MultiLabel

TASK = MultiLabel(1.0)
TABLE = {metric.name: metric for metric in metrics.of("several")}


def drawn(n: int = 60, k: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, correlated with the labels."""
    rng = np.random.default_rng(seed)
    label = (rng.random((n, k)) < [0.5, 0.2, 0.1, 0.9][:k]).astype(np.int64)
    probability = np.clip(rng.random((n, k)) * 0.7 + 0.3 * label, 0.01, 0.99).round(1).astype(np.float32)
    return probability, label


def average_precision_by_definition(score: np.ndarray, label: np.ndarray) -> float:
    """Sum of (R_n - R_n-1) P_n over the thresholds, as scikit-learn's guide has it (3.4.4.9)."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(score.tolist()), reverse=True):
        chosen = score >= threshold
        recall = (label[chosen] > 0).sum() / (label > 0).sum()
        total += (recall - before) * (label[chosen] > 0).mean()
        before = recall
    return total


def test_average_precision_is_scikit_learns() -> None:
    # The examples of sklearn.metrics.average_precision_score: 0.8333, and 0.7777 as the mean of three classes.
    assert several.average_precision(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == pytest.approx(5 / 6)
    truth = np.eye(3, dtype=np.int64)[[0, 0, 1, 1, 2, 2]]
    score = np.array(
        [[0.7, 0.2, 0.1], [0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2], [0.1, 0.2, 0.7]]
    )
    assert several.mean_average_precision(score, truth) == pytest.approx(0.7777, abs=1e-4)
    probability, label = drawn()
    found = several.average_precisions(probability, label)
    expected = [average_precision_by_definition(p, y) for p, y in zip(probability.T, label.T, strict=True)]
    assert found == pytest.approx(expected)
    assert several.average_precisions(probability[::-1], label) != pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_scikit_learns(seed: int) -> None:
    """With ties, a class without a video, and one that all have."""
    from sklearn.metrics import average_precision_score, f1_score

    probability, label = drawn(seed=seed)
    label[:, 0] = 1
    expected = {
        "map": average_precision_score(label, probability, average="macro"),
        "macro_f1": f1_score(label, probability >= 0.5, average="macro"),
        "micro_f1": f1_score(label, probability >= 0.5, average="micro"),
    }
    assert {name: TABLE[name].value(probability, label) / 100 for name in expected} == pytest.approx(expected)
    assert several.average_precisions(probability, label) == pytest.approx(
        average_precision_score(label, probability, average=None)
    )
    label[:, 2] = 0
    assert TABLE["map"].value(probability, label) / 100 == pytest.approx(
        average_precision_score(label[:, [0, 1, 3]], probability[:, [0, 1, 3]])
    )
    assert TABLE["map"].value(probability, label[::-1]) / 100 != pytest.approx(expected["map"])


def test_f1_is_that_of_counts() -> None:
    probability, label = drawn()
    given = probability >= 0.5
    hits, wrong, missed = ((given == a) & (label == b) for a, b in ((1, 1), (1, 0), (0, 1)))
    each = [2 * t / (2 * t + f + m) for t, f, m in zip(hits.sum(0), wrong.sum(0), missed.sum(0), strict=True)]
    assert several.macro_f1(probability, label) == pytest.approx(np.mean(each))
    all_hits = hits.sum()
    assert several.micro_f1(probability, label) == pytest.approx(
        2 * all_hits / (2 * all_hits + wrong.sum() + missed.sum())
    )
    assert several.micro_f1(np.zeros((2, 3)), np.zeros((2, 3), np.int64)) == 0


@pytest.mark.parametrize("name", ["map", "macro_f1", "micro_f1"])
def test_draws_of_videos_are_scored_as_lists_with_these(name: str) -> None:
    probability, label = drawn(n=12, seed=3)
    times = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), 20)
    times[0] = 0
    times[0, label[:, 2] == 0] = 1  # a class has no video
    found = TABLE[name].of_draws(probability, label, times)
    lists = [np.repeat(np.arange(12), each) for each in times]
    assert found == pytest.approx([TABLE[name].of_all(probability[each], label[each]) for each in lists])
    assert found.std() > 0.01


def test_a_class_without_a_video_takes_no_part() -> None:
    probability, label = drawn()
    label[:, 1] = 0
    others = [0, 2, 3]
    for name in ("map", "macro_f1", "class_calibration_error"):
        value = TABLE[name].value
        assert value(probability, label) == pytest.approx(value(probability[:, others], label[:, others])), name
    assert np.isnan(several.average_precisions(probability, label)).tolist() == [False, True, False, False]
    assert TASK.per_class(torch.from_numpy(probability), torch.from_numpy(label))[1] == {"videos": 0}


def test_no_answer_to_all_beats_the_baseline() -> None:
    _, label = drawn()
    known = baseline(TASK, torch.from_numpy(label), 4)
    assert known["map"] == pytest.approx(100 * label.mean(0).mean(), abs=1e-3)
    best = {"macro_f1": 0.0, "micro_f1": 0.0}
    for chosen in np.ndindex(2, 2, 2, 2):
        same = np.tile(np.array(chosen, np.float32), (len(label), 1))
        for name, highest in best.items():
            best[name] = max(highest, TABLE[name].value(same, label))
    assert (known["macro_f1"], known["micro_f1"]) == pytest.approx((best["macro_f1"], best["micro_f1"]), abs=1e-3)
    assert TABLE["map"].beside(50.0, known).endswith(f"({TABLE['map'].constant_words} {known['map']:.2f} %)")
    assert one_answer(TASK, torch.from_numpy(label).float(), torch.from_numpy(label)) is None
    assert baseline(TASK, torch.zeros(0, 4), 4)["map"] == 0


def test_the_cross_entropy_of_a_test_is_the_loss_of_a_step() -> None:
    _, label = drawn()
    logits = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    target = TASK.target(torch.from_numpy(label), 4, mixed=False)
    loss = float(TASK.loss(logits, target, 0.0).mean())
    assert TABLE["binary_cross_entropy"].value(logits.sigmoid().numpy(), label) == pytest.approx(loss, rel=1e-5)
    assert float(-TASK.log_likelihood(logits.sigmoid(), target).mean()) == pytest.approx(loss, rel=1e-5)
    heavier = MultiLabel(3.0).loss(logits, target, 0.0)
    by_hand = -(3 * target * logits.sigmoid().log() + (1 - target) * (-logits).sigmoid().log()).mean(1)
    torch.testing.assert_close(heavier, by_hand)
    smoothed = TASK.loss(logits, target, 0.2)
    torch.testing.assert_close(smoothed, TASK.loss(logits, 0.8 * target + 0.1, 0.0))


def test_the_threshold_of_a_class_has_the_best_f1() -> None:
    probability, label = drawn()
    found = several.thresholds(probability, label)
    for column, (p, y) in enumerate(zip(probability.T, label.T, strict=True)):
        chosen = float(several.f1s((p >= found[column])[:, None], y[:, None])[0])
        every = [float(several.f1s((p >= t)[:, None], y[:, None])[0]) for t in np.linspace(0, 1, 201)]
        assert chosen == pytest.approx(max(every))
    assert several.threshold(np.array([0.9, 0.4, 0.2]), np.array([1, 1, 0])) == pytest.approx(0.3)
    assert several.threshold(np.array([0.9, 0.4]), np.array([0, 0])) == several.threshold(np.ones(2), np.ones(2)) == 0.5
    assert 0 < several.threshold(np.zeros(2), np.array([1, 0])) < 1e-30


def test_each_class_has_its_own_temperature_and_threshold() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 1, 2, generator=generator)
    label = torch.bernoulli(logits[:, 0].sigmoid(), generator=generator).to(torch.int64)
    found = fitted(TASK, TASK.log_probability(logits * torch.tensor([3.0, 0.5])).half(), label)
    assert isinstance(found.temperature, list)
    assert found.temperature == pytest.approx([3.0, 0.5], rel=0.1)
    assert found.thresholds == pytest.approx([0.35, 0.35], abs=0.15)  # F1 is best below a half
    assert Calibration.of_text(found.as_text(), 2) == found
    assert fitted(TASK, torch.empty(0, 1, 2), torch.empty(0, 2)) == Calibration([1.0, 1.0], [0.5, 0.5])
    for text in ({"thresholds": "[0.5]"}, {"temperature": "[1, 0]"}, {"thresholds": "0.5"}, {"temperature": '"a"'}):
        with pytest.raises((ValueError, TypeError)):
            Calibration.of_text(text, 2)


def test_what_is_given_are_the_labels_above_their_thresholds() -> None:
    probability = torch.tensor([[0.6, 0.2, 0.4], [0.1, 0.2, 0.3], [torch.nan] * 3])
    assert TASK.given(probability, None).tolist() == [[True, False, False], [False] * 3, [False] * 3]
    assert TASK.given(probability, torch.tensor([0.7, 0.2, 0.4])).tolist() == [
        [False, True, True],
        [False, True, False],
        [False] * 3,
    ]
    assert TASK.hits(probability[:2], torch.tensor([[1, 0, 0], [0, 0, 0]])).tolist() == [True, False]
