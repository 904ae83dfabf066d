import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.named import below
from aim.data.readers.pyav import PyAV
from aim.data.stamp import stamp_of
from aim.data.transforms import Views
from aim.engine.trained.recogniser import Recogniser, load
from aim.features import extracting
from aim.features import verb as features
from aim.features.extracting import Extractor
from aim.ground import config
from aim.ground.shared_work import FOLDER
from tests.messages import named, refused
from tests.toy import exits, videos

HERE = ["precision=fp32", "device=cpu", "workers=0", "reader=pyav"]


def extract(folder: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    """The verb's files of each video, by its name."""
    features.main(config.compose([*overrides, f"out={folder}", *HERE], "features"))
    return {path.relative_to(folder).as_posix(): dict(np.load(path)) for path in sorted(folder.rglob("*.npz"))}


def pooled(recogniser: Recogniser, path: Path, views: Views, span: tuple[float, float] | None = None) -> Any:
    """Features "v d", read through the data sets; the head turns them into the probabilities."""
    video = Video(str(path), 0, *(span or (None, None)))
    clips = VideoDataset(Path(), [video], PyAV(), recogniser.clip, views, 0).read(0, 0)
    model = recogniser.model
    with torch.inference_mode():
        found = model.pooled(model.preprocess(clips))
        assert torch.allclose(model.head(found).softmax(1), recogniser.predict(clips), atol=1e-6)
    return found.numpy()


def test_a_checkpoint_gives_a_vector_of_each_view_of_its_test_and_of_each_window(
    unbroken: Path, toy_cache: Path, tmp_path: Path
) -> None:
    path = videos(toy_cache)[3]
    recogniser = load(unbroken, calibrated=False)
    found = extract(tmp_path / "views", f"checkpoint={unbroken}", f"input={path.parent}")
    one = found[f"{path.stem}.npz"]
    assert one["feats"] == pytest.approx(pooled(recogniser, path, recogniser.views), abs=1e-5)
    assert one["seconds"].tolist() == [[0.0625, 0.4375]]  # of the frames 1 and 7, 16 a second
    windows = extract(tmp_path / "windows", f"checkpoint={unbroken}", f"input={path}", "window=0.3125", "stride=0.125")
    (one,) = windows.values()
    assert one["seconds"].tolist() == [[0.0, 0.3125], [0.125, 0.4375], [0.25, 0.5625]]  # of 9 frames
    expected = [pooled(recogniser, path, recogniser.views, tuple(span)).mean(0) for span in one["seconds"].tolist()]
    assert one["feats"] == pytest.approx(np.stack(expected), abs=1e-5)
    assert one["feats"].dtype == np.float32


def test_row_i_begins_at_i_strides_through_a_pause(unbroken: Path, shared: Path, tmp_path: Path) -> None:
    path = shared / "cases/inputs/gap.mp4"
    found = extract(tmp_path / "out", f"checkpoint={unbroken}", f"input={path}", "window=1.5", "stride=1")["gap.npz"]
    assert found["seconds"][:, 0].tolist() == list(range(64))  # as feat_stride says
    assert found["seconds"][:, 1].tolist() == [*(i + 1.5 for i in range(63)), 64]
    assert np.flatnonzero(np.isnan(found["feats"]).all(1)).tolist() == list(range(2, 61))
    assert np.isfinite(found["feats"][[0, 1, 61, 62, 63]]).all()


@pytest.mark.usefixtures("unbroken")
def test_a_trunk_alone_goes_on_and_names_what_it_cannot_read(
    toy_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As safetensors; a folder per class stays a folder; finished files aren't made again."""
    root = tmp_path / "in"
    for path in videos(toy_cache)[:4]:
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.parent.name)
    (root / "grow" / "bad.mp4").write_bytes(b"garbage")
    trunk = ["backbone=demo", "clip.num_frames=4", "clip.size=64", *HERE]
    asked = [*trunk, f"input={root}", "window=1", "form=safetensors", f"out={tmp_path / 'out'}"]
    with exits(1):
        features.main(config.compose(asked, "features"))
    assert "bad.mp4 could not be read" in capsys.readouterr().err
    left = sorted((tmp_path / "out").rglob("*.safetensors"))
    assert [path.parent.name for path in left] == [path.parent.name for path in videos(toy_cache)[:4]]
    assert load_file(left[0])["feats"].shape == (1, 128)
    about = json.loads((tmp_path / "out" / "features.json").read_text())
    assert (about["dimensions"], about["windows"]) == (128, {"length": 1, "stride": 1, "on_grid": True})
    before = [path.stat().st_mtime_ns for path in left]
    left[0].unlink()
    with exits(1):
        features.main(config.compose(asked, "features"))
    assert "3 of 5 are in" in capsys.readouterr().err
    assert [path.stat().st_mtime_ns for path in left][1:] == before[1:]
    with refused("out=", "features", "model", "windows"):
        features.main(config.compose([*asked, "stride=0.5"], "features"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ["checkpoint=FILE", "backbone=NAME"]),
        (["backbone=demo", "checkpoint=x"], ["checkpoint=FILE", "backbone=NAME"]),
        (["checkpoint=x.onnx"], ["checkpoint=x.onnx", "checkpoint"]),
        (["backbone=demo", "stride=1"], ["stride=1", "windows", "window=SECONDS"]),
        (["backbone=demo", "window=-1"], ["window=-1", "0"]),
        (["backbone=demo", "input=nowhere"], ["input=nowhere", "pattern"]),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, overrides: list[str], expected: list[str]
) -> None:
    (tmp_path / "a.mp4").touch()
    asked = [f"out={tmp_path / 'out'}", f"input={tmp_path}", *overrides]
    with refused(*expected):
        features.main(config.compose(asked, "features"))
    assert not (tmp_path / "out").exists()


def content(path: Path) -> dict[str, Any]:
    """The arrays and the metadata of a file."""
    if path.suffix == ".npz":
        return {name: values.tolist() for name, values in np.load(path).items()}
    with safe_open(path, "np") as file:
        return {name: values.tolist() for name, values in load_file(path).items()} | file.metadata()


@pytest.mark.usefixtures("unbroken")
@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_a_video_does_not_take_the_features_of_another_of_its_name(toy_cache: Path, tmp_path: Path, form: str) -> None:
    for name, path in zip("ab", videos(toy_cache), strict=False):
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name / "x.mp4")
    asked = [*HERE, "backbone=demo", "clip.num_frames=4", "clip.size=64", f"form={form}", f"out={tmp_path / 'out'}"]
    features.main(config.compose([*asked, f"input={tmp_path / 'a'}"], "features"))
    place = tmp_path / "out" / f"x.{form}"
    whole = place.read_bytes()
    with refused(f"x.{form}", "a/x.mp4", "b/x.mp4", "out"):
        features.main(config.compose([*asked, f"input={tmp_path / 'b'}"], "features"))
    assert place.read_bytes() == whole
    before = content(place)
    place.write_bytes(whole[:99])  # a damaged one is made again
    features.main(config.compose([*asked, f"input={tmp_path / 'a'}"], "features"))
    assert content(place) == before


