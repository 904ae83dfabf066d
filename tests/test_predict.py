import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from aim import config, predict
from aim.data.readers.pyav import PyAV
from aim.data.transforms import Views
from aim.engine.recogniser import Trained
from aim.errors import UserError
from tests.conftest import missing
from tests.toy import TOY, evaluate, exits, videos


def predicted(capsys: pytest.CaptureFixture[str], *overrides: str) -> list[dict[str, object]]:
    capsys.readouterr()
    predict.main(config.compose(["reader=pyav", "workers=0", *overrides], "predict"))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_predict_gives_the_labels_of_eval(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(unbroken, tmp_path)
    with np.load(tmp_path / "predictions.npz") as file:
        expected = {Path(p).name: (q.argmax(), q.max()) for p, q in zip(file["path"], file["probability"], strict=True)}
        classes = file["classes"].tolist()
        first = file["path"][0]
    path = next(video for video in videos(toy_cache) if str(video).endswith(str(first)))
    (line,) = predicted(capsys, f"checkpoint={unbroken / 'best.safetensors'}", f"input={path}", "top=3")
    best = line["labels"][0]
    with np.load(tmp_path / "predictions.npz") as file:
        probability = file["probability"][0]
    assert len(expected) > 0
    assert best["label"] == classes[probability.argmax()]
    assert best["probability"] == pytest.approx(probability.max(), abs=1e-4)
    assert len(line["labels"]) == 3


def test_a_file_is_predicted_by_the_views_of_the_test(unbroken: Path, tmp_path: Path, toy_cache: Path) -> None:
    evaluate(unbroken, tmp_path, "views.temporal=2", "views.spatial=3", "views.resize=40")
    with np.load(tmp_path / "predictions.npz") as file:
        expected, first = file["probability"][0], str(file["path"][0])
    path = next(video for video in videos(toy_cache) if str(video).endswith(first))
    trained = replace(predict.load(unbroken / "best.safetensors"), views=Views(temporal=2, spatial=3, resize=40))
    assert trained.predict_file(path, PyAV()).numpy() == pytest.approx(expected, abs=1e-6)
    assert trained.predict_file(str(path)).shape == (8,)
    with pytest.raises(UserError, match=r"nowhere\.mp4 could not be read: "):
        trained.predict_file("nowhere.mp4")


def test_predict_reads_a_folder_and_reports_what_it_cannot_read(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, video in enumerate(videos(toy_cache)[:2]):
        shutil.copy(video, tmp_path / f"a video {i}.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "notes.txt").write_text("not looked at")
    capsys.readouterr()
    with exits(2):
        predict.main(
            config.compose(
                ["reader=pyav", "workers=0", f"checkpoint={unbroken / 'best.safetensors'}", f"input='{tmp_path}'"],
                "predict",
            )
        )
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [Path(line["path"]).name for line in lines] == ["a video 0.mp4", "a video 1.mp4", "broken.mp4"]
    assert "error" in lines[2]
    assert "1 of 3 videos could not be read" in err


def test_the_table_shows_names_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b[").mkdir()
    for name in ("a[x].mp4", "b[/x].mp4"):
        (tmp_path / name).touch()
    outcomes: dict[str, Any] = {"a[x].mp4": torch.tensor([0.25, 0.75]), "b[/x].mp4": "no [x] in [/x]"}
    fake = SimpleNamespace(
        classes=["[/walk]", "[run] :car:"],
        files=lambda paths, reader, **_: ((path, outcomes[str(path.relative_to(tmp_path))]) for path in paths),
    )
    monkeypatch.setattr(predict, "load", lambda path, **_: fake)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    monkeypatch.setenv("COLUMNS", "400")
    with exits(2):
        predict.main(config.compose(["reader=pyav", "checkpoint=x", f"input='{tmp_path}'"], "predict"))
    shown = capsys.readouterr().out
    for text in ("top 2", "a[x].mp4", "[run] :car: 75.0 %", "[/walk] 25.0 %", "b[/x].mp4", "no [x] in [/x]"):
        assert text in shown


def test_predict_sees_real_videos(unbroken: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared / "videos" / "k400_test.mp4"
    if not path.exists():
        missing(f"{path} is not there")
    (line,) = predicted(capsys, f"checkpoint={unbroken / 'best.safetensors'}", f"input={path}")
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
def test_bad_input_gets_one_clear_message(unbroken: Path, tmp_path: Path, overrides: list[str], expected: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "v.mp4").write_bytes(b"")
    (tmp_path / "LICENSE").write_text("text")
    places = {"GOOD": unbroken / "best.safetensors", "EMPTY": tmp_path / "empty", "LICENSE": tmp_path / "LICENSE"}
    places["=."] = Path(f"={tmp_path / 'v.mp4'}")
    for word, place in places.items():
        overrides = [override.replace(word, str(place)) for override in overrides]
    with pytest.raises(UserError, match=expected):
        predict.main(config.compose(["reader=pyav", "workers=0", *overrides], "predict"))


@pytest.mark.parametrize("target", ["os.system", "aim.config.sys", "aim.weights.trunk.read_tensors"])
def test_a_received_checkpoint_runs_nothing_of_its_author(unbroken: Path, tmp_path: Path, target: str) -> None:
    with safe_open(unbroken / "best.safetensors", "pt") as file:
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


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"options": {"checkpoint_path": "/etc/passwd"}}, r"backbone\.options\.checkpoint_path='/etc/passwd' doesn't"),
        ({"options": {"cache_dir": "/"}}, r"backbone\.options\.cache_dir"),
        ({"options": {"pretrained": True}}, r"backbone\.options\.pretrained=True doesn't shape a trunk"),
        ({"options": {"pretrained_cfg": {"url": "http://localhost/a"}}}, r"backbone\.options\.pretrained_cfg"),
        ({"options": {"pretrained_cfg_overlay": {"file": "a.bin"}}}, r"backbone\.options\.pretrained_cfg_overlay"),
        ({"options": {"embed_dim": "an address"}}, r"backbone\.options\.embed_dim='an address'"),
        ({"options": {"depth": [2, {"file": "a.bin"}]}}, r"backbone\.options\.depth"),
        ({"name": "hf-hub:somebody/model"}, r"backbone\.name='hf-hub:somebody/model' is no timm model"),
        ({"name": "local-dir:/tmp"}, r"backbone\.name='local-dir:/tmp' is no timm model"),
        ({"name": "vit_tiny_patch16_224.a/hf-hub:b"}, "can't be built"),
    ],
    ids=str,
)
def test_a_received_checkpoint_names_no_file_and_no_address(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("looked for an address"))
    with safe_open(unbroken / "best.safetensors", "pt") as file:
        metadata = file.metadata()
    settings = json.loads(metadata["config"])
    config.build({key: settings[key] for key in Trained.__dataclass_fields__}, Trained, received=True)
    settings["backbone"] |= changes
    save_file({}, tmp_path / "best.safetensors", metadata | {"config": json.dumps(settings)})
    with pytest.raises(UserError, match=expected):
        predict.load(tmp_path / "best.safetensors")
    if "options" in changes:
        with pytest.raises(UserError, match=expected):
            evaluate(tmp_path, tmp_path / "test")


def test_another_trunk_is_refused_with_both_fingerprints(unbroken: Path, tmp_path: Path) -> None:
    saved = config.compose(TOY).backbone
    import timm

    trunk = timm.create_model(saved.name, num_classes=0, **saved.options)
    save_file(trunk.state_dict(), tmp_path / "trunk.safetensors")
    with pytest.raises(UserError, match="was trained on the trunk"):
        predict.load(unbroken / "best.safetensors", weights=str(tmp_path / "trunk.safetensors"))
