"""The mean of the trained weights, against a plain computation."""

import pytest
import torch
from torch import Tensor, nn

from aim.engine.loop.ema import Average


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    layers[0].weight.requires_grad_(False)
    return layers


def by_hand(history: list[Tensor], decay: float) -> Tensor:
    """The mean of the weights before the first step and after each, in float64."""
    mean = history[0].double()
    for step, value in enumerate(history[1:], 1):
        share = min(decay, (1 + step) / (10 + step))
        mean = share * mean + (1 - share) * value.double()
    return mean


@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_the_mean_is_that_of_the_formula_and_of_what_is_trained_alone(decay: float) -> None:
    layers = model()
    average = Average(layers, decay)
    history = [layers[1].weight.detach().clone()]
    for step in range(1, 8):
        with torch.no_grad():
            layers[1].weight.add_(torch.randn(2, 4))
        average.update(step)
        history.append(layers[1].weight.detach().clone())
    assert average.mean.keys() == {"0.bias", "1.weight", "1.bias"}
    torch.testing.assert_close(average.mean["1.weight"].double(), by_hand(history, decay), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(average.mean["1.weight"].double(), by_hand(history[:-1], decay), rtol=1e-3)


def test_the_mean_is_in_place_in_the_block_alone_whatever_happens_there() -> None:
    layers = model()
    average = Average(layers, 0.5)
    with torch.no_grad():
        layers[1].weight.add_(1.0)
    average.update(1)
    live, mean = layers[1].weight.detach().clone(), average.mean["1.weight"].clone()
    inside = []

    def fails() -> None:
        inside.append(layers[1].weight.detach().clone())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), average.in_place():
        fails()
    assert torch.equal(inside[0], mean)
    assert torch.equal(layers[1].weight, live)
    assert torch.equal(average.mean["1.weight"], mean)
    assert not torch.equal(live, mean)


def test_without_a_decay_it_is_empty_and_the_weights_stay() -> None:
    layers = model()
    average, before = Average(layers, None), layers[1].weight.detach().clone()
    average.update(1)
    average.swap()
    average.restore({})
    assert average.mean == {}
    assert torch.equal(layers[1].weight, before)


def test_an_update_waits_for_nothing() -> None:
    layers = model().to("meta")
    average = Average(layers, 0.9)
    average.update(1)
    average.swap()
