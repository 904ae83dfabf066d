import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aim.engine.telling.progress import Journal
from aim.engine.telling.tracking import Csv, Guarded, Sink, TensorBoard, Trackio, Wandb
from aim.ground import config
from aim.train import verb as train
from tests.conftest import ROOT
from tests.messages import named, refused
from tests.programs import command


def test_wandb_writes_offline_without_a_key_or_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with Wandb(project="p", entity=None, mode="offline").open(tmp_path, "toy", {"seed": 1}) as sink:
        sink.log(1, {"loss": 2.0})
        sink.log(2, {"loss": 1.0})
        sink.attach({"top1": 50.0, "trunk": {"name": "a"}})
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 1
    assert files[0].stat().st_size > 0


def test_wandb_without_a_key_is_an_error_and_never_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "nothing"))
    with refused("WANDB_API_KEY", "tracker.mode=offline", "tracker=wandb"):
        Wandb(project="p", entity=None, mode="online").check()
    Wandb(project="p", entity=None, mode="offline").check()


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "trackio"])
def test_a_library_that_is_absent_is_named_with_its_extra_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings = ["+experiment=finetune", f"tracker={name}", "data.root=nowhere", f"run_dir={tmp_path / 'run'}"]
    monkeypatch.setitem(sys.modules, name, None)
    with refused(f"tracker={name}", f"'aim-video[{name}]'"):
        train.main(config.compose(settings))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_no_tracker_is_imported_that_nobody_asked_for() -> None:
    names = {"tensorboard", "trackio"}  # wandb is imported by timm, where it is there
    code = f"import sys, aim.train, aim.eval, aim.predict; print(sorted({names} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.stdout == "[]\n", done.stderr


def shown(run_dir: Path, *lines: tuple[int, str], saved: int = 0, rested: int = 0, tested: bool = False) -> None:
    """Log half of the step to TensorBoard under each name, as a continued run does."""
    journal = Journal(run_dir / "log.jsonl", saved, rested)
    with TensorBoard().open(run_dir, "toy", {"seed": 1}) as sink:
        for step, name in lines:
            journal(step, {name: step / 2})
            sink.log(step, {name: step / 2})
        if tested:
            sink.attach({"top1": 50.0})
    journal.close()


def scalars(run_dir: Path, name: str = "loss") -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    assert {"config/text_summary", "results/text_summary"} <= set(events.Tags()["tensors"])
    return [(e.step, e.value) for e in events.Scalars(name)]


def test_tensorboard_shows_each_step_once_though_a_killed_run_had_gone_further(tmp_path: Path) -> None:
    shown(tmp_path, (1, "loss"), (2, "loss"), (3, "loss"))
    shown(tmp_path, (2, "loss"), (3, "loss"), (4, "loss"), saved=1, tested=True)
    assert scalars(tmp_path) == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]


def test_tensorboard_hides_nothing_of_a_run_that_goes_on_with_its_test_alone(tmp_path: Path) -> None:
    shown(tmp_path, (1, "loss"), (2, "loss"), (2, "val_top1"))
    shown(tmp_path, saved=2, rested=2, tested=True)
    assert scalars(tmp_path) == [(1, 0.5), (2, 1.0)]
    assert scalars(tmp_path, "val_top1") == [(2, 1.0)]


def test_tensorboard_hides_nothing_of_a_run_that_goes_on_with_a_validation(tmp_path: Path) -> None:
    shown(tmp_path, (1, "loss"), (2, "loss"))
    shown(tmp_path, (2, "val_top1"), (3, "loss"), saved=2, rested=0, tested=True)
    assert scalars(tmp_path) == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert scalars(tmp_path, "val_top1") == [(2, 1.0)]


