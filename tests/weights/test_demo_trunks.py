"""The demo's trunks of four sizes: their tensors, every adapter in them, the measure of their quality."""

import hashlib
import json
import runpy
from typing import Any

import pytest
import torch
from torch import Tensor

from aim.models.classifier import build
from aim.models.families import FAMILIES
from aim.models.trunk import load_trunk
from aim.weights.trunk import fingerprint, read_tensors, weights_file
from tests.conftest import ROOT
from tests.models.toys import adapter, backbone, names

FILES = ROOT / "aim" / "weights"
PARAMETERS = {  # at least, at most
    "demo_xs": (5e3, 10e3),
    "demo_s": (80e3, 100e3),
    "demo": (0.85e6, 0.95e6),
    "demo_l": (2.5e6, 3.0e6),
}
TRUNKS = [name for name in PARAMETERS if name in names("backbone")]
SPATIAL = {"temporal": False, "joint": False}


@pytest.fixture(scope="module")
def quality() -> dict[str, Any]:
    return json.loads((FILES / "demo_trunks.json").read_text(encoding="utf-8"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return runpy.run_path(str(ROOT / "scripts" / "measure_demo_trunks.py"))


def test_their_names_are_those_of_the_configs_by_size(quality: dict[str, Any]) -> None:
    assert list(quality) == TRUNKS
    assert sorted(quality) == [name for name in names("backbone") if name.startswith("demo")]


def test_together_they_are_small() -> None:
    files = sorted(FILES.glob("demo*.safetensors"))
    assert len(files) == len(TRUNKS)
    assert sum(path.stat().st_size for path in files) <= 16e6


def test_the_first_is_the_one_that_the_results_rest_on() -> None:
    content = (FILES / "demo_trunk.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "2eb36b644cc5bf67e961f1c5538307ccdba916c40b203b33d9e8b1b646d019e9"


@pytest.mark.parametrize("name", TRUNKS)
def test_a_trunk_is_of_its_size_and_holds_what_its_file_does(name: str, quality: dict[str, Any]) -> None:
    own = backbone(name, None)
    trunk = load_trunk(own.name, own.weights, 64, own.options, FAMILIES)
    state = trunk.module.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    stored = read_tensors(weights_file(own.weights))
    assert trunk.fingerprint == fingerprint(stored)
    low, high = PARAMETERS[name]
    assert low <= sum(tensor.numel() for tensor in stored.values()) <= high
    assert quality[name]["parameters"] == sum(parameter.numel() for parameter in trunk.module.parameters())


@pytest.mark.parametrize("name", TRUNKS)
def test_they_differ_in_shape_alone(name: str) -> None:
    ours, demo = (vars(backbone(each, None)) for each in (name, "demo"))
    apart = {key for key in ours if ours[key] != demo[key]}
    assert apart <= {"weights", "options"}
    options = {key for key in demo["options"] if ours["options"][key] != demo["options"][key]}
    assert options <= {"embed_dim", "depth", "num_heads"}


@pytest.mark.parametrize("kind", [*names("adapter"), "spatial"])
@pytest.mark.parametrize("name", TRUNKS)
def test_every_adapter_learns_in_every_trunk(name: str, kind: str) -> None:
    of_width = {"vjepa_probe": {"heads": None}}  # the published 16 don't divide such narrow trunks
    settings = adapter("aim_demo", **SPATIAL) if kind == "spatial" else adapter(kind, **of_width.get(kind, {}))
    torch.manual_seed(0)
    model = build(backbone(name, None), settings, num_classes=8, num_frames=8, size=64, dropout=0.0)
    logits = model(torch.rand(2, 3, 8, 64, 64))
    assert logits.shape == (2, 8)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert gradients
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_the_errors_are_within_their_intervals(quality: dict[str, Any]) -> None:
    for entry in quality.values():
        low, high = entry["interval"]
        assert 0 < low < entry["probe_error"] < high < 1
        assert high - low < 0.05  # 2 x 1.96 x sqrt(0.25 / 2000), at most
        assert entry["steps"] == 3600


def blobs(count: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Points about six corners."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(6, (count,), generator=generator)
    at = 3 * torch.eye(6)[labels] + noise * torch.randn(count, 6, generator=generator)
    return at.double(), labels


def test_the_probe_is_right_where_classes_are_apart_and_guesses_where_they_are_not(script: dict[str, Any]) -> None:
    error, low, high = script["probe_error"](blobs(600, 0.1, 1), blobs(300, 0.1, 2))
    assert error == low == 0
    assert high == pytest.approx(3.8416 / (300 + 3.8416), rel=1e-3)  # Wilson's for none of 300
    noise = torch.randn(2600, 6, generator=torch.Generator().manual_seed(3)).double()
    train, test = (noise[:600], blobs(600, 0.1, 1)[1]), (noise[600:], blobs(2000, 0.1, 2)[1])
    error, low, high = script["probe_error"](train, test)
    assert low < 5 / 6 < high


def test_the_probe_is_at_the_optimum_of_noisy_classes(script: dict[str, Any]) -> None:
    """Equal round blobs: no rule beats the nearest corner."""
    test = blobs(2000, 1.5, 5)
    best = (test[0].argmax(1) != test[1]).double().mean().item()
    error, low, high = script["probe_error"](blobs(4000, 1.5, 4), test)
    assert low < best < high
    assert error >= best - 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo_xs", "demo"])
def test_measured_again_it_is_what_is_written(name: str, script: dict[str, Any], quality: dict[str, Any]) -> None:
    entry = script["measure"](name, script["fresh"](*script["TRAIN"]), script["fresh"](*script["TEST"]))
    assert entry["probe_error"] == pytest.approx(quality[name]["probe_error"], abs=0.005)
    assert entry | {"probe_error": 0, "interval": 0} == quality[name] | {"probe_error": 0, "interval": 0}
