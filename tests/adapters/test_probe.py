"""The probe with positions: its size, its sense of time, and its computation beside a plain one."""

import json
import math
import runpy
from pathlib import Path

import pytest
import torch
from einops import rearrange
from torch import Tensor

from aim.adapters.interface import Tokens
from aim.adapters.probe import Layer
from tests.messages import refused
from tests.models.checks import saved_bytes, toy_model, tuned, video
from tests.models.test_trunks import FAMILIES
from tests.models.toys import adapter, randomise, toy

ROOT = Path(__file__).resolve().parents[2]
POSITIONS = ["none", "time", "sincos3d", "rope3d"]


def size(dim, width, depth, frames=0, hidden=4, token=False):
    """Projection, vectors per frame; of a layer: norm, q, k, v, projection and MLP with norm; the same of the pooler
    without a projection but with a query, or the token and its norm."""  # fmt: skip
    feed = 2 * width + (2 * hidden * width + hidden + 1) * width if hidden else 0
    layer = 2 * width + 4 * (width + 1) * width + feed
    pooler = 2 * width + width + 3 * (width + 1) * width + feed
    project = 0 if width == dim else (dim + 1) * width
    return project + frames * width + (depth * layer + 3 * width if token else (depth - 1) * layer + pooler)


@pytest.mark.parametrize(
    ("name", "trunk", "settings", "expected", "millions"),
    [
        ("probe", "clip_vit_b16", {}, size(768, 768, 4), 27.8),  # V-JEPA 2.1 B with its head: 27.9 M
        ("probe", "clip_vit_b16", {"width": 512, "positions": "rope3d"}, size(768, 512, 4), 12.7),
        ("probe", "dinov2_vit_s14", {"width": 1024, "depth": 5}, size(384, 1024, 5), 62.3),  # DINOv3's: 62 M
        ("probe", "swin_b", {"depth": 2, "positions": "time"}, size(1024, 1024, 2, frames=4), 24.1),
        ("step", "clip_vit_b16", {}, size(768, 768, 1, frames=8, hidden=0, token=True), 2.4),
    ],
)
def test_the_size_by_formula(name, trunk, settings, expected, millions):
    count = tuned(name, trunk, **settings)
    assert count == expected
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("name", ["probe", "step"])
@pytest.mark.parametrize("trunk", FAMILIES)
def test_the_order_of_frames_matters_with_positions_alone(trunk, name):
    """To rounding nothing changes without them, in any order."""
    tubelet = toy(trunk).tubelet
    clip = rearrange(video().double(), "b c (t r) h w -> b c t r h w", r=tubelet)
    orders = ([1, 0, 2, 3], [3, 1, 0, 2]) if tubelet == 1 else ([1, 0],)
    for positions in POSITIONS:
        model = toy_model(name, trunk, positions=positions).double().eval()
        randomise(model)
        with torch.no_grad():
            first, *others = (
                model.backbone(rearrange(clip[:, :, order], "b c t r h w -> b c (t r) h w"))
                for order in (slice(None), *orders)
            )
        change = max(((other - first).abs().max() / first.abs().max()).item() for other in others)
        assert change < 1e-12 if positions == "none" else change > 1e-7, (positions, change)


