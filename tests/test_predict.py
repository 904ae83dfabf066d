import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from aim import config, eval, predict
from aim.errors import UserError
from tests.conftest import missing
from tests.toy import TOY, exits, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, toy_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(folder)
    return folder


def videos(toy_cache: Path) -> list[Path]:
    return sorted(path for path in toy_cache.rglob("*.mp4") if "val" in path.parts)


def evaluate(trained: Path, run_dir: Path, *overrides: str) -> dict[str, object]:
    checkpoint = f"checkpoint={trained / 'best.safetensors'}"
    eval.main(config.compose([*TOY, checkpoint, f"run_dir={run_dir}", *overrides]))
    return json.loads((run_dir / "results.json").read_text(encoding="utf-8"))


def predicted(capsys: pytest.CaptureFixture[str], *overrides: str) -> list[dict[str, object]]:
    capsys.readouterr()
    predict.main(config.compose(["reader=pyav", "workers=0", *overrides], "predict"))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_eval_of_the_last_checkpoint_repeats_the_training_runs_result(trained: Path, tmp_path: Path) -> None:
    found = evaluate(trained, tmp_path)
    ours = json.loads((trained / "results.json").read_text(encoding="utf-8"))
    best = [line for line in (trained / "log.jsonl").read_text().splitlines() if "val_top1" in line]
    assert found["top1"] == max(json.loads(line)["val_top1"] for line in best)
    assert {k: found[k] for k in ("num_videos", "data_hash", "params_tuned")} == {
        k: ours[k] for k in ("num_videos", "data_hash", "params_tuned")
    }


def test_predictions_hold_every_video_once_and_are_the_result(trained: Path, tmp_path: Path) -> None:
    found = evaluate(trained, tmp_path)
    with np.load(tmp_path / "predictions.npz") as file:
        assert file["index"].tolist() == list(range(16))
        assert file["probability"].sum(1) == pytest.approx(1, abs=1e-5)
        top1 = 100 * np.mean(file["probability"].argmax(1) == file["label"])
    assert found["top1"] == pytest.approx(top1, abs=1e-3)


