"""The verb's output and files, on the toy's checkpoint."""

import json
import re
import shlex
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aim.data.demo.moving_shapes import encode
from aim.data.readers.pyav import PyAV
from aim.engine.trained.recogniser import load
from aim.explain import verb as explain
from aim.explain.order import ORDERS
from aim.ground import config
from aim.shell.words import as_setting
from tests.conftest import ROOT
from tests.messages import named, refused
from tests.toy import evaluate, videos


def told(capsys: pytest.CaptureFixture[str], *overrides: str) -> tuple[dict[str, object], str]:
    """Its stdout, and its messages."""
    capsys.readouterr()
    explain.main(config.compose(["reader=pyav", "workers=0", "device=cpu", *overrides], "explain"))
    out, err = capsys.readouterr()
    return json.loads(out), err


@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_a_video_is_explained_and_drawn(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    passes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explain.Display, "update", lambda _, done, text: passes.append(done))
        path, out = videos(toy_cache)[0], tmp_path / "new" / "map.png"
        chosen = [f"checkpoint={unbroken}", f"input={path}", f"out={out}", f"method={method}", "cells=3"]
        found, said = told(capsys, *chosen)
    named(said, str(passes[-1]))
    probability, order = found["labels"][0]["probability"], found["order"]  # type: ignore[index]
    assert order["as it is"] == {"label": found["label"], "probability": probability}  # type: ignore[index]
    assert list(order) == list(ORDERS)  # type: ignore[call-overload]
    shape = {"occlusion": [3, 3, 3], "gradient": [4, 4, 4]}[method]
    assert found["map"]["shape"] == list(np.shape(found["map"]["relevance"])) == shape  # type: ignore[index]
    assert len(found["frames"]["evidence_lost"]) == 3  # type: ignore[index]
    assert set(found["similarity_to_randomised"]) == {"head", "head and adapters"}  # type: ignore[call-overload]
    with Image.open(out) as picture:
        assert picture.width > 1000
    assert [file.name for file in out.parent.iterdir()] == [out.name]


def test_a_long_explanation_names_shorter_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "num_passes", lambda model, method, cells: cells**3 if method == "occlusion" else 70)
    for overrides, seconds, expected, absent in (
        ([], 0.5, ["512", "4m16s", "cells=4", "32s", "method=gradient", "35s"], []),
        (["cells=4"], 2.0, ["64", "2m08s"], ["cells=", "method="]),
        (["cells=5"], 2.0, ["125", "4m10s", "cells=4", "2m08s", "method=gradient", "2m20s"], []),
        ([], 0.1, ["512", "51s"], ["cells=", "method="]),
        (["method=gradient"], 60.0, ["70", "1h10m"], ["cells=", "method="]),
    ):
        settings = config.build(config.compose(["checkpoint=c", *overrides], "explain"), explain.Settings)
        said = explain.cost(settings, None, seconds)  # type: ignore[arg-type]
        named(said, *expected)
        assert not any(word in said for word in absent)


def test_one_video_is_explained_at_a_time() -> None:
    with refused("-m", "input=A,B"):
        explain.main(config.compose(["checkpoint=c", "input=[a.mp4,b.mp4]"], "explain"))


