import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aim.engine.tracking import TensorBoard, Wandb
from aim.errors import UserError


def test_wandb_writes_offline_without_a_key_or_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with Wandb(project="p", entity=None, mode="offline").open(tmp_path, "toy", {"seed": 1}) as log:
        log(1, {"loss": 2.0})
        log(2, {"loss": 1.0})
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 1
    assert files[0].stat().st_size > 0


def test_wandb_without_a_key_is_an_error_and_never_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "nothing"))
    with (
        pytest.raises(UserError, match=r"WANDB_API_KEY, .*tracker\.mode=offline"),
        Wandb(project="p", entity=None, mode="online").open(tmp_path, "toy", {}),
    ):
        pass


def test_tensorboard_writes_what_its_own_reader_reads(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoard().open(tmp_path, "toy", {}) as log:
        log(3, {"loss": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.5)]


def wandb_ids(monkeypatch: pytest.MonkeyPatch, *run_dirs: Path) -> list[str]:
    """The ids under which runs of these directories are opened, one after the other."""
    ids = []

    def init(**settings: Any) -> Any:
        ids.append(settings["id"])
        return SimpleNamespace(log=None, finish=lambda: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **_: None))
    for run_dir in run_dirs:
        with Wandb(project="p", entity=None, mode="offline").open(run_dir, "toy", {}):
            pass
    return ids


def test_a_wandb_run_is_the_directory_and_not_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    first, continued = wandb_ids(monkeypatch, run_dir, run_dir)
    assert first == continued
    run_dir.rename(tmp_path / "moved")
    run_dir.mkdir()
    anew, moved = wandb_ids(monkeypatch, run_dir, tmp_path / "moved")
    assert moved == first
    assert anew != first
