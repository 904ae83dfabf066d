"""The examples of docs/extending.md, run from its text."""

import ast
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from aim.engine.run.settings import Run
from aim.engine.trained.recogniser import load
from aim.ground import config, kinds
from aim.models.freeze import num_parameters
from aim.train import verb as train
from tests.conftest import ROOT
from tests.messages import refused
from tests.toy import TOY, evaluate, videos

TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of the document, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The example's YAML, its code importable under the name that it gives."""
    module = ModuleType("aim.adapters.time_conv")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    code, line = blocks("python")
    for kind, path in ast.literal_eval(f"{{{line}}}").items():
        monkeypatch.setitem(kinds.KINDS["adapter"], kind, path)
    exec(compile(code, "docs/extending.md", "exec"), module.__dict__)
    found: dict[str, Any] = yaml.safe_load(blocks("yaml")[0])
    return found


def composed(group: str, values: dict[str, Any], *overrides: str) -> Any:
    """The toy with a group of a new file of configs/."""
    cfg = config.compose([*TOY, *overrides])
    OmegaConf.update(cfg, group, values, merge=False)
    return cfg


def test_the_adapter_of_the_example_trains_and_predicts(
    adapter: dict[str, Any], tmp_path: Path, toy_cache: Path
) -> None:
    train.main(composed("adapter", adapter, f"run_dir={tmp_path}", "train.epochs=1"))
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    width, depth, classes = 32, 2, 8
    norm = 2 * width  # the trunk's last
    head = classes * (width + 1)
    assert found["params_tuned"] in (depth * 4 * width + head, depth * 4 * width + head + norm)
    recogniser = load(tmp_path / "best.safetensors")
    assert recogniser.predict_file(videos(toy_cache)[0]).sum().item() == pytest.approx(1.0, abs=1e-5)


def test_an_adapter_of_somebody_elses_package_trains_resumes_and_is_refused_in_a_received_file(
    adapter: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_cache: Path
) -> None:
    monkeypatch.setitem(sys.modules, "their_package", sys.modules["aim.adapters.time_conv"])
    theirs = {"_target_": "their_package.TimeConv"} | {key: value for key, value in adapter.items() if key != "kind"}
    for epochs in (1, 2):
        train.main(composed("adapter", theirs, f"run_dir={tmp_path}", f"train.epochs={epochs}"))
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["epochs"] == 2
    with refused("_target_: their_package.TimeConv"):
        load(tmp_path / "best.safetensors")
    with refused("_target_: their_package.TimeConv"):
        evaluate(tmp_path, tmp_path / "eval")


def test_the_examples_adapter_starts_as_the_image_model_and_learns_order(adapter: dict[str, Any]) -> None:
    model = config.build(composed("adapter", adapter), Run).model(8).eval()
    plain = config.build(config.compose([*TOY, "adapter=none"]), Run).model(8).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    video = torch.randint(256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(model(model.preprocess(video)), plain(plain.preprocess(video)))
    assert num_parameters(model)[0] > num_parameters(plain)[0]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)
        if "adapters" in name:
            parameter.normal_()
    moved = [
        (made(made.preprocess(video)) - made(made.preprocess(video.flip(1)))).abs().max() for made in (model, plain)
    ]
    assert moved[0] > 1e-5 > 1e-7 > moved[1]


def test_the_data_set_of_the_example_is_read(tmp_path: Path, toy_cache: Path) -> None:
    (tmp_path / "classes.txt").write_text("walk\nswim\n")
    for name in ("train", "val"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}/{i}.mp4 {i % 2}\n" for i in range(4)))
        (tmp_path / name).mkdir()
        for i, path in enumerate(videos(toy_cache)[:4]):
            (tmp_path / name / f"{i}.mp4").symlink_to(path)
    values = yaml.safe_load(blocks("yaml")[1]) | {"root": str(tmp_path), "workers": 0}
    train.main(composed("data", values, f"run_dir={tmp_path / 'run'}", "train.epochs=1"))
    found = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert (found["num_videos"], found["num_classes"]) == (4, 2)
