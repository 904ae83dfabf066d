"""Every fast path against the plain one of `plainly`: outputs, gradients, and the memory kept for them."""

import pytest
import torch
import torch.nn.functional as F

from aim.engine.run.step import kept_by
from aim.models import attention
from aim.models.attention import attend_by_products, compute_by_large_kernels
from aim.models.classifier import plainly
from aim.models.memory import store_frozen
from scripts.convert_official import to_official, under_public_names
from tests.models.checks import saved_bytes, toy_model, video
from tests.models.plain import PlainAIM
from tests.models.test_classifier import FITTING
from tests.models.test_trunks import FAMILIES
from tests.models.toys import FRAMES, SIZE, composed, image_trunks, randomise

MEMORY = ["fast", "lean", "smallest"]


def toy(trunk, name="aim", memory="fast", **overrides):
    """A model in which every weight matters, without randomness."""
    settings = {"drop_path": 0.0, "ratio": 0.5} | overrides
    model = toy_model(name, trunk, **{key: settings[key] for key in settings if key in composed("adapter", name)})
    randomise(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)  # of logits near 1, as trained ones are
    model.backbone.memory = memory
    return model


def computed(model, clips):
    """Logits, and the gradient of every trained parameter."""
    model.zero_grad()
    logits = model(clips)
    F.cross_entropy(logits.float() if logits.dtype == torch.bfloat16 else logits, torch.tensor([0, 1])).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach()} | gradients


def far(ours, theirs):
    """The largest difference over the largest value, of the logits and of all gradients together."""
    assert ours.keys() == theirs.keys()
    names = [name for name in theirs if name != "logits"]
    flat = [torch.cat([x[name].double().flatten() for name in names]) for x in (ours, theirs)]
    pairs = [(ours["logits"].double(), theirs["logits"].double()), flat]
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


# By default each trunk of configs/ under AIM, and each adapter in a CLIP; `pytest -m slow` takes all pairs of families.
PAIRS = [(trunk, "aim") for trunk in image_trunks()] + [pair for pair in FITTING if pair[1] != "aim"]
SLOW = [pair for pair in PAIRS if pair[1] != "aim" and pair[0] != "clip_vit_b16"]


@pytest.mark.parametrize(
    ("trunk", "name"), [pytest.param(*pair, marks=[pytest.mark.slow] * (pair in SLOW)) for pair in PAIRS]
)
def test_every_way_equals_the_plain_one(trunk, name):
    model = toy(trunk, name)
    with plainly(model):
        plain = computed(model, video())
        exact = computed(model.double(), video().double())
    assert far(computed(model, video().double()), exact) < 1e-10
    model.float()
    for memory in MEMORY:
        model.backbone.memory = memory
        assert far(computed(model, video()), plain) < 1e-5


ON_GPU = [(trunk, "aim", "fast") for trunk in FAMILIES] + [
    *(("clip_vit_b16", "aim", memory) for memory in MEMORY[1:]),
    *(("clip_vit_b16", name, "fast") for name in ("lora", "timesformer", "st_adapter", "full")),
    *((trunk, name, "fast") for trunk in ("vjepa2_l", "vjepa21_b", "videomae_b") for name in ("st_adapter", "full")),
]


@pytest.mark.parametrize(("trunk", "name", "memory"), ON_GPU)
def test_the_way_of_a_gpu_equals_the_plain_one(trunk, name, memory):
    model = toy(trunk, name, memory)
    with plainly(model):
        plain = computed(model, video())
        exact = computed(model.double(), video().double())
    compute_by_large_kernels(model)
    assert far(computed(model, video().double()), exact) < 1e-10
    assert far(computed(model.float(), video()), plain) < 1e-5


@pytest.mark.parametrize("name", ["st_adapter", "none"])
@pytest.mark.parametrize("trunk", ["clip_vit_b16", "vjepa21_b"])
def test_on_a_gpu_one_product_makes_q_k_and_v_of_every_block(monkeypatch, trunk, name):
    """Also without an adapter; an image trunk's last block has the class token as its only query."""
    model, calls = toy(trunk, name), []
    one_product = attention.together
    monkeypatch.setattr(attention, "together", lambda attn, x: calls.append(attn) or one_product(attn, x))
    model(video())
    assert not calls
    compute_by_large_kernels(model)
    model(video())
    assert len(set(calls)) == len(model.backbone.views) - (trunk == "clip_vit_b16")


