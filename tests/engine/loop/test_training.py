"""Continued runs: other data or settings, bad videos, non-finite gradients, folders that not all ranks see."""

import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aim.engine.loop import training
from aim.engine.machine import distributed
from aim.engine.run.settings import Run
from aim.engine.telling import bad_videos
from aim.ground import config, lease
from aim.ground.signals import INTERRUPTED
from aim.models.classifier import VideoClassifier
from tests.conftest import ROOT
from tests.messages import named, refused, unnamed
from tests.toy import OWN, TOY, Died, at_each_step, dies_at, exits, journal, killed_at, run, weights

pytestmark = pytest.mark.usefixtures("toy_cache")


@pytest.fixture
def folder(toy_cache: Path, tmp_path: Path) -> Path:
    """Some of the toy's videos as a user's own, with list files."""
    config.build(config.compose(TOY), Run).load_lists()
    shutil.copytree(next(toy_cache.glob("moving_shapes_*")), tmp_path / "data")
    return tmp_path / "data"


def test_a_finished_run_on_other_data_is_refused_and_not_shown(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "run", "train.epochs=1", f"data.root={folder}", toy=OWN)
    capsys.readouterr()
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    lines = (other / "val.txt").read_text().splitlines()
    (other / "val.txt").write_text("\n".join(lines[:-1]))
    with refused("validation", "list", "run_dir=DIR"):
        run(tmp_path / "run", "train.epochs=1", f"data.root={other}", toy=OWN)
    with refused("data.root=nowhere"):
        run(tmp_path / "run", "train.epochs=1", "data.root=nowhere", toy=OWN)
    unnamed(capsys.readouterr().out, "top-1")
    shutil.move(folder, tmp_path / "moved")  # the same data elsewhere is the same run
    run(tmp_path / "run", "train.epochs=1", f"data.root={tmp_path / 'moved'}", toy=OWN)
    named(capsys.readouterr().out.replace("\n", ""), str(tmp_path / "run"), "run_dir=DIR", "top-1")


@pytest.mark.parametrize("change", ["swap", "reorder"])
def test_a_run_does_not_go_on_with_other_lists(folder: Path, tmp_path: Path, change: str) -> None:
    killed_at(2, tmp_path / "run", f"data.root={folder}", toy=OWN)
    train, val = ((folder / name).read_text().splitlines() for name in ("train.txt", "val.txt"))
    if change == "swap":
        train, val = val, train
    else:
        train.reverse()
    for name, lines in (("train.txt", train), ("val.txt", val)):
        (folder / name).write_text("\n".join(lines))
    with refused("training", "list", "run_dir=DIR"):
        run(tmp_path / "run", f"data.root={folder}", toy=OWN)


@pytest.mark.parametrize(("eval_every", "steps_left"), [(0, 0), (1, 3)])
def test_a_bad_video_in_the_validation_set_loses_no_training(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    eval_every: int,
    steps_left: int,
) -> None:
    """Whether the test after the last epoch stops, or the validation after the first of two."""
    name = (folder / "val.txt").read_text().splitlines()[3].rpartition(" ")[0]
    settings = [f"data.root={folder}", f"train.eval_every={eval_every}"]
    with monkeypatch.context() as patch:
        at_each_step(patch, before=lambda _: (folder / name).write_bytes(b"no video"))  # good when the run began
        with refused(name, "data.eval_on_error=skip"):
            run(tmp_path / "run", *settings, toy=OWN)
    assert (tmp_path / "run" / "bad_videos.txt").read_text().startswith(f"{name}\t")
    dies_at(steps_left, monkeypatch)  # if it did more
    capsys.readouterr()
    found = run(tmp_path / "run", *settings, "data.eval_on_error=skip", "data.max_bad=0.5", toy=OWN)
    assert found["num_missing"] == 1
    said = capsys.readouterr().err
    named(said, "data.eval_on_error", "raise", "skip", "data.max_bad", "0.02", "0.5")
    named(said, str(folder / name), "1", "16")


def test_the_same_weights_may_lie_elsewhere_and_others_are_refused(tmp_path: Path, unbroken: Path) -> None:
    started = unbroken / "best.safetensors"
    killed_at(2, tmp_path / "run", f"init={started}")
    shutil.copy(started, tmp_path / "copy.safetensors")
    killed_at(0, tmp_path / "run", f"init={tmp_path / 'copy.safetensors'}")
    tensors = load_file(started)
    tensors["head.bias"] += 1
    with safe_open(started, "pt") as file:
        save_file(tensors, tmp_path / "copy.safetensors", file.metadata())
    with refused("checkpoint", "init", "run_dir=DIR"):
        run(tmp_path / "run", f"init={tmp_path / 'copy.safetensors'}")


