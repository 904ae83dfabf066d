"""Our kernels in Triton's interpreter, their operations, and on a GPU, against plain computations in float64."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.library import opcheck

from aim.models import float8, gpu, norm, quick_gelu, short_attention
from tests.conftest import ROOT, missing

# Frames, tokens, heads and channels: full and ragged tiles, sizes that are powers of two and that aren't, both limits.
SHAPES = [(8, 3, 3, 64), (5, 5, 2, 16), (2, 7, 1, 24), (33, 2, 2, 80), (64, 1, 1, 128)]
ROUNDING = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}


@pytest.fixture(scope="module")
def interpreted() -> ModuleType:
    """The kernels, run by Triton's interpreter, which has no products of bfloat16."""
    if importlib.util.find_spec("triton") is None:
        missing("no Triton")
    before = tritons()
    for name in before:
        del sys.modules[name]  # Triton's own functions are interpreted, too, if they are imported so
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        spec = importlib.util.spec_from_file_location("interpreted", ROOT / "aim" / "models" / "kernels.py")
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    for name, module in tritons().items():
        sys.modules[f"interpreted.{name}"] = module  # so that Python's end finds it
        del sys.modules[name]
    sys.modules.update(before)
    return found


def tritons() -> dict[str, ModuleType]:
    return {
        name: module
        for name, module in sys.modules.items()
        if name.split(".")[0] == "triton" and not name.startswith("triton._C")
    }


