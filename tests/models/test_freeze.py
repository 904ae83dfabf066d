from torch import nn

from aim.models.freeze import freeze_except
from tests.messages import refused


def model():
    return nn.ModuleDict({"trunk": nn.Linear(2, 2), "adapters": nn.Linear(2, 2), "head": nn.Linear(2, 2)})


def test_only_what_matches_is_trainable():
    net = model()
    assert freeze_except(net, ["adapters.*", "head.bias"]) == ["adapters.weight", "adapters.bias", "head.bias"]
    assert [name for name, p in net.named_parameters() if p.requires_grad] == [
        "adapters.weight",
        "adapters.bias",
        "head.bias",
    ]


def test_freezing_again_can_set_free():
    net = model()
    freeze_except(net, ["head.*"])
    assert freeze_except(net, ["*"]) == [name for name, _ in net.named_parameters()]
    assert all(p.requires_grad for p in net.parameters())


def test_a_pattern_that_matches_nothing_is_an_error():
    with refused("'adapter.*'", "adapters.bias", "adapters.weight"):
        freeze_except(model(), ["head.*", "adapter.*"])
