import json
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from aim.data.demo.moving_shapes import encode
from aim.data.readers.pyav import PyAV
from aim.data.transforms import Views
from aim.engine.scores import predictions
from aim.engine.trained.recogniser import Trained, load
from aim.ground import config
from aim.predict import verb as predict
from tests.conftest import missing
from tests.messages import named, refused
from tests.toy import TOY, evaluate, exits, videos


def predicted(capsys: pytest.CaptureFixture[str], *overrides: str) -> list[dict[str, object]]:
    capsys.readouterr()
    predict.main(config.compose(["reader=pyav", "workers=0", *overrides], "predict"))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predict_gives_the_labels_of_eval(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str], precision: str
) -> None:
    evaluate(unbroken, tmp_path, f"precision={precision}")
    with np.load(tmp_path / "predictions.npz") as file:
        expected = {Path(p).name: (q.argmax(), q.max()) for p, q in zip(file["path"], file["probability"], strict=True)}
        classes = file["classes"].tolist()
        first = file["path"][0]
    path = next(video for video in videos(toy_cache) if str(video).endswith(str(first)))
    (line,) = predicted(
        capsys,
        f"checkpoint={unbroken / 'best.safetensors'}",
        f"input={path}",
        "top=3",
        f"precision={precision}",
        "temperature=1",
    )
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
    trained = load(unbroken / "best.safetensors", calibrated=False)
    trained = replace(trained, views=Views(temporal=2, spatial=3, resize=40))
    assert trained.predict_file(path, PyAV()).numpy() == pytest.approx(expected, abs=1e-6)
    assert trained.predict_file(str(path)).shape == (8,)
    with refused("nowhere.mp4", "read"):
        trained.predict_file("nowhere.mp4")