def far(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return ((ours.double() - theirs).abs().max() / theirs.abs().max()).item()


def drawn(frames: int, tokens: int, heads: int, channels: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """q, k and v of two clips, part of wider rows, and a gradient with the frames inside."""
    torch.manual_seed(0)
    rows = torch.randn(2 * frames, tokens, 3 * heads * channels + 8)[..., :-8].to(dtype)
    qkv = rearrange(rows, "(b t) n (three head e) -> b t n three head e", t=frames, three=3, head=heads)
    return qkv, torch.randn(2, tokens, heads, frames, channels).to(dtype).permute(0, 3, 1, 2, 4)


def exact(qkv: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Torch's own attention, and its gradient to q, k and v."""
    qkv = qkv.detach().double().requires_grad_()
    q, k, v = rearrange(qkv, "b t n three head e -> three b n head t e")
    y = rearrange(F.scaled_dot_product_attention(q, k, v), "b n head t e -> b t n head e")
    return y.detach(), torch.autograd.grad(y, qkv, gradient.double())[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_in_tiles_is_attention(interpreted: ModuleType, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    qkv, gradient = drawn(*shape, dtype)
    y, found = interpreted.short_attention(qkv), interpreted.short_attention_backward(qkv, gradient)
    theirs = exact(qkv, gradient)
    assert max(far(y, theirs[0]), far(found, theirs[1])) < ROUNDING[dtype]
    other = qkv.clone()
    other[-1, -1, -1, 0, -1] += 1  # a query in the last tile
    assert far(interpreted.short_attention(other), theirs[0]) > 10 * ROUNDING[dtype]


@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_in_one_kernel_is_a_layer_norm(interpreted: ModuleType, bias: bool) -> None:
    torch.manual_seed(0)
    x, weight = 3 * torch.randn(4, 5, 48) + 1, torch.randn(48)
    b = torch.randn(48) if bias else None
    gradient = torch.randn(4, 5, 48).bfloat16()
    exact = x.double().requires_grad_()
    y = F.layer_norm(exact, (48,), weight.double(), None if b is None else b.double(), 1e-5)
    expected = torch.autograd.grad(y, exact, gradient.double())[0]
    for normed, back in (
        (interpreted.norm, interpreted.norm_backward),
        (norm.forward, norm.backward),
        (norm.plain_norm, norm.plain_norm_backward),
    ):
        ours, kept, rstd = normed(x, weight, b, 1e-5)
        assert ours.dtype == kept.dtype == torch.bfloat16
        found = back(gradient, kept, rstd, weight)
        assert found.dtype == torch.float32
        assert far(ours, y.detach()) < 2**-7  # the interpreter cuts off what bfloat16 lacks
        assert far(found, expected) < 2**-7
        assert far(found, expected.roll(1, 0)) > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quick_gelu_is_what_its_formula_says(interpreted: ModuleType, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, gradient = (3 * torch.randn(3, 700).to(dtype) for _ in range(2))
    exact = x.double().requires_grad_()
    y = exact * torch.sigmoid(1.702 * exact)
    expected = torch.autograd.grad(y, exact, gradient.double())[0]
    for ours, back in (
        (interpreted.quick_gelu, interpreted.quick_gelu_backward),
        (quick_gelu.forward, quick_gelu.backward),
    ):
        assert far(ours(x), y.detach()) < ROUNDING[dtype]
        assert far(back(x, gradient), expected) < 2 * ROUNDING[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_in_float8_are_cast_by_their_largest_value(interpreted: ModuleType, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(20, 100).to(dtype)[:, :96]
    x[3] *= 1e-6
    x[4] = 0
    (ours, scale), (theirs, of_theirs) = interpreted.rows(x), float8.by_rows(x)
    torch.testing.assert_close(scale, of_theirs)
    # The interpreter rounds up to a power of two wrongly: to its half.
    assert (ours.float() == theirs.float()).float().mean() > 0.95
    x[5, 7] = float("nan")
    assert not interpreted.rows(x)[1].isfinite().all()  # so that a loss says it


def of_float8(values: Tensor, scale: Tensor) -> Tensor:
    assert (values.dtype, scale.dtype) == (torch.float8_e4m3fn, torch.float32)
    return values.double() * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_activations_and_gradients_are_cast_as_they_come(interpreted: ModuleType, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, gradient = (3 * torch.randn(40, 100).to(dtype)[:, :96] for _ in range(2))
    exact = x.double().requires_grad_()
    y = exact * torch.sigmoid(1.702 * exact)
    there = y.detach(), interpreted.rows_of_quick_gelu(x), float8.rows_of_quick_gelu(x)
    expected = torch.autograd.grad(y, exact, gradient.double())[0]
    back = [ours.rows_of_quick_gelu_backward(x, gradient) for ours in (interpreted, float8)]
    for theirs, *found in (there, (expected, *back)):
        assert_casts(theirs, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_three_gradients_are_cast_side_by_side(interpreted: ModuleType, dtype: torch.dtype) -> None:
    """By any strides: a head's channels apart from its neighbours', tokens inside of heads, an expanded axis."""
    torch.manual_seed(0)
    q = torch.randn(2, 5, 3, 20).to(dtype)[..., :16]
    k = 5 * torch.randn(2, 3, 5, 16).to(dtype).transpose(1, 2)
    v = torch.randn(2, 1, 3, 16).to(dtype).expand(2, 5, 3, 16)
    theirs = torch.cat([x.double().reshape(10, 48) for x in (q, k, v)], 1)
    assert_casts(theirs, [ours.rows_of_three(q, k, v) for ours in (interpreted, float8)])


def assert_casts(theirs: Tensor, found: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Ours, then torch's, are off by e4m3's rounding; but the interpreter rounds up to a power of two wrongly, and of
    numbers of 16 bits torch's form rounds each step."""
    scale = theirs.abs().amax(1, keepdim=True) / 448
    bound = theirs.abs() * (2**-4 + 2e-3) + scale * 2**-9
    for (values, of_rows), right in zip(found, (0.95, 0.99), strict=True):
        torch.testing.assert_close(of_rows.double(), scale, rtol=2e-3, atol=0)
        ours = of_float8(values, of_rows)
        assert ((ours - theirs).abs() <= bound).double().mean() >= right
        assert ((ours.roll(1, 1) - theirs).abs() <= bound).double().mean() < 0.5


def operations() -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    qkv, gradient = drawn(4, 3, 2, 16, torch.float32)
    x, row = torch.randn(3, 16), torch.randn(16)
    _, kept, rstd = norm.plain_norm(x, row, row, 1e-5)
    return [
        (short_attention.short_attention, (qkv.requires_grad_(),)),
        (short_attention.backward, (qkv.detach(), gradient)),
        (norm.forward, (x, row, None, 1e-5)),
        (norm.backward, (kept, kept, rstd, row)),
        (quick_gelu.forward, (x.clone().requires_grad_(),)),
        (quick_gelu.backward, (x, x)),
        (float8.rows, (x,)),
        (float8.rows_of_quick_gelu, (x,)),
        (float8.rows_of_quick_gelu_backward, (x, x)),
        (float8.rows_of_three, tuple(qkv.detach()[0].unbind(2))),
    ]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # opcheck's own
@pytest.mark.parametrize("i", range(10))
def test_operations_are_what_torch_asks_of_them(i: int) -> None:
    """Their schema, gradient, form for fake tensors, and compiled results."""
    opcheck(*operations()[i])


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_the_operation_s_gradient_is_that_of_attention(shape: tuple[int, ...]) -> None:
    qkv, gradient = drawn(*shape, torch.float32)
    theirs = exact(qkv, gradient)
    y = short_attention.short_attention(qkv.requires_grad_())
    assert far(y.detach(), theirs[0]) < 1e-6
    assert far(torch.autograd.grad(y, qkv, gradient)[0], theirs[1]) < 1e-6


def asked(frames: int, channels: int, dtype: torch.dtype = torch.bfloat16) -> bool:
    return short_attention.is_short(torch.empty(1, frames, 1, 3, 1, channels, dtype=dtype, device="meta"))


def test_what_has_no_tile_is_known() -> None:
    assert all(asked(*size) for size in ((2, 16), (64, 128), (8, 72)))
    assert not any(asked(*size) for size in ((1, 64), (65, 64), (8, 8), (8, 129)))
    assert asked(64, 64, torch.float32)
    assert asked(32, 128, torch.float32)
    assert not asked(33, 65, torch.float32)
    assert not asked(8, 64, torch.float64)


@pytest.mark.parametrize("wrong", [None, "short_attention", "short_attention_backward"])
def test_kernels_that_compute_something_else_are_not_used(wrong: str | None) -> None:
    """Either way of attention; the gradient's kernel is another one, which training alone would start."""

    def half(*given: Tensor) -> Tensor:
        return ways[wrong or ""](*given) / 2

    ways = {"short_attention": short_attention.plain, "short_attention_backward": short_attention.plain_backward}
    found = SimpleNamespace(**(ways if wrong is None else ways | {wrong: half}))
    if wrong is None:
        gpu.check(found, "cpu")
        return
    with pytest.raises(RuntimeError, match=f"^{wrong} "):
        gpu.check(found, "cpu")


def test_a_kernel_is_started_on_the_gpu_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton takes the current one, on which other addresses are no memory."""
    current = list[Tensor | None]()

    class Of:
        def __init__(self, x: Tensor) -> None:
            self.x = x

        def __enter__(self) -> None:
            current.append(self.x)

        def __exit__(self, *_: object) -> None:
            current.append(None)

    def kernel(x: Tensor) -> Tensor:
        assert current == [x]
        return x + 1

    monkeypatch.setattr(torch.cuda, "device_of", Of)
    monkeypatch.setattr(gpu, "kernels", lambda: SimpleNamespace(quick_gelu=kernel))
    assert gpu.on_gpu("quick_gelu", quick_gelu.plain, torch.zeros(1)) == 1
    assert current[-1] is None


CAPABILITIES = [80, 90, 100]
NAMES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def compiled(kernel: Any, capability: int, kinds: dict[str, str], sizes: dict[str, Any]) -> Any:
    """A kernel for a GPU, with arguments of these kinds; all others are sizes or integers."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {name: kinds.get(name, "constexpr" if name in sizes else "i32") for name in kernel.arg_names}
    target = GPUTarget("cuda", capability, 32)
    made = triton.compile(ASTSource(kernel, signature, sizes), target=target, options={"num_warps": 4})
    assert f".target sm_{capability}" in made.asm["ptx"]
    assert made.metadata.shared <= 99 * 1024  # that every GPU of Ampere and later has
    return made


@pytest.fixture
def kernels() -> ModuleType:
    """The kernels as a GPU has them."""
    if importlib.util.find_spec("triton") is None:
        missing("no Triton")
    from aim.models import kernels

    return kernels


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize(
    ("capability", "dtype", "frames", "channels"),
    [
        (90, "bf16", 8, 64),
        *(
            pytest.param(capability, *more, marks=pytest.mark.slow)
            for capability in CAPABILITIES
            for more in (("bf16", 8, 64), ("bf16", 64, 128), ("fp32", 8, 64), ("fp32", 32, 128))
        ),
    ],
)
def test_attention_compiles_for_gpus(
    kernels: ModuleType, capability: int, dtype: str, frames: int, channels: int
) -> None:
    qkv = torch.empty(1, frames, 197, 3, 12, channels, dtype=NAMES[dtype], device="meta")
    _, sizes = kernels.tiles(qkv)
    kinds = {"X": f"*{dtype}", "Y": f"*{dtype}", "GY": f"*{dtype}", "GX": f"*{dtype}", "scale": "fp32"}
    for kernel in (kernels._attend, kernels._attend_back):
        made = compiled(kernel, capability, kinds, sizes)
        assert made.asm["ptx"].count("mma") > 0 or dtype == "fp32"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_norms_and_activations_compile_for_gpus(kernels: ModuleType, capability: int) -> None:
    row = {"D": 768, "P": 1024}
    norm = {"X": "*fp32", "W": "*fp32", "B": "*fp32", "Y": "*bf16", "Z": "*bf16", "RSTD": "*fp32", "eps": "fp32"}
    compiled(kernels._norm, capability, norm, row | {"BIAS": True})
    compiled(kernels._norm_back, capability, norm | {"GY": "*bf16", "GX": "*fp32"}, row)
    activation = {"X": "*bf16", "Y": "*bf16", "GY": "*bf16", "GX": "*bf16"}
    compiled(kernels._quick_gelu, capability, activation, {"P": 1024})
    compiled(kernels._quick_gelu_back, capability, activation, {"P": 1024})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("capability", CAPABILITIES[1:])
def test_the_cast_to_float8_compiles_for_gpus(kernels: ModuleType, capability: int) -> None:
    kinds = dict.fromkeys(["X", "GY", "Q", "K", "V"], "*bf16") | {"Y": "*fp8e4nv", "SCALE": "*fp32"}
    kinds |= {"largest": "fp32", "smallest": "fp32"}
    row = {"D": 768, "P": 1024}
    made = [
        compiled(kernels._rows, capability, kinds, row | {"DO": do})
        for do in ("nothing", "quick_gelu", "quick_gelu_backward")
    ]
    made.append(compiled(kernels._rows_of_three, capability, kinds, row | {"E": 64}))
    assert all("e4m3x2" in each.asm["ptx"] for each in made)  # the GPU's own instruction


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [(s, dtype) for s in (*SHAPES, (64, 1, 1, 64)) for dtype in short_attention.TYPES if asked(s[0], s[3], dtype)],
    ids=str,
)
def test_on_a_gpu_attention_in_tiles_is_attention(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """On the last one where there are several, of which the first is the current one."""
    assert gpu.kernels() is not None
    qkv, gradient = (x.to(torch.device("cuda", torch.cuda.device_count() - 1)) for x in drawn(*shape, dtype))
    theirs = exact(qkv, gradient)
    y = short_attention.short_attention(qkv.requires_grad_())
    assert far(y.detach(), theirs[0]) < 10 * ROUNDING[dtype]
    assert far(torch.autograd.grad(y, qkv, gradient)[0], theirs[1]) < 10 * ROUNDING[dtype]


@pytest.mark.gpu
def test_on_a_gpu_what_lies_beyond_two_to_the_31_numbers_is_reached() -> None:
    base = torch.zeros(2**31 + 2**16, dtype=torch.bfloat16, device="cuda")
    end = base[2**31 :].copy_(torch.linspace(-1, 1, 2**16))
    assert far(quick_gelu.forward(base)[2**31 :].cpu(), quick_gelu.plain(end.cpu().double())) < 0.01
    qkv = base.as_strided((2, 8, 3, 3, 2, 64), (2**31, 9 * 128, 3 * 128, 128, 64, 1))
    near, gradient = qkv[1:].clone(), torch.randn(2, 8, 3, 2, 64, device="cuda").bfloat16()
    assert short_attention.forward(qkv)[1].equal(short_attention.forward(near)[0])
    found = short_attention.backward(qkv, gradient)
    assert found[1].equal(short_attention.backward(near, gradient[1:])[0])
    assert found[1].abs().amax() > 0


@pytest.mark.gpu
def test_on_a_gpu_norms_and_activations_are_what_they_are_elsewhere() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(50, 768), torch.randn(768), torch.randn(768)
    for ours, theirs in zip(norm.forward(x.cuda(), weight.cuda(), bias.cuda(), 1e-5),
                            norm.forward(x, weight, bias, 1e-5), strict=True):  # fmt: skip
        assert far(ours.cpu(), theirs.double()) < 0.01
    _, kept, rstd = norm.forward(x, weight, bias, 1e-5)
    given = norm.backward(*(each.cuda() for each in (kept, kept, rstd, weight)))
    assert far(given.cpu(), norm.backward(kept, kept, rstd, weight).double()) < 1e-5
    assert far(quick_gelu.forward(x.cuda()).cpu(), quick_gelu.forward(x).double()) < 1e-5
    assert far(quick_gelu.backward(x.cuda(), x.cuda()).cpu(), quick_gelu.backward(x, x).double()) < 1e-5


@pytest.mark.gpu
def test_on_a_gpu_casts_are_what_they_are_elsewhere() -> None:
    torch.manual_seed(0)
    x, gradient = (torch.randn(50, 3072).bfloat16() for _ in range(2))
    three = [x.transpose(1, 2) for x in torch.randn(3, 4, 12, 50, 64).bfloat16()]
    for cast, given in (
        (float8.rows, [x]),
        (float8.rows_of_quick_gelu, [x]),
        (float8.rows_of_quick_gelu_backward, [x, gradient]),
        (float8.rows_of_three, three),
    ):
        ours, theirs = cast(*(each.cuda() for each in given)), cast(*given)
        assert far(of_float8(*ours).cpu(), of_float8(*theirs)) < 2**-4


@pytest.mark.gpu
@pytest.mark.parametrize("frames", [8, 16, 32])
def test_on_a_gpu_attention_in_tiles_is_faster_than_torch_s(frames: int) -> None:
    """Forward and backward, as a ViT-B/16 has it: 64 frames of 197 tokens, 12 heads of 64 channels."""
    rows, *apart = (torch.randn(64, 197, n * 768, device="cuda").bfloat16().requires_grad_() for n in (3, 1, 1, 1))
    gradient = torch.randn(64, 197, 768, device="cuda").bfloat16()  # where the output's lies, either way

    def ours() -> None:
        qkv = rearrange(rows, "(b t) n (three head e) -> b t n three head e", t=frames, three=3, head=12)
        y = rearrange(short_attention.short_attention(qkv), "b t n head e -> (b t) n (head e)")
        torch.autograd.grad(y, rows, gradient)

    def torchs() -> None:
        q, k, v = (rearrange(x, "(b t) n (head e) -> b (n head) t e", t=frames, head=12) for x in apart)
        y = rearrange(F.scaled_dot_product_attention(q, k, v), "b (n head) t e -> (b t) n (head e)", head=12)
        torch.autograd.grad(y, apart, gradient)

    seconds = []
    for work in (ours, torchs):
        for _ in range(3):
            work()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(20):
            work()
        end.record()
        torch.cuda.synchronize()
        seconds.append(start.elapsed_time(end))
    print(f"attention over {frames} frames: {seconds[1] / seconds[0]:.2f} times as fast as torch's")
    assert seconds[0] < seconds[1]