def test_the_terminal_has_tables(
    unbroken: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    asked = [f"checkpoint={unbroken}", f"input={videos(toy_cache)[0]}", "method=gradient", "label=grow"]
    explain.main(config.compose(["reader=pyav", "workers=0", "device=cpu", *asked], "explain"))
    shown = capsys.readouterr().out
    for text in ("grow ", "evidence lost", "first frame only", "by chance", "head and adapters"):
        assert text in shown


def test_the_order_as_it_is_has_the_tests_accuracy(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (f"checkpoint={unbroken / 'best.safetensors'}", "what=order")
    found, _ = told(capsys, *asked)
    result = evaluate(unbroken, tmp_path / "test")
    assert found["videos"] == result["num_videos"] == 16
    assert found["order"]["as it is"]["top1"] == result["top1"]  # type: ignore[index]
    folder = next(toy_cache.glob("moving_shapes_*"))
    listed, _ = told(capsys, *asked, f"input={folder / 'val.txt'}", f"data.root={folder}")
    assert listed["order"] == found["order"]
    few, said = told(capsys, *asked, "limit=3")
    assert few["videos"] == 3
    named(said, "3", "4", "12")
    one, _ = told(capsys, *asked, f"input={videos(toy_cache)[0]}")
    assert list(one["order"]) == list(ORDERS)  # type: ignore[call-overload]


def test_a_wrong_answer_is_told_by_the_list_and_the_probability_is_predicts(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [f"checkpoint={unbroken}", "method=gradient", "cells=2"]
    recogniser = load(unbroken)
    answers = {path: recogniser.predict_file(path, PyAV()) for path in videos(toy_cache)}
    right = {path: recogniser.classes[int(p.argmax())] == path.parent.name for path, p in answers.items()}
    assert {*right.values()} == {True, False}
    for expected in (True, False):
        path = next(path for path in right if right[path] == expected)
        found, _ = told(capsys, *asked, f"input={path}")
        assert found["probability"] == pytest.approx(float(answers[path].max()), abs=1e-4)
        assert found["listed"] == path.parent.name
        assert any(f"list says {path.parent.name}" in text for text in found["doubts"]) != expected  # type: ignore[attr-defined]
    shutil.copy(path, tmp_path / "a.mp4")
    elsewhere, _ = told(capsys, *asked, f"input={tmp_path / 'a.mp4'}")
    assert elsewhere["listed"] is None


def test_documented_commands_are_composed() -> None:
    texts = [
        explain.__doc__ or "",
        *((ROOT / name).read_text(encoding="utf-8") for name in ("docs/commands.md", "docs/explain.md")),
    ]
    found = [re.findall(r"python -m aim\.explain +([^#\n]*)", text) for text in texts]
    assert [len(commands) for commands in found] == [4, 2, 4]
    for command in chain(*found):
        words = as_setting(shlex.split(command), "input")
        config.build(config.compose(words, "explain"), explain.Settings)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["input=VIDEO", "what=order"]),
        (["input=nowhere.mp4"], ["input=nowhere.mp4"]),
        (["input='rtsp://cam//1'"], ["input=rtsp://cam//1", "ffmpeg"]),
        (["input=TMP/a.png"], ["input=", "a.png", "picture"]),
        (["input=TMP/bad.mp4"], ["input=", "bad.mp4", "read"]),
        (["input=TMP/still.mp4"], ["input=", "still.mp4", "frame"]),
        (["input=TMP"], ["input=", "folder", "one", "reader=frames"]),
        (["input=TMP/list.txt"], ["list.txt", "what=order"]),
        (["what=order", "input=TMP/list.txt"], ["list.txt:1", "99", "8"]),
        (["input=VIDEO", "label=gorw"], ["label=gorw", "grow"]),
        (["input=VIDEO", "view=2"], ["view=2", "1"]),
        (["input=VIDEO", "cells=1"], ["cells=1", "2"]),
        (["input=VIDEO", "out=TMP/a.jpeg"], ["out=", "a.jpeg", ".png"]),
        (["input=VIDEO", "out=TMP/bad.mp4/a.png"], ["bad.mp4", "folder", "run_dir=DIR"]),
        (["input=VIDEO", "out=TMP/f.png"], ["f.png", "folder"]),
        (["input=TMP/copy.mp4", "out=TMP/copy.mp4"], ["out=", "copy.mp4", "input"]),
        (["input=VIDEO", "what=order", "out=TMP/a.png"], ["out=", "a.png", "what=order"]),
        (["input=VIDEO", "checkpoint=model.onnx"], ["checkpoint=model.onnx"]),
        (["input=VIDEO", "checkpoint=TMP/bad.mp4"], ["checkpoint", "bad.mp4", "safetensors"]),
    ],
    ids=str,
)  # fmt: skip
def test_bad_input_gets_one_clear_message_and_leaves_nothing(
    unbroken: Path, tmp_path: Path, toy_cache: Path, overrides: list[str], expected: list[str]
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "f.png").mkdir()
    (tmp_path / "list.txt").write_text("a.mp4 99\n")
    encode(tmp_path / "still.mp4", np.full((9, 32, 32, 3), 100, np.uint8))
    shutil.copy(videos(toy_cache)[0], tmp_path / "copy.mp4")
    before = sorted((path, path.stat().st_size) for path in tmp_path.iterdir())
    words = [word.replace("TMP", str(tmp_path)).replace("VIDEO", str(videos(toy_cache)[0])) for word in overrides]
    with refused(*expected):
        explain.main(
            config.compose(["reader=pyav", "workers=0", "device=cpu", f"checkpoint={unbroken}", *words], "explain")
        )
    assert sorted((path, path.stat().st_size) for path in tmp_path.iterdir()) == before
