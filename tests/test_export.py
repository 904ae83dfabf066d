"""Exported files against PyTorch, and refusals."""

import ast
import json
import re
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.utils import parametrize

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.pace import Pace
from aim.data.readers.pyav import PyAV
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.engine.scores.tasks import SINGLE_LABEL
from aim.engine.trained import exported
from aim.engine.trained.exported import About
from aim.engine.trained.recogniser import load
from aim.export import comparing, rounding, writing
from aim.export import verb as export
from aim.ground import config
from aim.models.classifier import Backbone, VideoClassifier, terms_of
from aim.predict import verb as predict
from tests.conftest import ROOT, missing
from tests.messages import named, refused
from tests.models.checks import toy_model
from tests.models.toys import FRAMES, SIZE, randomise
from tests.test_predict import predicted
from tests.toy import file_size_limit, videos

ABOUT = About(
    classes=["a", "[b]", "c, d", "e=f", "g\u00fc"],
    clip=Clip(FRAMES, 1, SIZE, "uniform"),
    views=Views(temporal=2, spatial=1, resize=SIZE),
    trunk={"name": "toy", "sha256": "0"},
    checkpoint={"name": "runs/best.safetensors", "sha256": "1"},
)


def write(checkpoint: Path, out: Path, *overrides: str) -> None:
    export.main(config.compose([f"checkpoint={checkpoint}", f"out={out}", *overrides], "export"))


def expert(adapter: str = "aim", trunk: str = "clip_vit_b16", **overrides: Any) -> VideoClassifier:
    """A toy whose adapters and trunk all matter, and whose probabilities are far from even."""
    model = toy_model(adapter, trunk, **overrides).eval().requires_grad_(False)
    randomise(model)
    logits = torch.cat([model(model.preprocess(video)) for video in writing.clips(ABOUT.clip)])
    sharpen(model.head, logits)
    return model


def sharpen(head: torch.nn.Linear, logits: torch.Tensor) -> None:
    """Let the head's probabilities be far from even, and its clips far from each other, so that a wrong frame shows."""
    scale = 1 / logits.std(0).max()
    head.bias.sub_(logits.mean(0)).mul_(scale)
    head.weight.mul_(scale)


