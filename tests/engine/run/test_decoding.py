"""data.workers=auto."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from aim.engine.machine.distributed import World
from aim.engine.run import decoding
from aim.engine.run.settings import Run
from aim.ground import config
from tests.messages import named
from tests.toy import TOY, run

CUDA, CPU = torch.device("cuda"), torch.device("cpu")
ASKED = {"data": {"workers": "auto"}}


def toy(*overrides: str) -> Run:
    return config.build(config.compose([*TOY, *overrides]), Run)


@pytest.mark.parametrize(
    ("device", "cores", "ranks", "seconds", "expected", "said"),
    [
        (CUDA, 64, 8, 1 / 163, 3, ["3", "64", "8", "6.1", "489"]),  # prepared: what 300 clips/s need, and a quarter
        (CUDA, 64, 8, 1 / 15, 7, ["7", "105", "300", "aim.prepare", "26"]),  # downloaded: all cores, and a warning
        (CUDA, 16, 1, 0.0, 15, ["15"]),  # nothing could be read
        (CPU, 16, 1, 0.1, 4, ["4", "40"]),
        (CPU, 1, 1, 0.1, 1, ["1", "10"]),
    ],
)
def test_auto_is_what_the_gpu_needs_as_far_as_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: torch.device,
    cores: int,
    ranks: int,
    seconds: float,
    expected: int,
    said: list[str],
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    monkeypatch.setattr(decoding, "num_cores", lambda: cores)
    monkeypatch.setattr(decoding, "seconds_a_clip", lambda *_: seconds)
    monkeypatch.setattr(decoding, "clips_wanted", lambda *_: 300.0 if device == CUDA else 0.0)
    found = decoding.settled(toy(), ASKED, None, 1.0, World(0, 1, device))  # type: ignore[arg-type]
    assert found.data.workers == expected
    named(capsys.readouterr().err, "data.workers=auto", *said)


def test_a_number_stays_and_is_not_commented_on(capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"data": {"workers": 3}}
    found = decoding.settled(toy("data.workers=3"), asked, None, 1.0, World(0, 1, CPU))  # type: ignore[arg-type]
    assert found.data.workers == 3
    assert capsys.readouterr().err == ""


def test_an_h100_wants_what_its_sheet_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(toy(), precision="bf16")
    names = {"H100 80GB HBM3": 306, "H200": 306, "GeForce RTX 4090": 51, "RTX A1000": 0, "T400 4GB": 0}
    for name, expected in names.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: f"NVIDIA {name}")
        assert decoding.clips_wanted(made, 202, CUDA) == pytest.approx(expected, abs=1)


@pytest.mark.usefixtures("toy_cache")
def test_a_run_measures_a_clip_and_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, "data.workers=auto", "train.epochs=1")
    err = capsys.readouterr().err
    named(err, "data.workers=auto", "clips/s")
    assert config.load(tmp_path / "config.yaml")["data"]["workers"] == "auto"
