"""Products in float8 against float64, of layers and whole models, and the layers that have them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aim.engine.machine.hardware import suit
from aim.models.classifier import plainly
from aim.models.compiling import compile_blocks
from aim.models.float8 import Float8Linear, around_quick_gelu, by_rows
from aim.models.flops import gmacs_per_view
from aim.models.freeze import num_parameters
from tests.messages import refused
from tests.models.checks import saved_bytes, toy_model, video
from tests.models.test_memory import MEMORY, computed, far, toy
from tests.models.test_trunks import FAMILIES

ROUNDING, STEP = 2**-4, 2**-10  # e4m3's: relative, and half the smallest step, of a row whose largest value is 448
BF16 = 2**-8


def layer(parts):
    torch.manual_seed(0)
    frozen = nn.Linear(96, 192).requires_grad_(False)
    frozen.weight[3] *= 1000  # a row beside which the others would vanish
    return frozen, Float8Linear(frozen, parts)


def bound(x, weight):
    """The largest error of a product of rows "m k" and "n k", each factor rounded to e4m3."""

    def error(y):
        return ROUNDING * y.abs() + STEP / 448 * y.abs().amax(-1, keepdim=True)

    sizes, errors = (x.abs(), weight.abs()), (error(x), error(weight))
    off = sizes[0] @ errors[1].T + errors[0] @ sizes[1].T + errors[0] @ errors[1].T
    return off + BF16 * (sizes[0] @ sizes[1].T + off)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_layer_and_its_gradient_are_off_by_the_rounding_alone(parts):
    frozen, ours = layer(parts)
    x = torch.randn(50, 96)
    x[7] *= 1e-6
    x.requires_grad_()
    y = ours(x)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    weight, bias = frozen.weight.double(), frozen.bias.double()
    pairs = [
        (y - bias, x.double(), weight),
        (x.grad, gradient.double(), weight.T),
    ]
    for found, a, b in pairs:
        exact, most = a @ b.T, bound(a, b)
        assert ((found - exact).abs() <= most + BF16 * bias.abs().max()).all()
    plain = [row for row in range(50) if row != 7]
    off = (y - bias - pairs[0][1] @ weight.T)[plain].norm() / (pairs[0][1] @ weight.T)[plain].norm()
    assert 0.01 < off < 0.05  # of bfloat16 it would be 0.003
    assert frozen.weight.grad is None


def test_the_parts_of_qkv_are_its_rows():
    frozen, ours = layer(3)
    x = torch.randn(5, 7, 96)
    parts = [ours.product(x, slice(i, i + 1), frozen.bias.chunk(3)[i]) for i in range(3)]
    assert torch.equal(torch.cat(parts, -1), ours(x))


def test_parts_with_heads_are_those_of_qkv_there_and_back():
    frozen, ours = layer(3)
    x, gradient = torch.randn(5, 7, 96, requires_grad=True), torch.randn(5, 7, 192)
    whole = ours(x)
    apart = ours.apart(x, frozen.bias, 4)
    assert torch.equal(torch.cat([y.flatten(2) for y in apart], -1), whole)
    given = [y.unflatten(2, (4, 16)) for y in gradient.chunk(3, -1)]
    found, expected = torch.autograd.grad(apart, x, given), torch.autograd.grad(whole, x, gradient)
    assert torch.equal(found[0], expected[0])


def test_two_layers_around_an_activation_are_as_good_in_one():
    torch.manual_seed(0)
    fc1, fc2 = (nn.Linear(*sizes).requires_grad_(False) for sizes in ((96, 384), (384, 96)))
    x, gradient = torch.randn(5, 7, 96, requires_grad=True), torch.randn(5, 7, 96)

    def results(fc1, fc2):
        hidden = fc1(x)
        y = fc2(hidden * torch.sigmoid(1.702 * hidden))
        return y, *torch.autograd.grad(y, x, gradient)

    exact = results(fc1, fc2)
    first, second = Float8Linear(fc1, 1), Float8Linear(fc2, 1)
    y = around_quick_gelu(first, second, x)
    for ours, apart, theirs in zip(
        (y, *torch.autograd.grad(y, x, gradient)), results(first, second), exact, strict=True
    ):
        off = (ours - theirs).norm() / theirs.norm()
        assert 0.01 < off < 1.1 * (apart - theirs).norm() / theirs.norm()


def test_rows_of_any_size_keep_their_digits():
    x = torch.tensor([[1.0, 0.5, -0.25], [1e30, 5e29, 0.0], [3e-30, -1.5e-30, 0.0], [0.0, 0.0, 0.0]])
    values, scale = by_rows(x)
    torch.testing.assert_close(values.float() * scale, x, rtol=1e-6, atol=0)
    assert by_rows(torch.tensor([[1.0, float("nan")]]))[0].float().isnan().any()  # so that a loss says it


WAYS = [*((trunk, "cpu") for trunk in FAMILIES), ("clip_vit_b16", "cuda"), ("dinov3_vit_s16", "cuda")]


@pytest.mark.parametrize(("trunk", "device"), WAYS)
def test_a_model_is_near_the_exact_one_whatever_is_kept(trunk, device):
    model, clips = toy(trunk), video()
    with plainly(model):
        exact = computed(model.double(), clips.double())
    model.float()
    names, counted = list(model.state_dict()), (gmacs_per_view(model), num_parameters(model))
    suit(model, "fp8", device)
    assert (gmacs_per_view(model), num_parameters(model)) == counted
    assert list(model.state_dict()) == names
    with torch.autocast("cpu", torch.bfloat16):
        fast = computed(model, clips)
        for memory in MEMORY[1:]:
            model.backbone.memory = memory
            assert far(computed(model, clips), fast) < 0.01
    ours, theirs = (torch.cat([x.double().flatten() for x in each.values()]) for each in (fast, exact))
    assert torch.cosine_similarity(ours, theirs, 0) > 0.999
    assert far(fast, exact) < 0.03
    layers = [name for name, module in model.named_modules() if isinstance(module, Float8Linear)]
    assert {name.rpartition(".")[2] for name in layers} <= {"qkv", "q_proj", "k_proj", "v_proj", "proj", "fc1", "fc2"}
    assert not [name for name in layers if "adapters" in name or "patch_embed" in name]


def test_what_is_kept_is_no_more_than_in_bf16():
    sizes = {}
    for precision in ("bf16", "fp8"):
        for memory in MEMORY:
            model = toy("clip_vit_b16", memory=memory)
            suit(model, precision, "cpu")
            with torch.autocast("cpu", torch.bfloat16):
                sizes[precision, memory] = saved_bytes(model)
    assert sizes["fp8", "fast"] > sizes["fp8", "lean"] > sizes["fp8", "smallest"]
    assert all(sizes["fp8", memory] <= sizes["bf16", memory] for memory in MEMORY)


@pytest.mark.slow
def test_compiled_blocks_compute_the_same():
    torch.compiler.reset()
    model = toy("clip_vit_b16")
    suit(model, "fp8", "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        plain = computed(model, video())
        compile_blocks(model, "aot_eager")
        assert far(computed(model, video()), plain) < 0.02
    torch.compiler.reset()


def test_what_lora_adds_to_is_not_in_float8():
    model = toy_model("lora", layers=["attn.q", "attn.v"])
    suit(model, "fp8", "cpu")
    block = model.backbone.views[0].block
    assert not isinstance(block.attn.qkv, Float8Linear)
    assert all(isinstance(each, Float8Linear) for each in (block.attn.proj, block.mlp.fc1, block.mlp.fc2))
    with torch.autocast("cpu", torch.bfloat16):
        F.cross_entropy(model(video()), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_model_without_frozen_layers_is_refused():
    with refused("precision=fp8", "precision=bf16", "frozen"):
        suit(toy_model("full"), "fp8", "cpu")


def test_weights_that_are_loaded_are_cast_again():
    frozen, ours = layer(3)
    x, before = torch.randn(5, 96), frozen.state_dict()
    other = Float8Linear(nn.Linear(96, 192).requires_grad_(False), 3)
    assert (other(x) - ours(x)).abs().max() > 0.1
    other.load_state_dict(before)
    assert torch.equal(other(x), ours(x))
    other.load_state_dict({}, strict=False)
    assert torch.equal(other(x), ours(x))
