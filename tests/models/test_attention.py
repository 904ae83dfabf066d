"""The calls of attention on a GPU, as far as a CPU shows them."""

import torch

from aim.models import attention
from tests.models.checks import toy_model, video


def test_one_query_keeps_off_cudnn_and_many_do_not(monkeypatch):
    """The last block of a trunk that pools its class token has that token as its only query."""
    asked = {}
    original = attention.F.scaled_dot_product_attention

    def watched(q, *args, **kwargs):
        asked.setdefault(q.shape[-2], set()).add(torch.backends.cuda.cudnn_sdp_enabled())
        return original(q, *args, **kwargs)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", watched)
    toy_model("aim", "clip_vit_b16")(video())
    assert asked.pop(1) == {False}
    assert asked
    assert set.union(*asked.values()) == {True}
    assert torch.backends.cuda.cudnn_sdp_enabled()