@pytest.mark.parametrize("name", ["probe", "step"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_it_computes_what_the_plain_one_does(name, positions):
    tokens, width = Tokens(num_frames=3, rows=2, columns=4, num_prefix_tokens=2), 140  # two heads of 70 channels
    cfg = adapter(name, positions=positions, width=width, depth=2)
    probe = cfg.readout([5, 6], tokens).double()
    randomise(probe)
    last = torch.randn(2, 3, 10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = plain_probe(probe.state_dict(), last, positions, tokens)
        torch.testing.assert_close(probe([], last), expected, rtol=1e-5, atol=1e-5)  # positions are float32


def test_the_first_token_alone_and_its_gradients_are_those_among_all():
    layer = Layer(140, adapter("step", width=140)).double()
    randomise(layer)
    x = torch.randn(2, 7, 140, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found, expected = layer(x, None, alone=True), layer(x, None)[:, :1]
    torch.testing.assert_close(found, expected)
    pairs = zip(*(torch.autograd.grad(y.square().sum(), layer.parameters()) for y in (found, expected)), strict=True)
    for ours, plain in pairs:
        torch.testing.assert_close(ours, plain)


def plain_probe(w: dict[str, Tensor], last: Tensor, positions: str, tokens: Tokens) -> Tensor:
    """The probe token by token, its rotations by complex numbers; `w` are its tensors by name."""
    places = [(0.5, 1.5)] * 2 + [(row, column) for row in range(tokens.rows) for column in range(tokens.columns)]
    places = [(t, *place) for t in range(tokens.num_frames) for place in places]
    x = linear(w, "project", last)
    if positions == "time":
        x = x + w["time"][:, None]
    x = x.flatten(1, 2)
    if positions in ("sincos3d", "rope3d"):
        x = x + torch.tensor([sines(place, x.shape[-1]) for place in places], dtype=x.dtype)
    if "token" in w:
        x, places = torch.cat([w["token"].repeat(2, 1, 1), x], 1), [(0.0, 0.0, 0.0), *places]
    turned = places if positions == "rope3d" else None
    layers = 2 if "token" in w else 1
    for i in range(layers):
        y = norm(w, f"layers.{i}.norm", x)
        q, k, v = linear(w, f"layers.{i}.attn.qkv", y).chunk(3, -1)
        x = x + linear(w, f"layers.{i}.attn.proj", attention(q, k, v, turned))
        x = x + feed(w, f"layers.{i}.feed", x)
    if "token" in w:
        return norm(w, "out", x[:, :1])
    query = w["out.attend.latent"].repeat(2, 1, 1)
    k, v = linear(w, "out.attend.kv", norm(w, "out.norm", x)).chunk(2, -1)
    y = query + attention(linear(w, "out.attend.q", query), k, v, None)
    return y + feed(w, "out.feed", y)


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(w, name, x):
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def feed(w, name, x):
    if f"{name}.norm.weight" not in w:
        return torch.zeros_like(x)
    y = linear(w, f"{name}.mlp.fc1", norm(w, f"{name}.norm", x))
    return linear(w, f"{name}.mlp.fc2", y * (1 + torch.erf(y / math.sqrt(2))) / 2)


def attention(q, k, v, places):
    """Two heads; each pair of channels is a complex number that a place turns."""
    heads = []
    for q_, k_, v_ in zip(q.chunk(2, -1), k.chunk(2, -1), v.chunk(2, -1), strict=True):
        if places is not None:
            q_, k_ = turn(q_, places), turn(k_, places)
        heads.append(torch.softmax(q_ @ k_.mT / math.sqrt(q_.shape[-1]), -1) @ v_)
    return torch.cat(heads, -1)


def turn(x, places):
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    turns = torch.zeros(pairs.shape[1:], dtype=torch.complex128)
    for i, place in enumerate(places):
        values = turns_of(place, x.shape[-1])
        turns[i] = torch.exp(1j * torch.tensor(values + [0.0] * (turns.shape[1] - len(values)), dtype=torch.float64))
    return torch.view_as_real(pairs * turns).flatten(-2)


def turns_of(place, width):
    count = width // 6
    return [where / 10_000 ** (k / count) for where in place for k in range(count)]


def sines(place, width):
    values = turns_of(place, width)
    found = [math.sin(value) for value in values] + [math.cos(value) for value in values]
    return found + [0.0] * (width - len(found))


def test_rotary_positions_come_on_top_of_sines():
    model, other = (toy_model("probe", positions=positions).eval() for positions in ("sincos3d", "rope3d"))
    randomise(model)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert (model(video()) - other(video())).abs().max() > 1e-6
        other.backbone.adapters["readout"].rope = None
        assert torch.equal(model(video()), other(video()))


@pytest.mark.parametrize("trunk", FAMILIES)
def test_the_trunk_keeps_nothing_for_the_backward_pass(trunk):
    model = toy_model("probe", trunk)
    seen = []
    model.backbone.adapters["readout"].register_forward_pre_hook(lambda _, inputs: seen.extend([*inputs[0], inputs[1]]))
    assert saved_bytes(model) > 0
    assert len(seen) == 1
    assert not seen[0].requires_grad


@pytest.mark.parametrize("name", ["probe", "step"])
def test_an_exported_one_takes_any_number_of_clips(name):
    probe = adapter(name).readout([24], Tokens(num_frames=2, rows=2, columns=2, num_prefix_tokens=1)).eval()
    last = torch.randn(3, 2, 5, 24)
    program = torch.export.export(probe, ([], last[:2]), dynamic_shapes=([], {0: torch.export.Dim("b")}))
    with torch.no_grad():
        torch.testing.assert_close(program.module()([], last), probe([], last))


@pytest.mark.parametrize(
    ("name", "setting", "expected"),
    [
        ("probe", {"depth": 1}, ["adapter.depth=1", "2", "adapter=attentive_probe"]),
        ("step", {"depth": 0}, ["adapter.depth=0", "1"]),
        ("probe", {"width": 5}, ["adapter.width=5", "null", "6"]),
        ("probe", {"mlp_ratio": -1.0}, ["adapter.mlp_ratio=-1", "4"]),
    ],
)
def test_a_setting_that_makes_no_probe_is_an_error(name, setting, expected):
    with refused(*expected):
        toy_model(name, **setting)


def test_the_table_is_that_of_the_results():
    script = runpy.run_path(str(ROOT / "scripts" / "probe_results.py"))
    known = json.loads((ROOT / "scripts" / "results" / "probes.json").read_text(encoding="utf-8"))
    assert script["table"](known) in (ROOT / "docs" / "probes.md").read_text(encoding="utf-8")
    assert set(known) <= {f"{data}/{readout}" for data in script["DATA"] for readout in script["READOUTS"]}