@pytest.fixture(scope="module")
def sharp(unbroken: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's run directory with a head that tells its videos apart."""
    folder = tmp_path_factory.mktemp("sharp")
    recogniser = load(unbroken)
    head = recogniser.model.head.requires_grad_(False)
    answers = [recogniser.predict_file(path, PyAV()).log() for path in videos(toy_cache)]
    sharpen(head, torch.stack(answers))
    with safe_open(unbroken / "best.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tensors |= {"head.weight": head.weight, "head.bias": head.bias}
        save_file(tensors, folder / "best.safetensors", file.metadata())
    return folder


@pytest.fixture(scope="module", params=[".onnx", ".pt2"])
def file(request: pytest.FixtureRequest, sharp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, exported through the verb."""
    out = tmp_path_factory.mktemp("exported") / f"toy{request.param}"
    write(sharp, out)
    return out


def test_it_gives_pytorchs_probabilities_of_real_clips(file: Path, sharp: Path, toy_cache: Path, shared: Path) -> None:
    real = shared / "videos" / "k400_test.mp4"
    if not real.exists():
        missing(f"{real} is not there")
    ours, theirs = load(sharp), load(file, trust=True)
    assert theirs.classes == ours.classes
    assert (theirs.clip, theirs.views) == (ours.clip, ours.views)
    answers = []
    for path in [real, *videos(toy_cache)[:4]]:
        expected = ours.predict_file(path, PyAV())
        torch.testing.assert_close(theirs.predict_file(path, PyAV()), expected, rtol=0, atol=1e-4)
        answers.append(expected)
    assert torch.stack(answers).std(0).max() > 0.01, "all clips look alike: the comparison would pass for anything"


REAL = ("videos/k400_test.mp4", "videos/rotation_90.mov", "videos/odd_size_vp9.mp4", "videos/unordered_4_frames.mov",
        "videos/mpeg4_test.avi", "real/ut-interaction/hug/seq01_2_1_1.avi",
        "real/ut-interaction/point/seq01_3_1_3.avi")  # fmt: skip
DOCUMENT = "docs/export.md"


def written_reader() -> list[str]:
    """The document's code: the reader, and its use with onnxruntime and with torch."""
    return re.findall(r"```python\n(.*?)```", (ROOT / DOCUMENT).read_text(encoding="utf-8"), flags=re.DOTALL)


def real_videos(shared: Path) -> list[Path]:
    found = [shared / name for name in REAL]
    if lacking := [path for path in found if not path.exists()]:
        missing(f"{lacking[0]} is not there")
    return found


def test_the_documents_reader_gives_the_answers_of_predict(
    file: Path, shared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, *programs = written_reader()
    code = compile(reader + programs[file.suffix == ".pt2"], DOCUMENT, "exec")
    paths = real_videos(shared)[:: 1 if file.suffix == ".onnx" else 5]  # a .pt2 takes a second to load
    listed = f"input=[{','.join(map(str, paths))}]"
    lines = predicted(capsys, f"checkpoint={file}", "trust=true", listed, "top=8", "views.temporal=1")
    answers = []
    for path, line in zip(paths, lines, strict=True):
        monkeypatch.setattr("sys.argv", ["reader.py", str(file), str(path)])
        exec(code, {})
        found = ast.literal_eval(capsys.readouterr().out)
        assert found == pytest.approx({x["label"]: x["probability"] for x in line["labels"]}, abs=1e-3), path  # type: ignore[attr-defined]
        answers.append(list(found.values()))
    assert np.std(answers, 0).max() > 0.01, "all videos look alike: the comparison would pass for anything"


@pytest.mark.parametrize(
    ("clip", "views"),
    [
        (Clip(8, 1, 112, "uniform"), Views(1, 1, 128)),
        (Clip(5, 1, 64, "uniform"), Views(3, 3, 64)),
        (Clip(4, 9, 96, "dense"), Views(2, 3, 128)),
        (Clip(4, 9, 96, "dense", "repeat_last"), Views(2, 1, 96)),
    ],
    ids=str,
)
def test_the_documents_reader_makes_the_clips_of_any_setting(clip: Clip, views: Views, shared: Path) -> None:
    space = dict[str, Any]()
    exec(written_reader()[0], space)
    for path in real_videos(shared):
        dataset = VideoDataset(Path(), [Video(str(path), 0)], PyAV(), clip, views, seed=0)
        found = space["clips_of"](path, asdict(clip), asdict(views)).astype(int)
        expected = dataset.read(0, 0).numpy().astype(int)
        assert found.shape == expected.shape
        key = lambda each: each.mean()  # noqa: E731 - the order of clips means nothing
        for mine, other in zip(sorted(found, key=key), sorted(expected, key=key), strict=True):
            assert np.abs(mine - other).mean() < 1e-3, path  # of 255


def test_the_pace_and_the_licence_travel_with_it(file: Path, sharp: Path) -> None:
    found = load(file, trust=True)
    assert found.pace == load(sharp).pace == Pace(16.0, 0.562)  # nine frames, 16 a second
    assert found.licence == ""  # of random weights
    terms = terms_of(config.build(config.compose(["+experiment=probe"]).backbone, Backbone))
    assert terms == "apache-2.0"
    steps = exported.About(
        **vars(ABOUT) | {"clip": replace(ABOUT.clip, sampling="dense"), "pace": Pace(20.0)}
    ).expects()
    named(steps["expects"]["frames"], "0.05 s")


def test_the_batch_is_free(file: Path, sharp: Path) -> None:
    ours, theirs = load(sharp), load(file, trust=True)
    for b in (1, 2, 7):
        video = torch.randint(256, (b, 4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(b))
        found = theirs.predict(video)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, ours.predict(video), rtol=0, atol=1e-4)
    for wrong in (video.float(), video[:, :3], video[..., :16]):
        with refused("uint8", "b 4 3 32 32"):
            theirs.predict(wrong)


@pytest.mark.parametrize("more", [[], ["min_probability=0"], ["window=0.3"]], ids=str)
def test_predict_prints_the_same(
    file: Path, sharp: Path, toy_cache: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    asked = [f"input={videos(toy_cache)[0]}", "top=8", "precision=fp32", *more]
    assert load(file, trust=True).calibration == load(sharp).calibration
    ours = predicted(capsys, f"checkpoint={sharp / 'best.safetensors'}", *asked)
    theirs = predicted(capsys, f"checkpoint={file}", "trust=true", *asked)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["path"] == other["path"]
        labels: list[dict[str, dict[str, float]]] = [
            {entry["label"]: entry["probability"] for entry in line["labels"]}  # type: ignore[attr-defined]
            for line in (mine, other)
        ]
        assert labels[0] == pytest.approx(labels[1], abs=2e-4)  # printed with four digits


def test_it_names_no_folder_of_this_machine(file: Path) -> None:
    """torch notes the line of our code behind each operation, with its path."""
    content = file.read_bytes()
    if file.suffix == ".pt2":
        with zipfile.ZipFile(file) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
    assert b"probability" in content or b"aim-video exported" in content
    assert str(Path(export.__file__).parent).encode() not in content
    assert b"site-packages" not in content


def test_an_onnx_file_is_a_sound_one(file: Path) -> None:
    if file.suffix == ".pt2":
        with zipfile.ZipFile(file) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith("extra/aim.json")]
            assert json.loads(archive.read(name))["format"] == "aim-video exported 1"
        return
    proto = onnx.load(file)
    onnx.checker.check_model(proto, full_check=True)
    (video,), (probability,) = proto.graph.input, proto.graph.output
    dims = [dim.dim_param or dim.dim_value for dim in video.type.tensor_type.shape.dim]
    assert (video.name, dims) == ("video", ["b", 4, 3, 32, 32])
    assert video.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (probability.name, probability.type.tensor_type.elem_type) == ("probability", onnx.TensorProto.FLOAT)
    metadata = {prop.key: prop.value for prop in proto.metadata_props}
    assert metadata.keys() >= {"classes", "clip", "views", "trunk", "checkpoint"}
    steps = json.loads(metadata["expects"])
    assert list(steps) == ["frames", "picture", "resize", "crop", "video", "probability", "answer"]
    assert ["b 4 3 32 32" in steps["video"], "32 x 32" in steps["crop"]] == [True, True]


# Every family of trunks, and every adapter, once; all combinations would take minutes.
@pytest.mark.parametrize(
    ("adapter", "trunk"),
    [
        pytest.param("attentive_probe", "clip_vit_b16", marks=pytest.mark.slow),
        ("none", "in21k_vit_b16"),
        pytest.param("aim_ssv2", "dinov3_vit_s16", marks=pytest.mark.slow),
        pytest.param("st_adapter", "eva02_vit_b14", marks=pytest.mark.slow),
        pytest.param("adaptformer", "siglip2_vit_b16", marks=pytest.mark.slow),
        pytest.param("timesformer", "dinov2_reg_vit_s14", marks=pytest.mark.slow),
        pytest.param("side", "swin_t", marks=pytest.mark.slow),
        pytest.param("aim", "swin_t", marks=pytest.mark.slow),
    ],
)
def test_every_family_can_be_exported(adapter: str, trunk: str, tmp_path: Path) -> None:
    model, out = expert(adapter, trunk), tmp_path / "a.onnx"
    expected = [writing.expected_of(model, SINGLE_LABEL, video) for video in writing.clips(ABOUT.clip)]
    assert torch.cat(expected).std(0).max() > 0.05, "all clips look alike: the comparison would pass for anything"
    assert writing.export(model, SINGLE_LABEL, ABOUT, out) < 1e-4
    program, about = exported.read(out)
    assert about == ABOUT
    assert writing.largest_difference(program, list(zip(writing.clips(ABOUT.clip), expected, strict=True))) < 1e-4


@pytest.mark.slow
def test_lora_becomes_part_of_the_weights(tmp_path: Path) -> None:
    model, out = expert("lora", "eva02_vit_b14"), tmp_path / "lora.pt2"
    layers = [module for module in model.modules() if parametrize.is_parametrized(module)]
    changed = [layer.weight.clone() for layer in layers]
    expected = [writing.expected_of(model, SINGLE_LABEL, video) for video in writing.clips(ABOUT.clip)]
    assert writing.export(model, SINGLE_LABEL, ABOUT, out) < 1e-4
    assert layers
    assert not any(parametrize.is_parametrized(module) for module in model.modules())
    for layer, weight in zip(layers, changed, strict=True):
        assert torch.equal(layer.weight, weight)
    with torch.no_grad():
        layers[0].weight.add_(0.1)
    program, _ = exported.read(out, trust=True)
    wanted = list(zip(writing.clips(ABOUT.clip), expected, strict=True))
    assert writing.largest_difference(program, wanted) < 1e-4
    assert not any("adapters" in name for name in torch.export.load(out).state_dict)


def test_a_file_that_differs_never_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a.pt2"
    out.write_text("what was there before")
    right = writing.expected_of
    monkeypatch.setattr(writing, "expected_of", lambda *args: right(*args) + 2e-4)
    with refused("a.pt2", "2.0e-04", "0.0001"):
        writing.export(expert("none"), SINGLE_LABEL, ABOUT, out)
    monkeypatch.setattr(writing, "expected_of", lambda *args: right(*args) * torch.nan)
    with refused("a.pt2", "nan", "0.0001"):
        writing.export(expert("none"), SINGLE_LABEL, ABOUT, out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt2"]
    assert out.read_text() == "what was there before"


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_what_cant_be_traced_is_refused_with_torchs_reason(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    forward = VideoClassifier.forward
    monkeypatch.setattr(
        VideoClassifier, "forward", lambda self, video: forward(self, -video if video.sum() > 0 else video)
    )
    capfd.readouterr()
    with refused("out=", "trunk", "adapter", "exported") as caught:
        writing.export(expert(), SINGLE_LABEL, ABOUT, tmp_path / f"a{suffix}")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with file_size_limit(10_000), refused("a.pt2", "ulimit"):
        writing.export(expert(), SINGLE_LABEL, ABOUT, tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("checkpoint", "out", "expected"),
    [
        ("GOOD", "model.tflite", ["out=", "model.tflite", "FILE.onnx", "FILE.pt2"]),
        ("GOOD", "model", ["out=", "model", "FILE.onnx", "FILE.pt2"]),
        ("nowhere.safetensors", "a.onnx", ["checkpoint", "nowhere.safetensors", "best.safetensors"]),
        ("a.onnx", "b.onnx", ["checkpoint=a.onnx", "best.safetensors"]),
    ],
)
def test_bad_input_is_one_clear_message(
    checkpoint: str, out: str, expected: list[str], unbroken: Path, tmp_path: Path
) -> None:
    place = unbroken / "best.safetensors" if checkpoint == "GOOD" else Path(checkpoint)
    with refused(*expected):
        write(place, tmp_path / out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["onnxscript", "onnxruntime"])
def test_an_absent_library_is_named_before_anything_is_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with refused("ONNX", name, "'aim-video[export]'"):
        write(tmp_path / "nowhere.safetensors", tmp_path / "a.onnx")
    with refused("checkpoint", "nowhere.safetensors", "best.safetensors"):  # torch.export needs neither
        write(tmp_path / "nowhere.safetensors", tmp_path / "a.pt2")


def test_predict_refuses_what_an_exported_file_cant_do(file: Path, toy_cache: Path, tmp_path: Path) -> None:
    asked = [f"checkpoint={file}", f"input={videos(toy_cache)[0]}", "reader=pyav", "workers=0", "trust=true"]
    for wrong, *way in (
        ("device=cuda", "CPU", "best.safetensors"),
        ("precision=bf16", "fp32", "best.safetensors"),
        ("precision=int8", "fp32", "aim.export quantize=int8"),
    ):
        with refused(wrong, str(file), *way):
            predict.main(config.compose([*asked, wrong], "predict"))
    with refused("backbone.weights=x", "trunk"):
        predict.main(config.compose([*asked, "backbone.weights=x"], "predict"))
    damaged = tmp_path / file.name
    for content in (b"", b"nonsense" * 100, file.read_bytes()[:5000]):
        damaged.write_bytes(content)
        with refused("file"):
            load(damaged, trust=True)
    with refused("nowhere.onnx", "aim.export"):
        load("nowhere.onnx")


def test_the_precision_of_a_file_is_its_own() -> None:
    assert (ABOUT.precision, replace(ABOUT, quantized={"products": 3}).precision) == ("fp32", "int8")
    assert exported.settled("a.onnx", "auto", "int8") == ("cpu", "fp32")
    assert exported.settled("best.safetensors", "auto", "bf16") == ("auto", "bf16")
    for asked in ("auto", "int8"):
        exported.check_precision(asked, "a.onnx", "int8")  # type: ignore[arg-type]
    with refused("precision=fp32", "a.onnx", "int8", "aim.export"):
        exported.check_precision("fp32", "a.onnx", "int8")
    with refused("precision=int8", "best.safetensors", "aim.export", "quantize=int8"):
        exported.settled("best.safetensors", "auto", "int8")


def test_a_program_of_others_isnt_loaded_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/extra/aim.json", json.dumps(ABOUT.to_text()))
    monkeypatch.setattr(torch.export, "load", lambda *_, **__: pytest.fail("loaded"))
    with refused("a.pt2", "torch.export", "trust=true"):
        load(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"format": "another"}, ["a.onnx", "aim.export", "'aim-video exported 1'"]),
        ({"format": "aim-video exported 2", "version": "9.1.0"}, ["'aim-video exported 2'", "9.1.0", "update"]),
        ({"classes": "["}, ["a.onnx", "2"]),
        ({"classes": '"abc"'}, ["a.onnx", "classes"]),
        ({"trunk": "[]"}, ["a.onnx", "AttributeError"]),
        ({"clip": '{"num_frames": 8}'}, ["a.onnx", "stride_frames", "size", "sampling"]),
        ({"views": '{"_target_": "os.system", "command": "true"}'}, ["a.onnx", "os.system"]),
    ],
    ids=str,
)
def test_damaged_metadata_is_one_clear_message(changes: dict[str, str], expected: list[str]) -> None:
    text = replace(ABOUT).to_text()
    assert exported.parsed(text, Path("a.onnx")) == ABOUT
    with refused(*expected):
        exported.parsed(text | changes, Path("a.onnx"))


@pytest.fixture(scope="module")
def clips_in_folders(toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's validation videos in folders of their classes, links into the cache."""
    return next(path.parent.parent for path in videos(toy_cache))


@pytest.mark.slow
@pytest.mark.parametrize("clips", ["the videos", "none"])
def test_int8_holds_the_frozen_trunk_alone_and_says_what_was_measured(
    clips: str, sharp: Path, clips_in_folders: Path, tmp_path: Path
) -> None:
    out = tmp_path / "int8.onnx"
    given = [f"clips={clips_in_folders}"] if clips == "the videos" else [f"measure={clips_in_folders}"]
    write(sharp, out, "quantize=int8", "force=true", "threads=1", *given)
    _, about = exported.read(out)
    found = about.quantized
    assert found is not None
    assert (found["precision"], found["threads"], found["calibration_videos"]) == ("int8", 1, 8 * (clips != "none"))
    assert found["videos"] == (8 if clips == "the videos" else 16)
    assert found["speed"] > 0
    recogniser = load(sharp)
    integers = [each for each in onnx.load(out).graph.initializer if each.data_type == onnx.TensorProto.INT8]
    matrices = [each for each in integers if len(each.dims) == 2]
    assert matrices
    assert len(matrices) <= found["products"] <= 1 + 2 * 2 * 6  # patches, two blocks, each matrix up to twice: in time
    trained = {tuple(t.T.shape) for n, t in recogniser.model.named_parameters() if "adapters" in n and t.ndim == 2}
    assert not trained & {tuple(each.dims) for each in matrices}
    same = []
    made = load(out)
    for path in sorted(clips_in_folders.rglob("*.mp4"))[:6]:
        video = recogniser.predict_file(path, PyAV())
        torch.testing.assert_close(made.predict_file(path, PyAV()), video, rtol=0, atol=0.1)
        same.append(video)
    assert torch.stack(same).std(0).max() > 0.01, "all videos look alike: the comparison would pass for anything"


def test_an_int8_file_that_is_slow_or_answers_otherwise_isnt_written(
    sharp: Path, clips_in_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.onnx"
    monkeypatch.setattr(export, "speed", lambda *_: 1.59)
    with refused("a.onnx", "1.59", "1.6", "force=true", "clips=VIDEOS"):
        write(sharp, out, "quantize=int8", f"clips={clips_in_folders}")
    measured = {"videos": 100, "agreement": 0.99, "accuracy": None}
    assert comparing.alike(measured)
    assert not comparing.alike(measured | {"agreement": 0.98})
    assert not comparing.alike(measured | {"agreement": None})
    assert comparing.alike(measured | {"agreement": 0.98, "accuracy": [80.0, 79.0]})
    assert not comparing.alike(measured | {"agreement": 0.98, "accuracy": [80.0, 78.9]})
    with refused("quantize=int8", "out=", "FILE.onnx"):
        write(sharp, tmp_path / "a.pt2", "quantize=int8")
    with refused("clips", "quantize=int8"):
        write(sharp, out, f"clips={clips_in_folders}")
    with refused("nowhere"):
        write(sharp, out, "quantize=int8", "clips=nowhere")
    assert list(tmp_path.iterdir()) == []


def seen(rows: np.ndarray[Any, np.dtype[np.float32]]) -> rounding.Seen:
    return rounding.Seen(rows.min(0).clip(max=0), rows.max(0).clip(min=0), rows, (5,))


def correlated(rows: int, d: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Activations whose channels go together, the first of them thirty times as large."""
    generator = np.random.default_rng(0)
    made = generator.normal(size=(rows, 4)) @ generator.normal(size=(4, d)) + 0.1 * generator.normal(size=(rows, d))
    made[:, 0] *= 30
    return made.astype(np.float32)


def test_bytes_are_within_half_a_step() -> None:
    at = seen(np.linspace(-1, 3, 512, dtype=np.float32).reshape(64, 8))
    step, zero = at.scale
    assert (float(step), int(zero)) == (pytest.approx(4 / 255), 64)
    assert np.abs(at.rounded - at.rows).max() <= step / 2 + 1e-6
    assert (at.divisor == 1).all()
    frames = seen(np.arange(256, dtype=np.float32).reshape(32, 8))
    assert frames.scale == (1, 0)
    assert (frames.rounded == frames.rows).all()  # the frames of a video are bytes already


def test_divided_channels_and_later_rows_make_up_for_most_of_the_error() -> None:
    rows = correlated(1000, 48)
    weight = np.random.default_rng(1).normal(size=(48, 16)).astype(np.float32)
    plain, others = seen(rows[:500]), rows[500:]
    assert rounding.relative(plain.rounded, plain.rows) > rounding.FINE
    even, multiplied = plain / plain.divisor, weight * plain.divisor[:, None]
    integers, steps = rounding.in_bytes(multiplied, even)
    assert integers.dtype == np.int8
    nearest = (multiplied / steps).round() * steps
    wanted = even.rows @ multiplied
    assert (
        rounding.relative(even.rows @ (integers * steps), wanted) < rounding.relative(even.rows @ nearest, wanted) / 2
    )

    def error(at: rounding.Seen, rows: Any, matrix: Any) -> float:
        """Of the product with activations that weren't seen."""
        return rounding.relative(replace(at, rows=rows).rounded @ matrix, others @ weight)

    assert error(even, others / plain.divisor, integers * steps) < error(plain, others, weight) / 2


def test_a_patch_embedding_takes_bytes() -> None:
    layer = torch.nn.Conv2d(3, 5, (4, 4), stride=(4, 4)).requires_grad_(False)
    mean, std = torch.rand(3, 1, 1), 0.5 + torch.rand(3, 1, 1)
    frames = torch.randint(256, (2, 3, 8, 12), dtype=torch.uint8)
    for bias in (layer.bias, None):
        layer.bias = bias
        patches = writing.Patches(layer, mean, std)
        torch.testing.assert_close(patches(frames), layer((frames / 255 - mean) / std))