@pytest.mark.parametrize("variant", [{"temporal_in": True}, {"blocks": "first 1"}, {"blocks": "last 1"}], ids=str)
def test_every_way_equals_the_plain_one_in_variants_of_aim(variant):
    model = toy("clip_vit_b16", **variant).double()
    with plainly(model):
        exact = computed(model, video().double())
    assert far(computed(model, video().double()), exact) < 1e-10


@pytest.mark.parametrize("before", [["mlp"], ["attention", "mlp"]])
def test_an_adapter_that_wants_all_tokens_has_them(before):
    model = toy("clip_vit_b16", "st_adapter", before=before).double()
    with plainly(model):
        exact = computed(model, video().double())
    assert far(computed(model, video().double()), exact) < 1e-10


@pytest.mark.parametrize("trunk", ["clip_vit_b16", "dinov3_vit_s16"])
def test_attention_by_products_equals_the_fused_one(trunk):
    model = toy(trunk).double()
    fused = computed(model, video().double())
    attend_by_products(model)
    assert far(computed(model, video().double()), fused) < 1e-10


def test_the_comparison_notices_a_wrong_projection():
    model = toy("clip_vit_b16").double()
    with plainly(model):
        exact = computed(model, video().double())
    with torch.no_grad():
        model.backbone.views[-1].block.attn.proj.weight[0, 0] += 0.1
    assert far(computed(model, video().double()), exact) > 1e-6


@pytest.mark.parametrize("memory", MEMORY)
def test_what_is_dropped_is_dropped_again(memory):
    """Recomputing draws the same paths: the gradient is that of the outputs."""
    model = toy("clip_vit_b16", memory=memory, drop_path=0.5).double().train()
    parameter = model.backbone.trunk.blocks[0].adapters["joint"].up.bias
    values = []
    for nudge in (0.0, 1e-6):
        torch.manual_seed(3)
        with torch.no_grad():
            parameter[0] += nudge
        model.zero_grad()
        loss = model(video().double()).square().sum()
        loss.backward()
        values.append(loss.item())
    assert parameter.grad[0].item() == pytest.approx((values[1] - values[0]) / 1e-6, rel=1e-3)


@pytest.mark.parametrize("trunk", FAMILIES)
def test_less_is_kept(trunk):
    model = toy(trunk)
    with plainly(model):
        sizes = [saved_bytes(model)]
    for memory in MEMORY:
        model.backbone.memory = memory
        sizes.append(saved_bytes(model))
    plain, fast, lean, smallest = sizes
    assert plain >= fast > lean > smallest
    assert lean < 0.8 * plain
    assert smallest < 0.25 * plain


def test_a_bf16_step_keeps_half():
    model, clips = toy("clip_vit_b16"), video()
    model.train()
    store_frozen(model, torch.bfloat16)
    with plainly(model), torch.autocast("cpu", torch.bfloat16):
        plain = kept_by(lambda: model(clips))
    attend_by_products(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert kept_by(lambda: model(clips)) < 0.6 * plain


@pytest.mark.parametrize("suited", [attend_by_products, compute_by_large_kernels])
@pytest.mark.parametrize("trunk", FAMILIES)
def test_frozen_matrices_stored_in_bfloat16_are_as_good_as_cast_ones(trunk, suited):
    model, clips = toy(trunk), video()
    with plainly(model):
        exact = computed(model.double(), clips.double())
        model.float()
        with torch.autocast("cpu", torch.bfloat16):
            plain = computed(model, clips)
    store_frozen(model, torch.bfloat16)
    suited(model)
    with torch.autocast("cpu", torch.bfloat16):
        ours = computed(model, clips)
    assert {p.dtype for p in model.parameters()} == {torch.float32, torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    error, permitted = (distance(x, exact) for x in (ours, plain))
    assert 0 < error < 1.25 * permitted  # of the same size; the roundings themselves differ


def distance(ours, exact):
    """The root of the summed squares of all differences, over that of all values."""
    a, b = (torch.cat([x[name].double().flatten() for name in exact]) for x in (ours, exact))
    return ((a - b).norm() / b.norm()).item()


def test_the_model_that_speed_is_measured_against_is_ours():
    model = toy("clip_vit_b16", ratio=0.25)
    cfg = {"size": SIZE, "patch": 8, "dim": 32, "depth": 3, "heads": 2, "num_frames": FRAMES}
    plain = PlainAIM(num_classes=5, dropout=0.0, scale=0.5, drop_path=0.0, **cfg)
    plain.load_state_dict(to_official("vit_clip", model.state_dict()))
    ours, theirs = computed(model, video()), computed(plain, video())
    logits = ours.pop("logits")
    assert far({"logits": logits} | under_public_names("vit_clip", ours), theirs) < 1e-5
