import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from aim.engine.scores import calibration
from aim.engine.scores.calibration import fit_temperature
from aim.engine.scores.tasks import SINGLE_LABEL


def drawn(n: int, sharpness: float, views: int = 1) -> tuple[Tensor, Tensor]:
    """Log-probabilities that are `sharpness` times as sure as they should be, and labels."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, 1, 6, generator=generator)
    label = torch.multinomial(logits[:, 0].softmax(-1), 1, generator=generator)[:, 0]
    return (sharpness * logits).expand(-1, views, -1).log_softmax(-1), label


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("views", [1, 3])
def test_the_temperature_undoes_what_made_a_model_too_sure(sharpness: float, views: int) -> None:
    scores, label = drawn(4000, sharpness, views)
    assert fit_temperature(SINGLE_LABEL, scores, label) == pytest.approx(sharpness, rel=0.06)
    assert fit_temperature(SINGLE_LABEL, scores.half(), label) == pytest.approx(
        fit_temperature(SINGLE_LABEL, scores, label), rel=0.002
    )  # as it's kept


def test_the_search_finds_the_minimum_that_scipy_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, label = drawn(300, 2.0)
    scores = torch.cat([scores, scores.roll(1, 0)], 1)  # two views that disagree

    def cost(log_temperature: float) -> float:
        probability = (scores.double() / math.exp(log_temperature)).softmax(-1).mean(1)
        truth = probability[torch.arange(300), label]
        return float(calibration.PRIOR * log_temperature**2 - truth.log().sum())

    expected = math.exp(minimize_scalar(cost, bounds=(-2.3, 2.3), method="bounded", options={"xatol": 1e-6}).x)
    assert fit_temperature(SINGLE_LABEL, scores, label) == pytest.approx(expected, rel=1e-3)
    monkeypatch.setattr(calibration, "PART", 7)
    assert fit_temperature(SINGLE_LABEL, scores, label) == pytest.approx(expected, rel=1e-3)


def test_few_videos_make_nothing_sure() -> None:
    right = torch.tensor([[[0.9, 0.1]]]).log()
    assert fit_temperature(SINGLE_LABEL, right.expand(3, -1, -1), torch.zeros(3, dtype=torch.int64)) > 0.8
    assert fit_temperature(SINGLE_LABEL, torch.empty(0, 1, 2), torch.empty(0, dtype=torch.int64)) == 1
    impossible = torch.tensor([[[0.0, -math.inf]]])
    assert fit_temperature(SINGLE_LABEL, impossible, torch.ones(1, dtype=torch.int64)) == pytest.approx(1, abs=1e-3)


def test_a_temperature_changes_no_best_label() -> None:
    scores, _ = drawn(50, 1.0)
    torch.testing.assert_close(SINGLE_LABEL.tempered(scores, 1.0), scores.exp())
    assert torch.equal(SINGLE_LABEL.tempered(scores, 3.0).argmax(-1), scores.argmax(-1))
    assert SINGLE_LABEL.tempered(scores, 3.0).max() < SINGLE_LABEL.tempered(scores, 1.0).max()
