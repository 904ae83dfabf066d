"""Class weights and balanced losses against their published formulas."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from aim.engine.scores.balancing import balanced, class_weights, frequency_weights, positive_weights, video_weights
from aim.engine.scores.tasks import SINGLE_LABEL, MultiLabel

LABEL = np.repeat([0, 1, 2], [90, 9, 1])
MANY = np.array([[1, 0, 0]] * 6 + [[1, 1, 0]] + [[0, 0, 0]])


def test_weights_are_the_published_ones() -> None:
    count = np.array([100.0, 4.0, 0.0])
    assert frequency_weights(count, "inverse").tolist() == [0.01, 0.25, 0]
    assert frequency_weights(count, "root").tolist() == [0.1, 0.5, 0]
    # Cui et al., equation 2: E_n = (1 - b ** n) / (1 - b), the sum of b ** i over i < n.
    effective = [1 / sum(0.999**i for i in range(n)) for n in (100, 4)]
    assert frequency_weights(count, "effective") == pytest.approx([*effective, 0])


def test_weights_have_a_mean_of_one_over_the_videos_and_are_capped() -> None:
    for by in ("inverse", "root", "effective"):
        assert class_weights(LABEL, 3, by)[LABEL].mean() == pytest.approx(1)  # type: ignore[arg-type]
    assert class_weights(LABEL, 4, "inverse") == pytest.approx([100 / 270, 100 / 27, 100 / 3, 0])
    rare = class_weights(np.repeat([0, 1], [5000, 1]), 2, "inverse")
    assert rare[1] / rare[0] == pytest.approx(100)


def test_the_rarest_label_of_a_video_decides() -> None:
    assert video_weights(LABEL, "inverse")[[0, 90, 99]] == pytest.approx([1 / 90, 1 / 9, 1])
    assert video_weights(MANY, "inverse") == pytest.approx([1 / 7] * 6 + [1, 1 / 7])
    assert positive_weights(MANY, "inverse") == pytest.approx([1 / 7, 7, 1])
    assert positive_weights(MANY, "root") == pytest.approx([7**-0.5, 7**0.5, 1])


def test_losses_are_torchs_and_menons() -> None:
    logits = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    label = torch.from_numpy(LABEL)
    weight = torch.from_numpy(class_weights(LABEL, 3, "inverse")).float()
    task = balanced(SINGLE_LABEL, "loss", "inverse", label, 3)
    own = task.loss(logits, label, 0.0)
    torch.testing.assert_close(own, F.cross_entropy(logits, label, weight, reduction="none"))
    assert float(own.mean()) == pytest.approx(float(F.cross_entropy(logits, label, weight)), rel=1e-5)
    mixed = task.target(label, 3, mixed=True)
    torch.testing.assert_close(task.loss(logits, mixed, 0.0), own)
    adjusted = balanced(SINGLE_LABEL, "logits", "root", label, 3)
    prior = torch.tensor([0.9, 0.09, 0.01])
    by_hand = -(prior * logits.exp())[torch.arange(100), label].log() + (prior * logits.exp()).sum(1).log()  # eq. 10
    torch.testing.assert_close(adjusted.loss(logits, label, 0.0), by_hand)
    assert torch.equal(adjusted.probability(logits), SINGLE_LABEL.probability(logits))
    assert balanced(SINGLE_LABEL, "sample", "root", label, 3) is SINGLE_LABEL


def test_labels_of_several_are_weighted_class_by_class() -> None:
    logits = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    label = torch.from_numpy(MANY)
    task = MultiLabel(2.0)
    found = balanced(task, "loss", "inverse", label, 3).loss(logits, label.float(), 0.0)
    each = [
        2 * w * y * F.softplus(-x) + (1 - y) * F.softplus(x)
        for w, y, x in zip((1 / 7, 7, 1), label.T, logits.T, strict=True)
    ]
    torch.testing.assert_close(found, sum(each) / 3)
