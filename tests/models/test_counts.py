"""The operations of an uncompiled step on a GPU, and the bytes that they touch, as scripts/count_kernels.py counts."""

from aim.engine.run.settings import Run
from aim.ground import config
from scripts.count_kernels import Kernels, count

BF16_BYTES = 45.8 * 2**30


def counted(precision: str) -> Kernels:
    settings = ["+experiment=k400", "backbone.weights=random", f"precision={precision}"]
    return count(config.build(config.compose(settings), Run), 8)


def test_a_step_of_the_paper_is_few_large_kernels() -> None:
    """Of 8 clips; as the plain model's operations were counted it took 2,125 and 77.1 GiB."""
    found = counted("bf16")
    assert found.calls.total() <= 1400
    assert found.bytes.total() <= BF16_BYTES
    assert found.calls["short_attention"] == found.calls["short_attention_backward"] == 12
    assert found.calls["norm"] == found.calls["norm_backward"] == 36
    assert found.calls["quick_gelu"] == found.calls["quick_gelu_backward"] == 12


def test_products_in_float8_touch_no_more() -> None:
    """Casts are part of the operation before; as torch's operations they took 3,601 and 127.3 GiB in all."""
    found = counted("fp8")
    assert found.calls.total() <= 1460
    assert found.bytes.total() <= BF16_BYTES
    casts = {name: found.calls[name] for name in found.calls if name.startswith("rows")}
    assert sum(casts.values()) == found.calls["_scaled_mm"]
    assert casts["rows_of_quick_gelu"] == casts["rows_of_quick_gelu_backward"] == 12
    assert casts["rows_of_three"] == 11