def test_a_test_that_skips_says_how_much_it_covers(
    trained: Path, tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(toy_cache, tmp_path / "cache")
    monkeypatch.setenv("AIM_CACHE", str(tmp_path / "cache"))
    for video in videos(tmp_path / "cache"):
        if video.match("val/grow/00000.mp4"):
            video.write_bytes(bytes(video.stat().st_size))  # another size would be mended
    more = ["data.workers=1", "data.max_bad=0.2"]
    with pytest.raises(UserError, match=r"data\.eval_on_error=skip"):
        evaluate(trained, tmp_path / "raise", *more)
    found = evaluate(trained, tmp_path / "skip", *more, "data.eval_on_error=skip")
    assert (found["num_videos"], found["num_missing"]) == (15, 1)


def test_views_are_averaged_as_probabilities(trained: Path, tmp_path: Path, toy_cache: Path) -> None:
    evaluate(trained, tmp_path, "views.temporal=2", "views.spatial=3", "views.resize=40")
    with np.load(tmp_path / "predictions.npz") as file:
        averaged = file["probability"][0]
    from aim.data.dataset import VideoDataset
    from aim.engine.settings import Run

    run_ = config.build(config.compose([*TOY, "views.temporal=2", "views.spatial=3", "views.resize=40"]), Run)
    lists = run_.load_lists()
    root = Path(run_.data.root)
    clips = VideoDataset(root, lists.val, run_.reader, run_.clip, run_.views, 0).read(0, 0)
    assert len(clips) == 6
    recogniser = predict.load(trained / "best.safetensors")
    expected = torch.stack([recogniser.predict(clip[None])[0] for clip in clips]).mean(0)
    assert averaged == pytest.approx(expected.numpy(), abs=1e-6)


def test_predict_gives_the_labels_of_eval(
    trained: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(trained, tmp_path)
    with np.load(tmp_path / "predictions.npz") as file:
        expected = {Path(p).name: (q.argmax(), q.max()) for p, q in zip(file["path"], file["probability"], strict=True)}
        classes = file["classes"].tolist()
        first = file["path"][0]
    path = next(video for video in videos(toy_cache) if str(video).endswith(str(first)))
    (line,) = predicted(capsys, f"checkpoint={trained / 'best.safetensors'}", f"input={path}", "top=3")
    best = line["labels"][0]
    with np.load(tmp_path / "predictions.npz") as file:
        probability = file["probability"][0]
    assert len(expected) > 0
    assert best["label"] == classes[probability.argmax()]
    assert best["probability"] == pytest.approx(probability.max(), abs=1e-4)
    assert len(line["labels"]) == 3


def test_predict_reads_a_folder_and_reports_what_it_cannot_read(
    trained: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, video in enumerate(videos(toy_cache)[:2]):
        shutil.copy(video, tmp_path / f"a video {i}.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "notes.txt").write_text("not looked at")
    capsys.readouterr()
    with exits(2):
        predict.main(
            config.compose(
                ["reader=pyav", "workers=0", f"checkpoint={trained / 'best.safetensors'}", f"input='{tmp_path}'"],
                "predict",
            )
        )
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["a video 0.mp4", "a video 1.mp4", "broken.mp4"]
    assert "error" in lines[2]
    assert "1 of 3 videos could not be read" in err


def test_predict_sees_real_videos(trained: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared / "videos" / "k400_test.mp4"
    if not path.exists():
        missing(f"{path} is not there")
    (line,) = predicted(capsys, f"checkpoint={trained / 'best.safetensors'}", f"input={path}")
    assert len(line["labels"]) == 5


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["checkpoint=nowhere.safetensors", "input=."], r"checkpoint nowhere\.safetensors doesn't exist"),
        (["checkpoint=LICENSE", "input=."], "not a safetensors file"),
        (["checkpoint=GOOD", "input=nowhere"], "input=nowhere doesn't exist"),
        (["checkpoint=GOOD", "input=EMPTY"], "holds no video"),
    ],
)
def test_bad_input_gets_one_clear_message(trained: Path, tmp_path: Path, overrides: list[str], expected: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "v.mp4").write_bytes(b"")
    (tmp_path / "LICENSE").write_text("text")
    places = {"GOOD": trained / "best.safetensors", "EMPTY": tmp_path / "empty", "LICENSE": tmp_path / "LICENSE"}
    places["=."] = Path(f"={tmp_path / 'v.mp4'}")
    for word, place in places.items():
        overrides = [override.replace(word, str(place)) for override in overrides]
    with pytest.raises(UserError, match=expected):
        predict.main(config.compose(["reader=pyav", "workers=0", *overrides], "predict"))


@pytest.mark.parametrize("target", ["os.system", "aim.config.sys", "aim.weights.trunk.read_tensors"])
def test_a_received_checkpoint_runs_nothing_of_its_author(trained: Path, tmp_path: Path, target: str) -> None:
    with safe_open(trained / "best.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    settings = json.loads(metadata["config"])
    settings["adapter"] = {"_target_": target, "command": f"touch {tmp_path / 'trace'}"}
    save_file(tensors, tmp_path / "evil.safetensors", metadata | {"config": json.dumps(settings)})
    with pytest.raises(UserError, match=rf"evil\.safetensors: _target_: {target} is none of aim-video's own"):
        predict.load(tmp_path / "evil.safetensors")
    assert not (tmp_path / "trace").exists()
    del settings["adapter"]
    save_file(tensors, tmp_path / "less.safetensors", metadata | {"config": json.dumps(settings)})
    with pytest.raises(UserError, match=r"less\.safetensors: adapter is missing"):
        predict.load(tmp_path / "less.safetensors")
    save_file(tensors, tmp_path / "damaged.safetensors", metadata | {"classes": "["})
    with pytest.raises(UserError, match="damaged metadata"):
        predict.load(tmp_path / "damaged.safetensors")


def test_another_trunk_is_refused_with_both_fingerprints(trained: Path, tmp_path: Path) -> None:
    saved = config.compose(TOY).backbone
    import timm

    trunk = timm.create_model(saved.name, num_classes=0, **saved.options)
    save_file(trunk.state_dict(), tmp_path / "trunk.safetensors")
    with pytest.raises(UserError, match="was trained on the trunk"):
        predict.load(trained / "best.safetensors", weights=str(tmp_path / "trunk.safetensors"))


def test_eval_refuses_a_checkpoint_of_other_classes(trained: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    from aim.data.lists import Lists
    from aim.engine import checkpoint

    saved = replace(checkpoint.read_weights(trained / "best.safetensors"))
    lists = Lists([], [], ["other", *saved.classes[1:]])
    with pytest.raises(UserError, match=r"class 0 is .* there and 'other' here"):
        eval.check_classes(saved, lists)
    assert run is not None


def test_another_number_of_frames_is_an_error_unless_stretching_is_asked_for(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"temporal_embedding.* stretch_time=true"):
        evaluate(trained, tmp_path / "a", "clip.num_frames=8")
    found = evaluate(trained, tmp_path / "b", "clip.num_frames=8", "stretch_time=true")
    assert found["views"] == "8x1x1"
