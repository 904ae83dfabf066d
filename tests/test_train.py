import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aim.engine.loop import course, training
from aim.engine.machine import distributed
from aim.engine.run.settings import Run
from aim.engine.trained import checkpoint
from aim.ground import choices, config, lease
from aim.ground.signals import INTERRUPTED
from aim.train import verb as train
from tests.conftest import ROOT
from tests.messages import named, refused, unnamed
from tests.programs import command
from tests.toy import TOY, at_each_step, exits, journal, killed_at, run, weights

pytestmark = pytest.mark.usefixtures("toy_cache")


def test_a_run_leaves_what_the_design_says(unbroken: Path) -> None:
    names = {path.name for path in unbroken.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.yaml", "log.jsonl", "last.pt", "previous.pt", "best.safetensors", "results.json", "validation.npz",
        "predictions.npz", "videos.json",
    }  # fmt: skip
    found = json.loads((unbroken / "results.json").read_text(encoding="utf-8"))
    keys = """seed versions weights num_missing name top1 top5 mean_class num_videos num_classes views params_total
        params_tuned gmacs_per_view epochs seconds world_size device precision commit config_hash data_hash trunk"""
    assert found.keys() >= set(keys.split())
    assert found["views"] == "4x1x1"
    assert found["num_videos"] == 16
    assert found["trunk"].keys() == {"name", "sha256"}


def test_bad_training_videos_are_named_beside_the_result(
    tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.build(config.compose(TOY), Run).load_lists()
    shutil.copytree(toy_cache, tmp_path / "cache")
    monkeypatch.setenv("AIM_CACHE", str(tmp_path / "cache"))
    for video in (tmp_path / "cache").rglob("train/grow/00000.mp4"):
        video.write_bytes(bytes(video.stat().st_size))  # with another size the demo would write it again
    with refused("grow/00000.mp4", "data.on_error=skip", "data.max_bad=0.09"):
        run(tmp_path / "raise", "data.on_error=raise")
    named = (tmp_path / "raise" / "bad_videos.txt").read_text()
    assert re.match(r"moving_shapes_\w+/train/grow/00000\.mp4\tnot a video\n", named)
    with refused("1", "data.max_bad=0.01", "data.max_bad", "verify=true"):
        run(tmp_path / "few", "data.on_error=skip", "data.max_bad=0.01")
    found = run(tmp_path / "skip", "data.on_error=skip", "data.max_bad=0.1")
    assert found["num_missing"] == 0
    assert (tmp_path / "few" / "bad_videos.txt").read_text() == named
    assert (tmp_path / "skip" / "bad_videos.txt").read_text() == named
    modes = {path.stat().st_mode for path in (tmp_path / "skip").glob("[a-z]*.*")}
    assert len(modes) == 1  # safetensors would make its file private


def test_only_what_is_trainable_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    original = train.train

    def spy(model: Any, *args: Any, **kwargs: Any) -> Any:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        state = original(model, *args, **kwargs)
        after = model.state_dict()
        seen["changed"] = {name for name in before if not torch.equal(before[name], after[name])}
        seen["trainable"] = {name for name, p in model.named_parameters() if p.requires_grad}
        return state

    monkeypatch.setattr(train, "train", spy)
    run(tmp_path)
    assert seen["changed"] == seen["trainable"]
    assert any("adapters" in name for name in seen["changed"])


@pytest.mark.parametrize("stop_at", [2, 3, 5])
def test_killed_and_continued_equals_unbroken(tmp_path: Path, unbroken: Path, stop_at: int) -> None:
    """Step 3 is the end of an epoch."""
    killed_at(stop_at, tmp_path)
    assert not (tmp_path / "results.json").exists()
    run(tmp_path)
    assert journal(tmp_path) == journal(unbroken)
    expected = weights(unbroken)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path).items())