def test_a_refused_second_job_writes_nothing(tmp_path: Path) -> None:
    with lease.held(tmp_path):
        (tmp_path / "config.yaml").write_text("of: the first\n")
        with refused("host", "process", "run_dir=DIR"):
            run(tmp_path, "optim.lr=0.5")
    assert (tmp_path / "config.yaml").read_text() == "of: the first\n"
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml"}


@pytest.mark.parametrize("bad_step", [2, 3])
def test_a_gradient_that_is_not_finite_never_reaches_last_pt(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch, bad_step: int
) -> None:
    """The loss stays finite; step 3 is the last of an epoch."""
    original, steps = training.train_step, 0

    def explodes(model: VideoClassifier, *args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        factor = math.inf if steps == bad_step else 1.0
        hook = model.head.weight.register_hook(lambda gradient: gradient * factor)
        sums = original(model, *args, **kwargs)
        hook.remove()
        return sums

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", explodes)
        with refused("norm", f"{bad_step}", "optim.lr", "precision=fp32"):
            run(tmp_path)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())
    run(tmp_path)  # the same command goes on
    assert journal(tmp_path) == journal(unbroken)


@pytest.mark.slow
def test_a_run_directory_that_the_other_node_does_not_see_is_continued_as_one(tmp_path: Path, unbroken: Path) -> None:
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    killed_at(4, seen, "test=best")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = []
    for rank, folder in enumerate((seen, unseen)):
        names = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": port}
        environment = os.environ | names | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "aim.train", *TOY, f"run_dir={folder}", "test=best"]
        ranks.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    for process in ranks:
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == 0, stderr
    expected = weights(unbroken)
    for name, tensor in weights(seen).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    assert not unseen.exists()


def test_everything_that_is_missing_comes_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "init", lambda: (_ for _ in ()).throw(RuntimeError("no driver")))
    settings = ["+experiment=k400", "data.root=nowhere", "device=cuda", "init=none.safetensors"]
    with refused("device=cuda", "(no driver)", "nowhere", "none.safetensors"):
        run(tmp_path, toy=settings)


def test_a_signal_in_the_last_step_stops_before_the_test_and_after_the_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(step: int, _: torch.Tensor) -> None:
        if step == 6:  # the last, which isn't in its sums
            os.kill(os.getpid(), signal.SIGUSR1)

    steps = at_each_step(monkeypatch, after=stop)
    with exits(INTERRUPTED):
        run(tmp_path, "train.eval_every=0")
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 6
    assert not (tmp_path / "results.json").exists()
    run(tmp_path, "train.eval_every=0")
    assert len(steps) == 6


def test_a_rank_whose_own_clock_says_to_save_does_not_leave_before_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save reads the newest step, in which another rank was asked to stop; this rank still does the next."""

    def asked(step: int, sums: torch.Tensor) -> None:
        sums[4] += step == 2

    steps = at_each_step(monkeypatch, after=asked)
    with exits(INTERRUPTED):
        run(tmp_path, "train.log_every=100", "train.save_minutes=0")
    assert len(steps) == 3
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 3


def test_a_list_of_bad_videos_that_can_not_be_written_hides_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    loader = SimpleNamespace(bad={"a.mp4": "it is bad"})
    with pytest.raises(Died), bad_videos.named(tmp_path / "file" / "run", loader):  # type: ignore[arg-type]
        raise Died
    with bad_videos.named(tmp_path, loader):  # type: ignore[arg-type]
        (tmp_path / "bad_videos.txt").write_text("a line of somebody's\n")
    assert (tmp_path / "bad_videos.txt").read_text() == "a.mp4\tit is bad\n"


def test_a_state_of_another_version_is_one_clear_error(tmp_path: Path) -> None:
    killed_at(4, tmp_path)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    del state["window"]
    torch.save(state, tmp_path / "last.pt")
    with refused("last.pt", "window", "run_dir"):
        run(tmp_path)


def test_a_refused_checkpoint_to_start_from_is_not_said_to_go_on(
    tmp_path: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_at(4, tmp_path, f"init={unbroken}")
    before = (tmp_path / "config.yaml").read_text()
    run(tmp_path / "other", "seed=1", "train.epochs=1")
    capsys.readouterr()
    with refused("checkpoint", "init", "run_dir=DIR"):
        run(tmp_path, f"init={tmp_path / 'other'}")
    assert str(tmp_path) not in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == before


@pytest.mark.usefixtures("toy_cache")
def test_ranks_meet_before_the_first_sum_as_one_may_have_compiled_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum waits for ten minutes, and a new node compiles for longer."""
    calls = list[str]()
    for name in ("meet", "sum_"):
        original = getattr(distributed, name)
        monkeypatch.setattr(distributed, name, lambda *args, n=name, f=original: (calls.append(n), f(*args))[1])
    run(tmp_path, "train.epochs=1", "train.eval_every=0")
    first = calls.index("sum_")
    assert calls[first - 1] == "meet"
    assert calls[first:].count("sum_") == 3
    assert calls[first : first + 3] == ["sum_"] * 3