def test_a_csv_has_the_lines_of_the_log_and_goes_on_with_it(unbroken: Path, tmp_path: Path) -> None:
    entries = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    for first in (0, 4):  # the whole run, and one that goes on after the first epoch's validation
        saved = entries[first]["step"] - 1
        journal = Journal(tmp_path / "log.jsonl", saved, saved)
        with Csv().open(tmp_path, "toy", {}) as sink:
            for entry in entries[first:]:
                values = {key: value for key, value in entry.items() if key != "step"}
                journal(entry["step"], values)
                sink.log(entry["step"], values)
        journal.close()
        with (tmp_path / "log.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [{key: float(value) for key, value in row.items() if value} for row in rows] == entries


def test_trackio_is_told_everything_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in: only slow tests use the real one, which takes seconds to import."""
    told = list[Any]()
    run = SimpleNamespace(log=lambda values, step=None: told.append((step, values)))

    def init(**settings: Any) -> Any:
        told.append((settings["name"], settings["resume"], settings["config"]))
        return run

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=init, finish=lambda: told.append("end")))
    for _ in range(2):
        with Trackio(project="p", space=None).open(tmp_path, "toy", {"seed": 1}) as sink:
            sink.log(1, {"loss": 2.0})
            sink.attach({"top1": 1.0, "top5": 2.0, "mean_class": 3.0, "name": "toy"})
    name = f"toy-{(tmp_path / 'trackio.id').read_text().strip()}"
    assert told[:4] == [
        (name, "allow", {"seed": 1}), (1, {"loss": 2.0}),
        (None, {"test_top1": 1.0, "test_top5": 2.0, "test_mean_class": 3.0}), "end",
    ]  # fmt: skip
    assert told[4:] == told[:4]


@pytest.mark.slow
def test_the_real_trackio_continues_one_run_without_a_network(tmp_path: Path) -> None:
    environment = os.environ | {
        "TRACKIO_DIR": str(tmp_path / "trackio"),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        command("logs_trackio", tmp_path), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[(1, 0.5), (2, 1.0), (3, 1.5)]"


@dataclass(frozen=True)
class Broken:
    """A tracker that fails at one thing."""

    at: str

    def check(self) -> None:
        pass

    @contextmanager
    def open(self, run_dir: Path, name: str, config: Any) -> Iterator[Sink]:
        self.reach("start")
        yield Sink(lambda step, values: self.reach("log"), lambda found: self.reach("attach"))
        self.reach("end")

    def reach(self, place: str) -> None:
        if place == self.at:
            raise ConnectionError("no route to host\nand a page of details")


@pytest.mark.parametrize(("at", "said"), [("start", []), ("log", ["1"]), ("attach", []), ("end", []), ("never", None)])
def test_a_tracker_that_fails_says_so_once_and_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], at: str, said: list[str] | None
) -> None:
    with Guarded(Broken(at), tmp_path, "toy", {}) as tracked:
        for step in (1, 2, 3):
            tracked.log(step, {"loss": 1.0})
        tracked.attach({})
    err = capsys.readouterr().err
    assert err.count("\n") == (0 if said is None else 1)
    if said is not None:
        named(err, "tracker=broken", "host", "log.jsonl", *said)


def test_what_stops_training_is_not_the_trackers_to_keep(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Guarded(Broken("end"), tmp_path, "toy", {}):
        raise KeyboardInterrupt


def wandb_ids(monkeypatch: pytest.MonkeyPatch, *run_dirs: Path) -> list[str]:
    """The run ids of these directories, opened one after the other."""
    ids = []

    def init(**settings: Any) -> Any:
        ids.append(settings["id"])
        return SimpleNamespace(log=None, finish=lambda: None, define_metric=lambda *_, **__: None)

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=lambda **_: None))
    for run_dir in run_dirs:
        with Wandb(project="p", entity=None, mode="offline").open(run_dir, "toy", {}):
            pass
    return ids


def test_wandb_is_told_of_a_validation_whose_step_it_knows_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for a resumed run, which ignores logs of earlier steps."""
    kept, axes = list[dict[str, float]](), list[tuple[str, str]]()

    def log(values: dict[str, float], step: int | None = None) -> None:
        if step is None or step > 12:
            kept.append(values)

    run = SimpleNamespace(
        log=log, finish=lambda: None, define_metric=lambda name, step_metric: axes.append((name, step_metric))
    )
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: run, Settings=lambda **_: None))
    with Wandb(project="p", entity=None, mode="offline").open(tmp_path, "toy", {}) as sink:
        sink.log(12, {"val_top1": 50.0})
    assert kept == [{"step": 12, "val_top1": 50.0}]
    assert axes == [("*", "step")]


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
