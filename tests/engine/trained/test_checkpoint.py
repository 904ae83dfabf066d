import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from aim.data.pace import Pace
from aim.engine.scores.calibration import Calibration
from aim.engine.trained import checkpoint
from aim.ground.formats import own_version
from tests.messages import named, refused, unnamed
from tests.toy import file_size_limit


def state(step: int, value: float = 1.0) -> dict[str, Any]:
    """As large as a few blocks of a disk."""
    moments = {0: {"step": torch.tensor(float(step)), "exp_avg": torch.full((100, 100), value)}}
    return {"step": step, "model": {"head.weight": torch.ones(100, 100)}, "optimizer": {"state": moments}}


class Model(nn.Module):
    """The parts of a model that `save_weights` reads."""

    trunk_name, fingerprint = "toy", "0" * 64

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(100, 100)

    def saved_names(self) -> list[str]:
        return ["head.weight", "head.bias"]


def save_weights(path: Path, model: Model) -> None:
    checkpoint.save_weights(path, model, {}, ["a"])  # type: ignore[arg-type]


def test_a_save_that_has_no_room_is_one_line_and_keeps_the_last_good_one(tmp_path: Path) -> None:
    last, best, model = tmp_path / "last.pt", tmp_path / "best.safetensors", Model()
    checkpoint.save_last(last, state(1))
    checkpoint.save_last(last, state(2))
    save_weights(best, model)
    before = best.read_bytes()
    with file_size_limit(20_000):
        with refused(str(last), "ulimit", "kept", "command"):
            checkpoint.save_last(last, state(3))
        with refused(str(best), "ulimit", "kept", "command"):
            save_weights(best, model)
    assert checkpoint.load_last(last)["step"] == 2
    assert checkpoint.load_last(tmp_path / "previous.pt")["step"] == 1
    assert best.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "previous.pt", "best.safetensors"}


def test_a_first_save_that_has_no_room_promises_nothing(tmp_path: Path) -> None:
    with file_size_limit(20_000), refused("last.pt", "ulimit", "command") as caught:
        checkpoint.save_last(tmp_path / "last.pt", state(1))
    unnamed(str(caught.value), "kept")
    with refused("last.pt", "optim.lr", "precision=fp32") as caught:
        checkpoint.save_last(tmp_path / "last.pt", state(1, float("nan")) | {"model": {"a": torch.tensor(torch.nan)}})
    unnamed(str(caught.value), "kept")


def test_a_run_directory_without_weights_is_told_apart_from_one_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "finetune").mkdir()
    with refused("finetune", "best.safetensors", "directory", "run"):
        checkpoint.read_weights(tmp_path / "finetune")
    (tmp_path / "finetune" / "config.yaml").touch()
    with refused("finetune", "best.safetensors", "weights"):
        checkpoint.read_weights(tmp_path / "finetune")
    with refused("finetun", "finetune", "best.safetensors"):
        checkpoint.read_weights(tmp_path / "finetun")


def test_near_names_are_those_of_a_folder_and_never_of_the_disks_root(tmp_path: Path) -> None:
    (tmp_path / "demo_run").mkdir()
    with refused("demo_run"):
        checkpoint.read_weights(tmp_path / "demo_rn")
    with refused("/tmpp", "best.safetensors") as caught:
        checkpoint.read_weights("/tmpp")
    unnamed(str(caught.value), "tmp")


