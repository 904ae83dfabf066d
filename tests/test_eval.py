import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from aim.data.dataset import VideoDataset
from aim.data.lists import Lists
from aim.engine.loop import testing
from aim.engine.run import retest
from aim.engine.run.settings import Run
from aim.engine.scores import predictions
from aim.engine.trained import checkpoint
from aim.engine.trained.recogniser import load
from aim.ground import config
from aim.report.runs import read
from aim.report.table import table
from tests.conftest import ROOT
from tests.messages import refused
from tests.toy import TOY, evaluate, run, videos

pytestmark = pytest.mark.usefixtures("toy_cache")


def test_eval_of_the_last_checkpoint_repeats_the_training_runs_result(unbroken: Path, tmp_path: Path) -> None:
    found = evaluate(unbroken, tmp_path)
    ours = json.loads((unbroken / "results.json").read_text(encoding="utf-8"))
    best = [line for line in (unbroken / "log.jsonl").read_text().splitlines() if "val_top1" in line]
    assert found["top1"] == max(json.loads(line)["val_top1"] for line in best)
    assert {k: found[k] for k in ("num_videos", "data_hash", "params_tuned")} == {
        k: ours[k] for k in ("num_videos", "data_hash", "params_tuned")
    }


def test_a_test_that_skips_says_how_much_it_covers(
    unbroken: Path, tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(toy_cache, tmp_path / "cache")
    monkeypatch.setenv("AIM_CACHE", str(tmp_path / "cache"))
    for video in videos(tmp_path / "cache"):
        if video.match("val/grow/00000.mp4"):
            video.write_bytes(bytes(video.stat().st_size))  # with another size the demo would write it again
    more = ["data.workers=1", "data.max_bad=0.2"]
    with refused("00000.mp4", "data.eval_on_error=skip"):
        evaluate(unbroken, tmp_path / "raise", *more)
    found = evaluate(unbroken, tmp_path / "skip", *more, "data.eval_on_error=skip")
    assert (found["num_videos"], found["num_missing"]) == (15, 1)


def test_views_are_averaged_as_probabilities_and_stand_at_their_times(unbroken: Path, tmp_path: Path) -> None:
    more = ["views.temporal=2", "views.spatial=3", "views.resize=40", "predictions=jsonl"]
    result = evaluate(unbroken, tmp_path, *more)
    found = predictions.read(tmp_path / "predictions.npz")
    assert result["top1"] == pytest.approx(100 * found.right.mean(), abs=1e-3)
    averaged = found.probability[0]
    assert found.log_probability.shape == (16, 6, 8)
    assert np.exp(found.log_probability.astype(np.float32)).mean(1) == pytest.approx(found.probability, abs=2e-3)
    # Of 9 frames, 16 a second, two views of 4 uniform segments start at 0 and 1 and end at 6 and 7: see sampling.py.
    assert (found.seconds[0] * 16).tolist() == [[0, 6]] * 3 + [[1, 7]] * 3
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["index"] for line in lines] == found.index.tolist() == list(range(16))
    assert all(Path(line["filepath"]).is_file() for line in lines)
    assert [line["probabilities"] for line in lines] == [pytest.approx(row, abs=1e-5) for row in found.probability]
    assert {(line["label"], line["label_index"]) for line in lines} == set(zip(found.classes, range(8), strict=True))
    assert [line["prediction"] == line["label"] for line in lines] == found.right.tolist()
    run_ = config.build(config.compose([*TOY, "views.temporal=2", "views.spatial=3", "views.resize=40"]), Run)
    lists = run_.load_lists()
    root = Path(run_.data.root)
    clips = VideoDataset(root, lists.val, run_.reader, run_.clip, run_.views, 0).read(0, 0)
    assert len(clips) == 6
    recogniser = load(unbroken / "best.safetensors", calibrated=False)
    expected = torch.stack([recogniser.predict(clip[None])[0] for clip in clips]).mean(0)
    assert averaged == pytest.approx(expected.numpy(), abs=1e-6)


def test_eval_refuses_a_checkpoint_of_other_classes(unbroken: Path, tmp_path: Path) -> None:
    saved = checkpoint.read_weights(unbroken / "best.safetensors")
    lists = Lists([], [], ["other", *saved.classes[1:]])
    with refused("8", "0", "'move_right'", "'other'"):
        checkpoint.check_classes(saved, lists)


def test_another_number_of_frames_is_an_error_unless_stretching_is_asked_for(unbroken: Path, tmp_path: Path) -> None:
    with refused("temporal_embedding", "(4, 32)", "(6, 32)", "stretch_time=true"):
        evaluate(unbroken, tmp_path / "a", "clip.num_frames=6")
    found = evaluate(unbroken, tmp_path / "b", "clip.num_frames=6", "stretch_time=true")
    assert found["views"] == "6x1x1"