TRUNK = ["backbone=demo", "clip.num_frames=4", "clip.size=64"]


@pytest.mark.usefixtures("unbroken")
@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_features_of_a_video_that_was_replaced_are_made_again(
    toy_cache: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though its name, size and time are the old ones; a moved video's features stay."""
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    one, other = videos(toy_cache)[0].read_bytes(), videos(toy_cache)[9].read_bytes()
    contents = [content.ljust(max(len(one), len(other)), b"\0") for content in (one, other)]

    def make(*wanted: int) -> list[bytes]:
        for name, i in zip("ab", wanted, strict=True):
            (root / f"{name}.mp4").write_bytes(contents[i])
            os.utime(root / f"{name}.mp4", (1000, 1000))
        features.main(config.compose([*TRUNK, *HERE, f"form={form}", f"input={root}", f"out={out}"], "features"))
        return [path.read_bytes() for path in sorted(out.glob(f"*.{form}"))]

    before = make(0, 1)
    assert "made again" not in capsys.readouterr().err
    assert make(0, 1) == before
    assert "2 of 2 are in" in capsys.readouterr().err
    now = make(1, 1)
    assert now[1] == before[1]
    np.testing.assert_allclose(*(content(out / f"{name}.{form}")["feats"] for name in "ab"), atol=1e-4)  # by threads
    assert "1 are made again" in capsys.readouterr().err
    root = root.rename(tmp_path / "moved")
    assert make(1, 1) == now


@pytest.mark.usefixtures("unbroken")
def test_features_that_do_not_say_how_their_video_was_are_made_again(
    toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.mp4"
    shutil.copy(videos(toy_cache)[0], path)
    found = extract(tmp_path / "out", *TRUNK, f"input={path}")["x.npz"]
    place = tmp_path / "out" / "x.npz"
    np.savez(place, **{key: found[key] for key in ("feats", "seconds", "source")})  # as earlier versions wrote it
    assert extract(tmp_path / "out", *TRUNK, f"input={path}")["x.npz"].keys() == found.keys()
    assert "1 are made again" in capsys.readouterr().err
    np.savez(place, feats=found["feats"])  # somebody's own
    with refused("x.npz", "delete"):
        extract(tmp_path / "out", *TRUNK, f"input={path}")
    place.unlink()

    read = Extractor.of_views

    def replacing(*args: Any, **more: Any) -> Any:
        for each in read(*args, **more):
            path.write_bytes(path.read_bytes() + b"\0")
            yield each

    monkeypatch.setattr(Extractor, "of_views", replacing)
    with exits(1):
        extract(tmp_path / "out", *TRUNK, f"input={path}")
    assert not place.exists()


def test_where_features_go_depends_on_what_is_named_alone(tmp_path: Path) -> None:
    for name in ("a/x.mp4", "a/b/y.mp4", "z.mp4"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()

    def goes(*found: str, named: str) -> list[str]:
        paths = [tmp_path / "in" / name for name in found]
        relative = below(paths, str(tmp_path / "in" / named) if named != "-" else "-")
        places = extracting.names(paths, relative, Path("out"), "npz")
        return [place.as_posix() for place in places]

    assert goes("a/x.mp4", named="") == goes("a/x.mp4", "z.mp4", named="")[:1] == ["out/a/x.npz"]
    assert goes("a/x.mp4", named="*/x.mp4") == goes("a/b/y.mp4", "a/x.mp4", named="**/*.mp4")[1:] == ["out/a/x.npz"]
    assert goes("a/x.mp4", named="a/x.mp4") == goes("a/x.mp4", named="-") == ["out/x.npz"]
    assert goes("a/b/y.mp4", "a/x.mp4", named="-") == ["out/b/y.npz", "out/x.npz"]
    both = [Path(f"{'n' * 250}{i}.mp4") for i in range(2)]
    long = [path.name for path in extracting.names(both, both, Path(), "safetensors")]
    assert len({*long}) == 2
    assert max(map(len, long)) <= 255


def test_two_videos_of_one_name_are_named(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv"):
        (tmp_path / name).touch()
    with refused("a.mkv", "a.mp4", "a.npz"):
        extract(tmp_path / "out", "backbone=demo", f"input={tmp_path}")


def test_shards_leave_what_one_job_leaves_and_one_index(
    unbroken: Path, toy_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = videos(toy_cache)[0].parent.parent
    given = [f"checkpoint={unbroken}", f"input={root}"]
    whole = extract(tmp_path / "one", *given)
    for index in (0, 1):
        extract(tmp_path / "two", *given, f"shard={index}/3")
    with exits(3):
        extract(tmp_path / "two", *given, "merge=true")
    named(capsys.readouterr().err, "2/3", "merge=true")
    found = extract(tmp_path / "two", *given, "shard=2/3")
    with exits(0):
        extract(tmp_path / "two", *given, "merge=true")
    assert found.keys() == whole.keys()
    assert all((found[name]["feats"] == whole[name]["feats"]).all() for name in whole)
    for more in (["window=1"], ["backbone=clip_vit_b16", "checkpoint=null"]):
        with refused("out=", str(tmp_path / "two")):
            extract(tmp_path / "two", *given, *more, "merge=true")
    with refused("3", "4", "shard=I/3"):
        extract(tmp_path / "two", *given, "shard=0/4")
    with refused("out=", str(tmp_path / "one")):
        extract(tmp_path / "one", *given, "window=1", "shard=0/4")
    assert not (tmp_path / "one" / FOLDER).exists()  # a refused command claims nothing
    lines = [json.loads(line) for line in (tmp_path / "two/index.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == list(whole)
    assert all(Path(line["path"]).stem == Path(line["file"]).stem for line in lines)


def test_features_of_another_content_are_outdated_and_of_a_touched_video_are_not(tmp_path: Path) -> None:
    places = {tmp_path / f"{name}.mp4": tmp_path / f"{name}.npz" for name in "abc"}
    for path, place in places.items():
        path.write_text(path.name)
        found = extracting.Features(*[np.zeros((1, 2), np.float32)] * 2)
        extracting.write(place, found, path, stamp_of(path))
    os.utime(tmp_path / "a.mp4", (0, 0))
    (tmp_path / "b.mp4").write_text("other")
    (tmp_path / "c.npz").unlink()
    assert extracting.outdated(places) == {tmp_path / "b.mp4", tmp_path / "c.mp4"}


def test_a_crowd_of_files_goes_into_subfolders_but_for_those_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracting, "CROWD", 40)
    relative = [Path("few/a.mp4"), *(Path(f"many/{i}.mp4") for i in range(50))]
    (tmp_path / "many").mkdir()
    (tmp_path / "many/7.npz").touch()
    places = extracting.names(relative, relative, tmp_path, "npz")
    assert [path for path in places if path.parent.name == "few"] == [tmp_path / "few/a.npz"]
    assert [path for path in places if path.parent.name == "many"] == [tmp_path / "many/7.npz"]
    assert [path.name for path in places[1:]] == [f"{i}.npz" for i in range(50)]
    assert len({path.parent for path in places}) > 30