@pytest.fixture(scope="module")
def logged_every(toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Run directories of unbroken runs with these settings, each trained once."""

    @cache
    def trained(steps: int, *settings: str) -> Path:
        folder = tmp_path_factory.mktemp(f"every{steps}")
        run(folder, *settings)
        return folder

    return trained


@pytest.mark.parametrize(("stop_at", "log_every"), [(1, 4), (2, 1), (2, 2), (3, 2), (4, 4)])
def test_stopped_by_a_signal_and_continued_equals_unbroken(
    tmp_path: Path, logged_every: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, stop_at: int, log_every: int
) -> None:
    def stop(step: int) -> None:
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGUSR1)

    settings = [f"train.log_every={log_every}", "train.save_minutes=100"]
    unbroken = logged_every(log_every, *settings)
    with monkeypatch.context() as patch:
        at_each_step(patch, before=stop)
        with exits(INTERRUPTED):
            run(tmp_path / "stopped", *settings)
    run(tmp_path / "stopped", *settings)
    assert journal(tmp_path / "stopped") == journal(unbroken)
    expected = weights(unbroken)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path / "stopped").items())


def test_killed_between_a_validation_and_its_save_it_logs_that_once(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(course.bad_videos, "name", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert "val_top1" in journal(tmp_path)[-1]
    run(tmp_path)
    assert journal(tmp_path) == journal(unbroken)


def test_a_damaged_last_pt_gives_way_to_the_save_before(
    tmp_path: Path, unbroken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed_at(5, tmp_path)
    (tmp_path / "last.pt").write_bytes(b"")
    capsys.readouterr()
    run(tmp_path)
    assert capsys.readouterr().err.count(str(tmp_path / "previous.pt")) == 1
    assert journal(tmp_path) == journal(unbroken)
    expected = weights(unbroken)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path).items())


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_run_dir_that_can_not_be_made_is_one_clear_error(tmp_path: Path, toy_cache: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with refused(str(tmp_path / place), "file", "folder", "run_dir=DIR"):
        run(tmp_path / place)


def test_the_comparison_above_can_fail(tmp_path: Path, unbroken: Path) -> None:
    run(tmp_path, "seed=1")
    assert journal(tmp_path) != journal(unbroken)


def test_a_finished_run_prints_its_result_and_trains_no_more(
    unbroken: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "train_and_test", lambda *_: pytest.fail("trained again"))
    run(unbroken)
    named(capsys.readouterr().out.replace("\n", ""), str(unbroken), "run_dir=DIR")


def test_a_run_directory_of_another_configuration_is_refused(unbroken: Path) -> None:
    with refused("optim.lr", "0.5", "run_dir=DIR"):
        run(unbroken, "optim.lr=0.5")


def test_a_damaged_last_pt_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with refused("last.pt", "read", "delete", "run_dir"):
        run(tmp_path)


def test_accumulated_parts_give_the_step_of_the_whole_batch(tmp_path: Path, unbroken: Path) -> None:
    run(tmp_path, "train.accumulate=4")
    expected = weights(unbroken)
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)


def test_repeated_augmentation_takes_half_the_videos_a_step(tmp_path: Path) -> None:
    run(tmp_path, "train.clips_per_video=2")
    lines = [line for line in journal(tmp_path) if "loss" in line]
    assert len(lines) == 2 * 24 // 4  # epochs, videos, videos a step
    assert {line["weight"] for line in lines} == {8.0}


def test_two_ranks_give_the_step_of_one_and_count_each_video_once(tmp_path: Path, unbroken: Path) -> None:
    overrides = [*TOY, f"run_dir={tmp_path}", "gpus=2", "debug=true"]
    command = [sys.executable, "-m", "aim.train", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    alone = json.loads((unbroken / "results.json").read_text(encoding="utf-8"))
    assert found["world_size"] == 2
    assert {key: found[key] for key in ("top1", "top5", "mean_class", "num_videos", "config_hash")} == {
        key: alone[key] for key in ("top1", "top5", "mean_class", "num_videos", "config_hash")
    }
    expected = weights(unbroken)
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    assert "Warning" not in done.stderr


def test_sigterm_saves_and_the_same_command_continues(tmp_path: Path, unbroken: Path) -> None:
    command = [sys.executable, "-m", "aim.train", *TOY, f"run_dir={tmp_path}"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for _ in range(6000):
        if (tmp_path / "last.pt").exists():
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    if process.returncode != 0:  # else it was faster than the signal
        assert process.returncode == INTERRUPTED, stderr
        named(stderr, str(checkpoint.load_last(tmp_path / "last.pt")["step"]), str(tmp_path))
        unnamed(stderr, "Traceback")
        run(tmp_path)
    assert journal(tmp_path) == journal(unbroken)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path: Path) -> None:
    with refused("loss", "step", "precision=fp32"):
        run(tmp_path, "optim.lr=1e30", "optim.warmup_epochs=0")


def test_test_best_records_the_selection(tmp_path: Path) -> None:
    found = run(tmp_path, "test=best")
    assert found["weights"] == "best"
    assert found["selection"]["epoch"] in (1, 2)


def test_the_checkpoint_holds_all_but_the_trunk(tmp_path: Path, unbroken: Path) -> None:
    tensors = load_file(unbroken / "best.safetensors")
    saved = checkpoint.read_weights(unbroken / "best.safetensors")
    assert {"head.weight", "head.bias"} <= tensors.keys()
    assert saved.config["clip"]["num_frames"] == 4
    assert len(saved.classes) == 8


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.batch_size=9", "train.accumulate=2"], ["train.batch_size=9", "train.batch_size=8"]),
        (["augment.flip=0.5"], ["augment.flip=0.5"]),
        (["backbone.weights=nowhere.safetensors"], ["nowhere", "backbone.weights", "pretrained", "random"]),
        (["init=nowhere.safetensors"], ["checkpoint", "nowhere.safetensors", "best.safetensors"]),
        (["gpus=0"], ["gpus=0", "ranks", "1"]),
        (["train.clips_per_video=3"], ["train.clips_per_video=3", "8"]),
        (["train.epochs=0"], ["train.epochs=0"]),
        (["train.eval_every=-1"], ["train.eval_every=-1"]),
        (["test=best", "train.eval_every=0"], ["test=last", "test=best", "train.eval_every=0"]),
        (["checkpoint=some.safetensors"], ["checkpoint", "aim.eval", "init=FILE"]),
        (["train.mixup=0.8", "train.accumulate=8"], ["rank", "clips"]),
    ],
)
def test_bad_settings_are_found_before_anything_is_written(
    tmp_path: Path, overrides: list[str], expected: list[str]
) -> None:
    with refused(*expected):
        run(tmp_path / "new", *overrides)
    assert not (tmp_path / "new").exists()


def test_cuda_that_is_not_there_is_an_error_and_never_a_silent_cpu_run(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with refused("device=cuda", "CUDA", "device=cpu"):
        run(tmp_path, "device=cuda")


def test_all_problems_come_in_one_message(tmp_path: Path) -> None:
    with refused("augment.flip=0.5", "nowhere.safetensors"):
        run(tmp_path, "augment.flip=0.5", "init=nowhere.safetensors")


def test_a_second_job_is_refused_while_the_first_holds_the_directory(tmp_path: Path) -> None:
    with lease.held(tmp_path), refused("host", "process", "run_dir=DIR"):
        run(tmp_path)


def test_bare_slurm_tasks_are_refused_with_the_line_to_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    with refused("srun", "--ntasks-per-node=1", "torchrun", "aim.train"):
        run(tmp_path)


def test_learned_adapters_start_another_run(tmp_path: Path, unbroken: Path) -> None:
    with refused("best.safetensors", "adapters", "adapter"):
        run(tmp_path / "a", f"init={unbroken / 'best.safetensors'}", "adapter=none")
    found = run(tmp_path / "b", f"init={unbroken / 'best.safetensors'}", "optim.lr=0")
    assert found["top1"] == json.loads((unbroken / "results.json").read_text(encoding="utf-8"))["top1"]


@pytest.mark.slow
def test_a_rank_that_dies_takes_the_others_with_it() -> None:
    began = time.monotonic()
    done = subprocess.run(command("launches", 2, 0, "tests.programs.dies"), cwd=ROOT, timeout=120)
    assert done.returncode == 3
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_ranks_whose_launcher_is_killed_save_and_the_same_command_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells of a parent's death")
    overrides = ["train.epochs=1000", "train.eval_every=0"]
    command = [sys.executable, "-m", "aim.train", *TOY, f"run_dir={tmp_path}", *overrides, "gpus=2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(6000):
        if (tmp_path / "last.pt").exists():
            break
        time.sleep(0.02)
    process.kill()
    _, stderr = process.communicate(timeout=60)  # ends when the ranks have, which hold the other end of the pipe
    before = checkpoint.load_last(tmp_path / "last.pt")["step"]
    named(stderr, str(before), "3000", str(tmp_path))
    assert 0 < before < 3000

    steps = []
    original = training.train_step

    def two(*args: Any, **kwargs: Any) -> Any:
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(original(*args, **kwargs))
        return steps[-1]

    monkeypatch.setattr(training, "train_step", two)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, *overrides)
    assert checkpoint.load_last(tmp_path / "last.pt")["step"] == before + 2


def test_seeds_differ_by_step_and_rank() -> None:
    seeds = {training.seed_of(seed, step, rank) for seed in range(3) for step in range(5) for rank in range(4)}
    assert len(seeds) == 60


def test_num_ranks_on_the_cpu() -> None:
    assert distributed.num_ranks("cpu", None) == 1
    assert distributed.num_ranks("cpu", 2) == 2


def test_exits_helper_is_honest() -> None:
    with exits(2):
        sys.exit(2)
    assert choices.CONFIGS.is_dir()


def test_more_gpus_than_visible_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "compute_80"])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert distributed.num_ranks("cuda", None) == 2
    with refused("gpus=4", "2", "gpus=2"):
        distributed.num_ranks("cuda", 4)


def test_under_torchrun_its_number_of_ranks_counts_and_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "4"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert distributed.num_ranks("cpu", None) == distributed.num_ranks("cpu", 2) == 4
    with refused("gpus=3", "torchrun", "2", "gpus"):
        distributed.num_ranks("cpu", 3)


@pytest.mark.slow
def test_torchrun_ends_with_what_is_wrong(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "aim.train", *TOY, f"run_dir={tmp_path / 'run'}", "train.epochs=0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 1
    assert len(re.findall(r"^aim: error: train\.epochs=0 ", done.stderr, flags=re.MULTILINE)) == 1
    named(done.stderr.splitlines()[-2], "train.epochs=0")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torchrun_starts_the_same_run(tmp_path: Path, unbroken: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "aim.train", *TOY, f"run_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert found["world_size"] == 2
    expected = weights(unbroken)
    for name, tensor in weights(tmp_path).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
