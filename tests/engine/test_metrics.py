import numpy as np
import pytest
import torch

from aim.engine.metrics import Counts


def test_counts_of_a_hand_written_table() -> None:
    # Three classes and seven scores; the truth is first, second, ... best as noted.
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.4, 0.3, 0.3]])
    label = torch.tensor([0, 1, 2, 2])  # right, right, second, third (a tie with class 1, which is lower)
    counts = Counts.of(scores, label)
    assert counts.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert counts.top1 == 50.0
    assert counts.mean_class == pytest.approx(100 * 2 / 3)
    assert counts.top5 == 100.0


def test_counts_add_up_over_uneven_batches() -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(37, 11)))
    label = torch.from_numpy(rng.integers(11, size=37))
    whole = Counts.of(scores, label)
    parts = Counts.of(scores[:5], label[:5]) + Counts.of(scores[5:], label[5:])
    assert torch.equal(whole.confusion, parts.confusion)
    assert whole.top5_hits == parts.top5_hits
    # NumPy as a second opinion.
    order = np.argsort(-scores.numpy(), axis=1)
    assert whole.top1 == pytest.approx(100 * np.mean(order[:, 0] == label.numpy()))
    assert whole.top5 == pytest.approx(100 * np.mean([y in row[:5] for y, row in zip(label, order, strict=True)]))


def test_classes_without_videos_take_no_part_in_the_mean() -> None:
    counts = Counts.of(torch.eye(4)[:2], torch.tensor([0, 1]))
    assert counts.mean_class == 100.0