def test_a_temperature_is_all_that_changes(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    checkpoint.save_weights(best, Model(), {"a": 1}, ["a"], precision="bf16")  # type: ignore[arg-type]
    before = checkpoint.read_weights(best)
    assert (before.precision, before.calibration.temperature) == ("bf16", None)
    checkpoint.set_calibration(best, Calibration(1.25), "abc")
    after = checkpoint.read_weights(best)
    assert (after.calibration.temperature, after.calibrated_by, after.chosen_by) == (1.25, "abc", None)
    assert after.fingerprint == before.fingerprint
    assert (after.config, after.classes, after.trunk, after.precision) == ({"a": 1}, ["a"], before.trunk, "bf16")
    save_weights(best, Model())  # of before
    assert checkpoint.read_weights(best).calibration.temperature is None


def test_the_pace_of_the_training_travels_with_the_weights_and_is_checked(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    checkpoint.save_weights(best, Model(), {}, ["a"], pace=Pace(25.0, 2.5))  # type: ignore[arg-type]
    checkpoint.set_calibration(best, Calibration(1.25), "abc")
    assert checkpoint.read_weights(best).pace == Pace(25.0, 2.5)
    with safe_open(best, "pt") as file:
        metadata = file.metadata()
    save_file({}, best, {key: value for key, value in metadata.items() if key != "pace"})  # of an older version
    assert checkpoint.read_weights(best).pace == Pace()
    save_file({}, best, metadata | {"pace": '{"rate": -1}'})
    with refused("best.safetensors", "metadata", "rate"):
        checkpoint.read_weights(best)


def test_a_newer_format_is_refused_with_its_version(tmp_path: Path) -> None:
    best = tmp_path / "best.safetensors"
    checkpoint.save_weights(best, Model(), {"a": 1}, ["a"])  # type: ignore[arg-type]
    with safe_open(best, "pt") as file:
        metadata = file.metadata()
    assert metadata["version"] == own_version()
    for version, expected in (({"version": "9.1.0"}, "9.1.0"), ({}, "best.safetensors")):
        newer = {key: value for key, value in metadata.items() if key != "version"} | {"format": "aim-video 2"}
        save_file({}, best, newer | version)
        with refused("'aim-video 2'", expected, own_version(), "'aim-video 1'", "update"):
            checkpoint.read_weights(best)


@pytest.mark.parametrize("written", ["aim-video", "aim-video one", "aim-video exported 1", "pt", ""])
def test_another_programs_format_is_refused(tmp_path: Path, written: str) -> None:
    save_file({}, tmp_path / "best.safetensors", {"format": written})
    with refused("best.safetensors", "aim.train", "'aim-video 1'"):
        checkpoint.read_weights(tmp_path)


@pytest.mark.parametrize("wrong", ["0", "-1", "Infinity", "NaN", "[", "{}"])
def test_a_temperature_that_is_none_is_damage(tmp_path: Path, wrong: str) -> None:
    trunk = json.dumps({"name": "toy", "sha256": "0"})
    metadata = {"format": "aim-video 1", "config": "{}", "classes": "[]", "trunk": trunk, "temperature": wrong}
    save_file({}, tmp_path / "best.safetensors", metadata)
    with refused("best.safetensors", "metadata"):
        checkpoint.read_weights(tmp_path)


@pytest.mark.parametrize("links", [True, False])
def test_the_save_before_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    checkpoint.save_last(last, state(1))
    assert not previous.exists()
    checkpoint.save_last(last, state(2))
    checkpoint.save_last(last, state(3))
    assert (checkpoint.load_last(last)["step"], checkpoint.load_last(previous)["step"]) == (3, 2)
    last.unlink()  # "delete it to train from the start"
    checkpoint.save_last(last, state(1))
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt"}  # nothing of the other run is left


@pytest.mark.parametrize("call", range(3))
def test_a_whole_save_is_there_wherever_the_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    """`last.pt` is damaged at first, so only its predecessor is usable."""
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    checkpoint.save_last(last, state(1))
    checkpoint.save_last(last, state(2))
    last.write_bytes(last.read_bytes()[:-100])
    calls = 0

    def counted(original: Any) -> Any:
        def step(*args: Any, **more: Any) -> Any:
            nonlocal calls
            if calls == call:
                raise KeyboardInterrupt
            calls += 1
            return original(*args, **more)

        return step

    with monkeypatch.context() as patch:
        for module, name in ((os, "link"), (Path, "replace")):
            patch.setattr(module, name, counted(getattr(module, name)))
        with pytest.raises(KeyboardInterrupt):
            checkpoint.save_last(last, state(3))
    assert last.exists()
    assert previous.exists()
    assert checkpoint.load_last(last)["step"] == (1 if call < 2 else 3)


def flip(path: Path) -> None:
    """Change one byte amid a tensor's: torch would load it."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(8).numpy().tobytes())] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_a_damaged_save_gives_way_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    last, previous = tmp_path / "last.pt", tmp_path / "previous.pt"
    checkpoint.save_last(last, state(1))
    checkpoint.save_last(last, state(2))
    damage(last)
    assert checkpoint.load_last(last)["step"] == 1
    (line,) = capsys.readouterr().err.splitlines()
    named(line, str(last), str(previous))
    checkpoint.load_last(last, quiet=True)
    monkeypatch.setenv("RANK", "1")
    checkpoint.load_last(last)
    assert capsys.readouterr().err == ""
    damage(previous)
    with refused("last.pt", "previous.pt", "delete"):
        checkpoint.load_last(last)
    previous.unlink()
    with refused("last.pt", "read", "delete", "run_dir"):
        checkpoint.load_last(last)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_saved(tmp_path: Path, value: float) -> None:
    last, best, model = tmp_path / "last.pt", tmp_path / "best.safetensors", Model()
    checkpoint.save_last(last, state(1))
    bad = state(2)
    bad["optimizer"]["state"][0]["exp_avg"][3, 4] = value
    with refused("optimizer.state.0.exp_avg", "last.pt", "optim.lr", "precision=fp32"):
        checkpoint.save_last(last, bad)
    assert checkpoint.load_last(last)["step"] == 1
    head: Tensor = model.head.weight.data
    head[1, 2] = value
    with refused("head.weight", "best.safetensors", "optim.lr", "precision=fp32"):
        save_weights(best, model)
    assert not best.exists()
    checkpoint.save_last(last, state(3, value=3e38))  # large, and finite