def test_predict_reads_a_folder_and_reports_what_it_cannot_read(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i, video in enumerate(videos(toy_cache)[:2]):
        shutil.copy(video, tmp_path / f"a video {i}.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    (tmp_path / "notes.txt").write_text("not looked at")
    capsys.readouterr()
    with exits(1):
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


def test_only_what_is_written_is_said_to_be_and_a_tilde_is_home(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    (tmp_path / "before.html").touch()
    outputs = ["out='~/new.csv'", "picture='~/before.html'", "video_out='~/drawn.mp4'"]
    with exits(1):
        predicted(capsys, f"checkpoint={unbroken}", "input='~/bad.mp4'", "window=1", *outputs)
    assert f"written: {tmp_path / 'new.csv'}\n" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mp4", "before.html", "new.csv"]


def test_a_terminal_gets_a_table_and_a_pipe_json(
    unbroken: Path, tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = videos(toy_cache)[:2]
    (tmp_path / "b[").mkdir()
    shutil.copy(one, tmp_path / "b[" / "a[x] :car:.mp4")
    names = f"input=['{tmp_path}','{two.parent}/*{two.stem}.mp4',nowhere.mp4]"
    asked = [
        "reader=pyav",
        f"checkpoint={unbroken}",
        names,
        f"out={tmp_path}/o.csv",
        "views.temporal=2",
        "top=20",
        "precision=fp32",
    ]
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    monkeypatch.setenv("COLUMNS", "80")
    with exits(1):
        predict.main(config.compose([*asked, "workers=0"], "predict"))
    out, err = capsys.readouterr()
    assert str(tmp_path / "b[" / "a[x] :car:.mp4") in out.replace("\n", "")
    assert out.count(" %") == 2 * 8
    assert "could not be read: doesn't exist" in out
    assert "8 classes, 4x2x1 views, fp32 on cpu" in err
    assert "1 of 3 videos could not be read" in err
    monkeypatch.delenv("FORCE_COLOR")
    with exits(1):
        predict.main(config.compose([*asked, "batch_size=3", "window=0.3", "stride=0.1"], "predict"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "doesn't exist" in lines[-1]["error"]
    assert lines[0] | {"labels": 0, "label": 0} == {"path": lines[0]["path"], "start": 0, "end": 0.3} | dict.fromkeys(
        ("labels", "label"), 0
    )
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1 + len(lines)


def test_a_threshold_compares_calibrated_probabilities(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = load(unbroken / "best.safetensors")
    assert trained.precision == "fp32"
    assert trained.calibration.temperature is not None
    evaluate(unbroken, tmp_path, "views.temporal=2")
    found = predictions.read(tmp_path / "predictions.npz")
    path = next(video for video in videos(toy_cache) if str(video).endswith(str(found.path[0])))
    logits = torch.from_numpy(found.log_probability[0]).double()
    expected = (logits / 0.5).softmax(1).mean(0)
    asked = [f"checkpoint={unbroken}", f"input={path}", "views.temporal=2", "temperature=0.5", "precision=fp32"]
    for at_least, given in (("null", True), (expected.max() - 0.01, True), (expected.max() + 0.01, False)):
        capsys.readouterr()
        predict.main(config.compose([*asked, "reader=pyav", f"min_probability={at_least}"], "predict"))
        out, err = capsys.readouterr()
        line = json.loads(out)
        assert line["labels"][0]["probability"] == pytest.approx(float(expected.max()), abs=1e-3)
        assert line["label"] == (trained.classes[int(expected.argmax())] if given else None)
        named(err, "temperature=0.5")
    (plain,) = predicted(capsys, *asked[:3], "precision=fp32", "temperature=1")
    assert plain["labels"][0]["probability"] == pytest.approx(float(found.probability[0].max()), abs=1e-4)


def test_a_temperature_that_the_checkpoint_holds_is_used_and_named(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the verb, and in a notebook; in an exported file tests/test_export.py looks for it."""
    tensors, metadata = recast(unbroken, temperature="0.25")
    save_file(tensors, tmp_path / "best.safetensors", metadata)
    path = videos(toy_cache)[0]
    logits = load(unbroken, calibrated=False).predict_file(path, PyAV()).log()
    expected = (logits / 0.25).softmax(0)
    assert (expected - logits.exp()).abs().max() > 0.01
    asked = [f"checkpoint={tmp_path}", f"input={path}", "precision=fp32", "reader=pyav", "workers=0", "top=8"]
    predict.main(config.compose(asked, "predict"))
    out, err = capsys.readouterr()
    found = {each["label"]: each["probability"] for each in json.loads(out)["labels"]}
    trained = load(tmp_path)
    assert [found[name] for name in trained.classes] == pytest.approx(expected.tolist(), abs=1e-4)
    assert trained.predict_file(path, PyAV()).tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    named(err, "0.25", "temperature=1")


def recast(run_dir: Path, **changes: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a run's checkpoint, and its metadata with `changes`."""
    with safe_open(run_dir / "best.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() | changes  # noqa: SIM118


class Piped:
    """Standard input whose next line comes once the answer to the one before is there, as a client sends them."""

    def __init__(self, lines: Sequence[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines, self.answers = list(lines), list[dict[str, Any]]()
        read, self.end = os.pipe()
        self.reader = open(read)  # noqa: PTH123, SIM115 - a descriptor
        monkeypatch.setattr("sys.stdin", self.reader)
        monkeypatch.setattr(predict, "tell", self.hear)
        self.send()

    def send(self) -> None:
        if self.lines:
            os.write(self.end, self.lines.pop(0))
        else:
            os.close(self.end)

    def hear(self, text: str) -> None:
        self.answers += [json.loads(line) for line in text.splitlines()]
        self.send()


@pytest.mark.parametrize("more", [["workers=0"], ["window=0.3", "segments=OUT/s.csv"]], ids=str)
def test_each_line_of_standard_input_is_answered_before_the_next_one_comes(
    unbroken: Path,
    tmp_path: Path,
    toy_cache: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
) -> None:
    one, two = map(str, videos(toy_cache)[:2])
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    bad = [
        "nowhere.mp4",
        "rtsp://cam//1?x=1",
        "a\0.mp4",
        "~nobodyhere/a.mp4",
        "x**.mp4",
        "n" * 300,
        f"{tmp_path}/torn.mp4",
    ]
    sent = [one, *bad, two, one]
    client = Piped([f"{line}\n".encode() for line in sent], monkeypatch)
    words = [word.replace("OUT", str(tmp_path)) for word in more]
    with exits(1):
        predict.main(config.compose(["reader=pyav", f"checkpoint={unbroken}", "input='-'", *words], "predict"))
    client.reader.close()
    assert list(dict.fromkeys(each["path"] for each in client.answers)) == [one, *bad, two]
    failed = [each["path"] for each in client.answers if "error" in each]
    assert failed == bad
    assert client.answers[0]["labels"] == client.answers[-1]["labels"] or "window=0.3" in more
    assert all(each["labels"] for each in client.answers if "error" not in each)
    assert f"{len(bad)} of {len(sent)} videos" in capsys.readouterr().err
    if "window=0.3" in more:
        rows = (tmp_path / "s.csv").read_text().splitlines()
        assert len([row for row in rows if row.startswith(one)]) >= 2


def test_an_empty_standard_input_is_an_error(unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Piped([], monkeypatch)
    with refused("input=-"):
        predict.main(config.compose(["reader=pyav", "workers=0", f"checkpoint={unbroken}", "input='-'"], "predict"))
    client.reader.close()


def test_what_would_be_written_over_is_not_read(
    unbroken: Path, tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text("what was there before")
    client = Piped([f"{tmp_path}/a.jsonl\n".encode()], monkeypatch)
    asked = ["reader=pyav", "workers=0", f"checkpoint={unbroken}", "input='-'", f"out={tmp_path / 'a.jsonl'}"]
    with exits(1):
        predict.main(config.compose(asked, "predict"))
    client.reader.close()
    assert "error" in client.answers[0]


@pytest.mark.parametrize(("size", "said"), [((40, 32), False), ((64, 32), True), ((32, 64), True)], ids=str)
def test_that_a_crop_leaves_the_sides_out_is_said_once(
    unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], size: tuple[int, int], said: bool
) -> None:
    width, height = size
    for name in ("a.mp4", "b.mp4"):
        encode(tmp_path / name, np.random.default_rng(0).integers(0, 255, (9, height, width, 3), np.uint8))
    asked = ["reader=pyav", "workers=0", f"checkpoint={unbroken}", f"input={tmp_path}"]
    for more, expected in (([], said), (["views.spatial=3"], False)):
        capsys.readouterr()
        predict.main(config.compose([*asked, *more], "predict"))
        err = capsys.readouterr().err
        assert err.count("views.spatial=3") == err.count(f"{width}x{height}") == int(expected)
        assert not expected or "50 %" in err


def test_a_checkpoint_without_a_temperature_says_so(
    unbroken: Path, tmp_path: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors, metadata = recast(unbroken)
    old = {key: value for key, value in metadata.items() if key not in ("temperature", "precision")}
    save_file(tensors, tmp_path / "best.safetensors", old)
    asked = [f"checkpoint={tmp_path}", f"input={videos(toy_cache)[0]}", "min_probability=0.9", "precision=bf16"]
    predict.main(config.compose(["reader=pyav", *asked], "predict"))
    out, err = capsys.readouterr()
    assert json.loads(out)["label"] is None
    assert "has no temperature" in err
    assert "trained in" not in err
    predict.main(config.compose(["reader=pyav", *asked[1:], f"checkpoint={unbroken}"], "predict"))
    err = capsys.readouterr().err
    assert "has no temperature" not in err
    assert "bf16 on cpu, trained in fp32 (precision=fp32 gives its test's numbers); calibrated with" in err
    save_file(tensors, tmp_path / "best.safetensors", old | {"precision": '"fp8"'})
    predict.main(config.compose(["reader=pyav", *asked], "predict"))
    assert "bf16 on cpu, trained in fp8; not calibrated" in capsys.readouterr().err


def test_whoever_has_read_enough_ends_it_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe, exits(141):  # noqa: PTH123 - a descriptor
        monkeypatch.setattr("sys.stdout", pipe)
        predict.tell("a line")
    monkeypatch.undo()


def test_predict_sees_real_videos(unbroken: Path, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = shared / "videos" / "k400_test.mp4"
    if not path.exists():
        missing(f"{path} is not there")
    (line,) = predicted(capsys, f"checkpoint={unbroken / 'best.safetensors'}", f"input={path}")
    assert len(line["labels"]) == 5


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["checkpoint=nowhere.safetensors", "input=."], ["checkpoint", "nowhere.safetensors", "best.safetensors"]),
        (["checkpoint=LICENSE", "input=."], ["checkpoint", "LICENSE", "safetensors"]),
        (["checkpoint=GOOD", "input=nowhere"], ["input=nowhere", "pattern"]),
        (["checkpoint=GOOD", "input=EMPTY"], ["input=", "empty", ".mp4"]),
        (["checkpoint=GOOD", "input=LICENSE", "top=0"], ["top=0", "1"]),
        (["checkpoint=GOOD", "input=LICENSE", "out=a.txt"], ["out=a.txt", ".csv", ".jsonl"]),
        (["checkpoint=GOOD", "input=LICENSE", "stride=1"], ["stride=1", "time", "window=SECONDS"]),
        (["checkpoint=GOOD", "input=LICENSE", "window=0"], ["window=0", "0"]),
        (["checkpoint=GOOD", "input=LICENSE", "min_probability=1.5"], ["min_probability=1.5", "0", "1"]),
        (["checkpoint=GOOD", "input=LICENSE", "temperature=0"], ["temperature=0", "0"]),
        (["checkpoint=GOOD", "input=LICENSE", "segments=a.csv"], ["segments=a.csv", "window=SECONDS"]),
        (["checkpoint=GOOD", "input='-'", "video_out=a.mp4"], ["video_out=a.mp4", "one"]),
        (["checkpoint=GOOD", "input='-'", "picture=a.png", "window=1"], ["picture=a.png", ".html"]),
        (["checkpoint=GOOD", "input='rtsp://cam//1'"], ["input=rtsp://cam//1", "window=SECONDS"]),
        (["checkpoint=GOOD", "input='s3://cam/1.mp4'"], ["input=s3://cam/1.mp4", "ffmpeg"]),
        (["checkpoint=GOOD", "input='file:///a%20b.mp4'"], ["input=file:///a%20b.mp4", "/a b.mp4"]),
        (["checkpoint=GOOD", "input=LICENSE", "picture=a.png"], ["picture=a.png", "window=SECONDS"]),
        (["checkpoint=GOOD", "input=[LICENSE,OTHER]", "video_out=a.mp4"], ["video_out=a.mp4", "2"]),
        (["checkpoint=GOOD", "input=LICENSE", "video_out=LICENSE"], ["video_out=", "LICENSE", ".mp4"]),
        (["checkpoint=GOOD", "input=VIDEO", "video_out=VIDEO"], ["v.mp4", "read"]),
        (["checkpoint=GOOD", "input=LICENSE", "views.spatial=2"], ["views.spatial=2", "1", "3"]),
    ],
)
def test_bad_input_gets_one_clear_message(
    unbroken: Path, tmp_path: Path, overrides: list[str], expected: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "v.mp4").write_bytes(b"")
    (tmp_path / "LICENSE").write_text("text")
    places = {"GOOD": unbroken / "best.safetensors", "EMPTY": tmp_path / "empty", "LICENSE": tmp_path / "LICENSE"}
    places |= {"VIDEO": tmp_path / "v.mp4", "OTHER": tmp_path / "v.mp4"}
    places["=."] = Path(f"={tmp_path / 'v.mp4'}")
    for word, place in places.items():
        overrides = [override.replace(word, str(place)) for override in overrides]
    with refused(*expected):
        predict.main(config.compose(["reader=pyav", "workers=0", *overrides], "predict"))


@pytest.mark.parametrize("target", ["os.system", "aim.ground.config.sys", "aim.weights.trunk.read_tensors"])
def test_a_received_checkpoint_runs_nothing_of_its_author(unbroken: Path, tmp_path: Path, target: str) -> None:
    with safe_open(unbroken / "best.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    settings = json.loads(metadata["config"])
    settings["adapter"] = {"_target_": target, "command": f"touch {tmp_path / 'trace'}"}
    save_file(tensors, tmp_path / "evil.safetensors", metadata | {"config": json.dumps(settings)})
    with refused("evil.safetensors", "_target_", target):
        load(tmp_path / "evil.safetensors")
    assert not (tmp_path / "trace").exists()
    del settings["adapter"]
    save_file(tensors, tmp_path / "less.safetensors", metadata | {"config": json.dumps(settings)})
    with refused("less.safetensors", "adapter"):
        load(tmp_path / "less.safetensors")
    save_file(tensors, tmp_path / "damaged.safetensors", metadata | {"classes": "["})
    with refused("damaged.safetensors", "metadata"):
        load(tmp_path / "damaged.safetensors")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"options": {"checkpoint_path": "/etc/passwd"}},
            ["backbone.options.checkpoint_path='/etc/passwd'", "embed_dim"],
        ),
        ({"options": {"cache_dir": "/"}}, ["backbone.options.cache_dir='/'", "embed_dim"]),
        ({"options": {"pretrained": True}}, ["backbone.options.pretrained=True", "embed_dim"]),
        (
            {"options": {"pretrained_cfg": {"url": "http://localhost/a"}}},
            ["backbone.options.pretrained_cfg=", "embed_dim"],
        ),
        (
            {"options": {"pretrained_cfg_overlay": {"file": "a.bin"}}},
            ["backbone.options.pretrained_cfg_overlay=", "embed_dim"],
        ),
        ({"options": {"embed_dim": "an address"}}, ["backbone.options.embed_dim='an address'"]),
        ({"options": {"depth": [2, {"file": "a.bin"}]}}, ["backbone.options.depth=", "mlp_ratio"]),
        ({"name": "hf-hub:somebody/model"}, ["backbone.name='hf-hub:somebody/model'"]),
        ({"name": "local-dir:/tmp"}, ["backbone.name='local-dir:/tmp'"]),
        ({"name": "vit_tiny_patch16_224.a/hf-hub:b"}, ["backbone.options=", "'img_size'"]),
    ],
    ids=str,
)
def test_a_received_checkpoint_names_no_file_and_no_address(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: list[str]
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("looked for an address"))
    with safe_open(unbroken / "best.safetensors", "pt") as file:
        metadata = file.metadata()
    settings = json.loads(metadata["config"])
    config.build({key: settings[key] for key in Trained.__dataclass_fields__}, Trained, received=True)
    settings["backbone"] |= changes
    save_file({}, tmp_path / "best.safetensors", metadata | {"config": json.dumps(settings)})
    with refused(*expected):
        load(tmp_path / "best.safetensors")
    if "options" in changes:
        with refused(*expected):
            evaluate(tmp_path, tmp_path / "test")


def test_another_trunk_is_refused_with_both_fingerprints(unbroken: Path, tmp_path: Path) -> None:
    saved = config.compose(TOY).backbone
    import timm

    trunk = timm.create_model(saved.name, num_classes=0, **saved.options)
    save_file(trunk.state_dict(), tmp_path / "trunk.safetensors")
    with refused("trunk", "backbone.weights=PATH"):
        load(unbroken / "best.safetensors", weights=str(tmp_path / "trunk.safetensors"))


@pytest.mark.parametrize("more", [[], ["window=0.25"]])
def test_shards_answer_as_one_job_does(
    unbroken: Path, toy_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    root = tmp_path / "in"
    for i, video in enumerate(videos(toy_cache)[:7]):
        (root / f"{i % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(video, root / f"{i % 2}/{i}.mp4")
    (root / "broken.mp4").write_bytes(b"not a video")
    given = [f"checkpoint={unbroken}", f"input={root}", "precision=fp32", *more]
    with exits(1):
        predicted(capsys, *given, f"out={tmp_path / 'one.csv'}")
    codes = []
    for shard in ("shard=0/3", "shard=1/3", "shard=2/3", "shard=1/3", "merge=true"):
        with pytest.raises(SystemExit) as caught:
            predicted(capsys, *given, f"out={tmp_path / 'all.csv'}", shard)
        codes.append(caught.value.code)
    assert sorted(codes[:3]) == [0, 0, 1]
    assert codes[-1] == 1
    assert (tmp_path / "all.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()


def test_a_shard_goes_on_where_it_was_and_answers_again_about_a_video_that_is_another(
    unbroken: Path, toy_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "in", tmp_path / "out.jsonl"
    root.mkdir()
    for i, video in enumerate(videos(toy_cache)[:4]):
        shutil.copy(video, root / f"{i}.mp4")
    *of_all, _ = given = [f"checkpoint={unbroken}", f"input={root}", "precision=fp32", f"out={out}", "shard=0/1"]
    kept = tmp_path / "out.jsonl.shards/00000-of-00001/answers.jsonl"
    with exits(0):
        predicted(capsys, *given)
    before = kept.read_bytes().splitlines(keepends=True)
    stamp_time = (root / "0.mp4").stat().st_mtime_ns
    kept.write_bytes(b"".join(before[:3]) + before[3][:40])  # killed as it wrote
    os.utime(root / "0.mp4")
    shutil.copy(videos(toy_cache)[9], root / "1.mp4")
    with exits(3):
        predicted(capsys, *of_all, "merge=true")
    named(capsys.readouterr().err, "1.mp4, 3.mp4", "0/1")
    assert [Path(json.loads(line)["path"]).name for line in out.read_text().splitlines()] == ["0.mp4", "2.mp4"]
    os.utime(root / "0.mp4", ns=(0, stamp_time))
    with exits(0):
        predicted(capsys, *given)
    after = kept.read_bytes().splitlines(keepends=True)
    assert after[:2] == [before[0], before[2]]
    assert {json.loads(line)["name"] for line in after[2:]} == {"1.mp4", "3.mp4"}
    assert before[3] in after
    with refused("claim.json", "labels"):
        predicted(capsys, *given, "top=1")


def test_answers_of_shards_need_a_file_and_have_no_pictures(unbroken: Path, tmp_path: Path) -> None:
    with refused("out=FILE.csv"):
        config.build(
            config.compose([f"checkpoint={unbroken}", "input=a.mp4", "shard=0/2"], "predict"), predict.Settings
        )
    given = [f"checkpoint={unbroken}", "input=a.mp4", "shard=0/2", "out=a.csv", "window=1", "picture=a.png"]
    with refused("picture", "shard"):
        config.build(config.compose(given, "predict"), predict.Settings)
