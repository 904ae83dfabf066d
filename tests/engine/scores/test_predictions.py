import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aim.engine.scores import calibration, predictions
from aim.engine.scores.predictions import Predictions
from aim.engine.scores.tasks import SINGLE_LABEL
from aim.engine.trained import checkpoint
from tests.messages import refused
from tests.toy import evaluate, run, videos


def made(n: int = 5, v: int = 2, k: int = 3) -> Predictions:
    """Random predictions."""
    rng = np.random.default_rng(n)
    logits = rng.normal(size=(n, v, k))
    views = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return Predictions(
        index=np.arange(n), label=rng.integers(k, size=n), path=np.array([f"a/{i}.mp4" for i in range(n)], np.str_),
        span=np.full((n, 2), np.nan), probability=views.mean(1).astype(np.float32),
        log_probability=np.log(views).astype(np.float16), seconds=np.zeros((n, v, 2), np.float32),
        classes=np.array([f"class {i}" for i in range(k)]), about={"root": "/data", "views": f"8x{v}x1"},
    )  # fmt: skip


def test_a_training_leaves_the_predictions_of_its_test_and_of_its_last_validation(
    unbroken: Path, toy_cache: Path
) -> None:
    result = json.loads((unbroken / "results.json").read_text(encoding="utf-8"))
    test = predictions.read(unbroken / "predictions.npz")
    validation = predictions.read(unbroken / "validation.npz")
    assert validation.about["epoch"] == 2
    # One view, the same frames: the last validation is the test.
    assert validation.probability == pytest.approx(test.probability, abs=1e-6)
    assert test.about["data_hash"] == result["data_hash"]
    assert test.about["views"] == result["views"] == "4x1x1"
    assert [Path(test.about["root"]) / path for path in sorted(test.path)] == videos(toy_cache)
    assert result["per_class"] == {
        str(name): {"videos": int((test.label == i).sum()), "right": int(((test.label == i) & test.right).sum())}
        for i, name in enumerate(test.classes)
    }
    assert 100 * sum(each["right"] for each in result["per_class"].values()) / 16 == result["top1"]
    assert result["cross_entropy"] == pytest.approx(
        -np.log(test.probability[np.arange(16), test.label]).mean(), abs=1e-5
    )


def test_a_file_reads_as_it_was_written(tmp_path: Path) -> None:
    found = replace(made(), classes=np.array(["<b>", "schön", "c"]), about={"root": "/x", "more": [1, None]})
    found.span[1] = 0.5, 1.25
    predictions.write(tmp_path / "a.npz", found, "jsonl")
    again = predictions.read(tmp_path / "a.npz")
    for name, value in vars(found).items():
        assert np.array_equal(getattr(again, name), value, equal_nan=name in ("span",)), name
    first, second, *_ = map(json.loads, (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines())
    assert (first["start"], first["end"], second["start"], second["end"]) == (None, None, 0.5, 1.25)
    assert first["filepath"] == "/x/a/0.mp4"
    predictions.write(tmp_path / "none.npz", made(0))
    assert predictions.read(tmp_path / "none.npz").results()["brier"] == 0


def test_kinetics_fits_into_some_tens_of_megabytes(tmp_path: Path) -> None:
    """A hundredth of its validation set, three views; random logits compress worse than real ones."""
    found = made(n=199, v=3, k=400)
    predictions.write(tmp_path / "a.npz", found)
    assert (tmp_path / "a.npz").stat().st_size * 100 < 90e6


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"label": np.array([0, 1, 2, 3, 0])}, ["labels", "3", "classes"]),
        ({"label": np.array([0.5] * 5)}, ["label", "float64"]),
        ({"path": np.array(["a"])}, ["path", "(1,)", "(5,)"]),
        ({"log_probability": np.zeros((5, 3), np.float16)}, ["log_probability", "(5, 3)"]),
        ({"probability": np.full((5, 3), np.nan, np.float32)}, ["probabilities", "finite"]),
        ({"about": {}}, ["comes"]),
    ],
)
def test_columns_that_disagree_are_named(tmp_path: Path, change: dict[str, object], expected: list[str]) -> None:
    predictions.write(tmp_path / "a.npz", replace(made(), **change))  # type: ignore[arg-type]
    with refused("a.npz", "predictions", *expected, "aim.eval"):
        predictions.read(tmp_path / "a.npz")


def test_garbage_is_no_predictions(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    predictions.write(file, made())
    whole = file.read_bytes()
    for content in (b"", b"garbage", whole[:-100], whole[: len(whole) // 2], whole[:200] + b"x" * 50 + whole[250:]):
        file.write_bytes(content)
        with refused("a.npz", "predictions", "aim.eval"):
            predictions.read(file)
    np.savez(file, index=np.arange(3), about=np.array("{}"))
    with refused("a.npz", "label", "path", "classes", "aim.eval"):
        predictions.read(file)
    np.savez(file, about=np.array([object()]), allow_pickle=True)
    with refused("read", "predictions"):
        predictions.read(file)
    with refused("read", "predictions"):
        predictions.read(tmp_path / "nowhere.npz")


@pytest.mark.slow
def test_several_ranks_leave_every_video_once(unbroken: Path, tmp_path: Path, toy_cache: Path) -> None:
    command = [sys.executable, "-m", "aim.eval", f"checkpoint={unbroken}", f"data.root={toy_cache}", "gpus=3"]
    subprocess.run([*command, "device=cpu", f"run_dir={tmp_path}", "predictions=jsonl"], check=True, timeout=250)
    evaluate(unbroken, tmp_path / "one")
    one, three = (predictions.read(folder / "predictions.npz") for folder in (tmp_path / "one", tmp_path))
    assert three.index.tolist() == list(range(16))
    assert three.path.tolist() == one.path.tolist()
    assert three.probability == pytest.approx(one.probability, abs=1e-5)
    assert np.array_equal(three.seconds, one.seconds)


@pytest.mark.slow
def test_a_run_that_never_validates_leaves_its_test_alone(tmp_path: Path, toy_cache: Path) -> None:
    run(tmp_path, "train.epochs=1", "train.eval_every=0")
    left = predictions.read(tmp_path / predictions.TEST)
    scores, label = (torch.from_numpy(column) for column in (left.log_probability, left.label))
    assert checkpoint.read_weights(tmp_path).calibration.temperature == calibration.fit_temperature(
        SINGLE_LABEL, scores, label
    )
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["predictions.npz"]