@pytest.mark.slow
def test_the_checkpoint_says_all_that_the_command_does_not(
    unbroken: Path, tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the shell, without an experiment, by the run directory; twice with another checkpoint, into two folders."""
    run(tmp_path / "other", "seed=1", "train.epochs=1")
    for trained in (unbroken, tmp_path / "other"):
        command = [sys.executable, "-m", "aim.eval", f"checkpoint={trained}", f"data.root={toy_cache}", "device=cpu"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "runs" / "eval").iterdir())
    assert len(folders) == 2
    assert all(re.fullmatch(r"(unbroken\d+|other),checkpoint=[0-9a-f]{8}", folder.name) for folder in folders)
    found = [json.loads((folder / "results.json").read_text()) for folder in folders]
    names = {str(unbroken / "best.safetensors"), str(tmp_path / "other" / "best.safetensors")}
    assert {each["checkpoint"] for each in found} == names
    assert {each["num_videos"] for each in found} == {16}
    lines = table([read(folder) for folder in folders]).splitlines()  # finds what each was made of
    assert len(lines) == 4
    assert [each["epochs"] for each in found] == [
        config.load(folder / "config.yaml")["train"]["epochs"] for folder in folders
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("adapter.scale=0.1", ["adapter.scale=1.0", "0.1"]),
        ("backbone.mean=[0,0,0]", ["backbone.mean=[0.5, 0.5, 0.5]", "[0, 0, 0]"]),
        ("adapter=none", ["aim", "plain"]),
    ],
)
def test_what_contradicts_the_checkpoints_model_is_refused(
    unbroken: Path, tmp_path: Path, override: str, expected: list[str]
) -> None:
    with refused(*expected):
        evaluate(unbroken, tmp_path / "eval", override)
    assert not (tmp_path / "eval").exists()


def test_a_value_on_the_command_line_counts_even_where_it_is_the_default(unbroken: Path) -> None:
    saved = checkpoint.read_weights(unbroken / "best.safetensors")
    asked = config.resolve(config.compose([]))
    assert retest.of_checkpoint(saved.config, asked, [], saved.path)["clip"]["num_frames"] == 4
    found = retest.of_checkpoint(saved.config, asked, ["clip.num_frames=8"], saved.path)
    assert found["clip"]["num_frames"] == asked["clip"]["num_frames"] == 8
    assert found["clip"]["size"] == 32
    with refused("adapter.drop_path=0.0", "0.2", "adapter.scale=1.0", "0.5"):
        retest.of_checkpoint(saved.config, asked, ["adapter=aim"], saved.path)


@pytest.mark.parametrize("key", ["optim.lr", "augment.flip", "val_views.resize", "test", "train.epochs", "init"])
def test_a_setting_without_effect_on_a_test_is_refused(unbroken: Path, key: str) -> None:
    saved = checkpoint.read_weights(unbroken / "best.safetensors")
    asked = config.resolve(config.compose([]))
    with refused(key, "aim.eval"):
        retest.of_checkpoint(saved.config, asked, [f"{key}=1"], saved.path)


def test_an_experiment_says_on_what_and_how_to_test_and_nothing_of_the_training(unbroken: Path) -> None:
    """Also where its values are those of configs/config.yaml, as k400's are."""
    saved = checkpoint.read_weights(unbroken / "best.safetensors")
    command = ["+experiment=k400", "backbone=demo"]
    asked = config.resolve(config.compose([*command, "backbone.weights=random"]))
    with refused("backbone.options.depth=2", "4", "backbone.options.embed_dim=32", "128", "5"):
        retest.of_checkpoint(saved.config, asked, command, saved.path)
    asked |= {"backbone": saved.config["backbone"], "adapter": saved.config["adapter"], "dropout": 0.0}
    found = retest.of_checkpoint(saved.config, asked, command, saved.path)
    assert found["data"]["num_classes"] == 400
    assert found["views"] == asked["views"]
    assert found["name"] == "demo"
    assert found["train"] == saved.config["train"]


def test_another_reader_takes_the_place_of_the_checkpoints_as_a_whole(unbroken: Path) -> None:
    saved = checkpoint.read_weights(unbroken / "best.safetensors")
    asked = config.resolve(config.compose(["reader=frames"]))
    assert retest.of_checkpoint(saved.config, asked, [], saved.path)["reader"] == asked["reader"]


def test_a_setting_that_is_newer_than_the_checkpoint_has_its_default(unbroken: Path) -> None:
    saved = checkpoint.read_weights(unbroken / "best.safetensors")
    expected = saved.config["train"] | {"ema": None}
    del saved.config["train"]["ema"]
    asked = config.resolve(config.compose([]))
    found = retest.of_checkpoint(saved.config, asked, [], saved.path)
    assert found["train"] == expected
    config.build(found, Run)


def test_a_test_that_was_done_is_shown_and_one_of_another_run_is_refused(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused("training", "test", "run_dir=DIR"):
        evaluate(unbroken, unbroken)
    evaluate(unbroken, tmp_path / "eval")
    with monkeypatch.context() as patch:
        patch.delattr(testing, "evaluate")  # nothing is scored again
        again = evaluate(unbroken, tmp_path / "eval")
    run(tmp_path / "other", "train.epochs=1")
    with refused("eval", "test", "checkpoint", "run_dir=DIR"):
        evaluate(tmp_path / "other", tmp_path / "eval")
    assert json.loads((tmp_path / "eval" / "results.json").read_text()) == again


def test_a_bad_video_of_a_test_is_named_in_its_folder(
    unbroken: Path, tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(toy_cache, tmp_path / "cache")
    monkeypatch.setenv("AIM_CACHE", str(tmp_path / "cache"))
    bad = videos(tmp_path / "cache")[0]
    bad.write_bytes(bytes(bad.stat().st_size))
    evaluate(unbroken, tmp_path / "skip", "data.eval_on_error=skip", "data.max_bad=0.2")
    (line,) = (tmp_path / "skip" / "bad_videos.txt").read_text().splitlines()
    assert line.startswith(f"{bad.relative_to(tmp_path / 'cache')}\t")
