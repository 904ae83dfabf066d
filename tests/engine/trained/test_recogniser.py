"""Every verb that uses a trained model makes it ready for a device in one place."""

from pathlib import Path

import pytest
import torch

import aim
from aim.engine.machine import hardware
from aim.engine.trained import recogniser
from aim.engine.trained.recogniser import load, ready
from aim.explain import verb as explain
from aim.features import verb as features
from aim.ground import config
from aim.predict import verb as predict
from tests.messages import named, refused
from tests.toy import videos

VERBS = {
    "predict": (predict, []),
    "features": (features, ["out=OUT"]),
    "features of a trunk": (features, ["out=OUT", "backbone=demo", "clip.num_frames=4", "clip.size=64"]),
    "explain": (explain, ["method=gradient"]),
    "explain by occlusion": (explain, ["cells=2"]),
}


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("name", VERBS)
def test_every_verb_stores_and_computes_as_suits_the_device(
    name: str, precision: str, unbroken: Path, toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, words = VERBS[name]
    seen = []

    def spy(model: torch.nn.Module, precision: hardware.Precision, device: str) -> None:
        hardware.suit(model, precision, device)  # type: ignore[arg-type]
        seen.append((model, precision, device))

    monkeypatch.setattr(recogniser, "suit", spy)
    trained = [] if "backbone=demo" in words else [f"checkpoint={unbroken}"]
    asked = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    here = ["device=cpu", "workers=0", "reader=pyav", f"precision={precision}", f"input={videos(toy_cache)[0]}"]
    module.main(config.compose([*trained, *asked, *here], name.split()[0]))
    ((model, *how),) = seen
    assert how == [precision, "cpu"]
    attention = model.backbone.views[0].block.attn
    assert attention.qkv.weight.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    assert attention.fused_attn == (precision == "fp32")
    assert not model.training


def test_what_auto_comes_to_is_settled_before_anything_is_loaded(
    unbroken: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recogniser, "resolve_device", lambda asked: "cpu" if asked == "auto" else asked)
    monkeypatch.setattr(hardware, "computes_in_bf16", lambda device: True)

    def make() -> recogniser.Recogniser:
        named(capsys.readouterr().err, "device=auto", "cpu", "precision=auto", "bf16")
        return load(unbroken)

    found, precision = ready(make, device="auto", precision="auto")
    assert (precision, found.device.type) == ("bf16", "cpu")
    assert ready(lambda: load(unbroken), device="auto", precision="auto", told=False)[1] == "bf16"
    assert capsys.readouterr().err == ""


def test_threads_are_of_whoever_asks(unbroken: Path, toy_cache: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        for number, verb, more in (
            (3, predict, [f"input={videos(toy_cache)[0]}"]),
            (4, explain, [f"input={videos(toy_cache)[0]}", "method=gradient"]),
            (5, features, [f"input={videos(toy_cache)[0]}", f"out={tmp_path}"]),
        ):
            asked = [f"checkpoint={unbroken}", f"threads={number}", "device=cpu", "precision=fp32", *more]
            verb.main(config.compose(asked, verb.__name__.split(".")[1]))
            assert torch.get_num_threads() == number
        aim.load(str(unbroken), threads=2)
        assert torch.get_num_threads() == 2
        aim.load(str(unbroken))
        assert torch.get_num_threads() == 2
        with refused("threads=0", "1"):
            aim.load(str(unbroken), threads=0)
    finally:
        torch.set_num_threads(before)


def test_a_gpu_that_is_not_there_is_an_error_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("no driver")

    monkeypatch.setattr(torch.cuda, "init", broken)
    with refused("device=cuda", "CUDA", "(no driver)", "device=cpu"):
        ready(lambda: pytest.fail("loaded"), device="cuda", precision="auto")
