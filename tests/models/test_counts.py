"""The operations of an uncompiled step on a GPU, and the bytes that they touch, as scripts/count_kernels.py counts."""

from aim.engine.run.settings import Run
from aim.ground import config
from scripts.count_kernels import count


def test_a_step_of_the_paper_is_few_large_kernels() -> None:
    """Of 8 clips; as the plain model's operations were counted it took 2,125 and 77.1 GiB."""
    found = count(
        config.build(config.compose(["+experiment=k400", "backbone.weights=random", "precision=bf16"]), Run), 8
    )
    assert found.calls.total() <= 1400
    assert found.bytes.total() <= 47 * 2**30
    assert found.calls["short_attention"] == found.calls["short_attention_backward"] == 12
    assert found.calls["norm"] == found.calls["norm_backward"] == 36
    assert found.calls["quick_gelu"] == found.calls["quick_gelu_backward"] == 12


def test_products_in_float8_touch_little_more() -> None:
    """Of their operands' casts; before they were one kernel each, it was 3,601 operations and 127.3 GiB."""
    settings = ["+experiment=k400", "backbone.weights=random", "precision=fp8"]
    found = count(config.build(config.compose(settings), Run), 8)
    assert found.calls.total() <= 1500
    assert found.bytes.total() <= 50 * 2**30
    assert found.calls["rows"] == found.calls["_scaled_mm"]
