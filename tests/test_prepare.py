import errno
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from aim.data.list_files import ListFiles
from aim.data.lists import Lists, Video, data_hash
from aim.data.readers.pyav import PyAV
from aim.data.stored.shards import located, source_of
from aim.ground import choices, config
from aim.prepare import packing
from aim.prepare import verb as prepare
from aim.prepare.notes import NAME
from aim.prepare.packing import Packer
from aim.prepare.preparing import UNPACKED, Report, Way, new_names
from aim.prepare.preparing import prepare as go_through
from aim.prepare.transcode import Frames, Transcode, Work
from aim.shell import command
from tests.data.readers import oddities
from tests.data.stored.test_shards import write_tar
from tests.messages import refused
from tests.prepare.test_notes import exchange
from tests.toy import Died, exits

FILES = ListFiles("train.txt", "val.txt", "classes.txt")
WAY = Way(verify=False, transcode=None, shards=False, processes=1, timeout=600.0)
QUICK = ["transcode.short_side=32", "transcode.preset=ultrafast", "processes=2"]


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return oddities.write(tmp_path_factory.mktemp("video") / "a.mkv")


@pytest.fixture
def root(video: Path, tmp_path: Path) -> Path:
    """UCF-101 in small: two classes of three videos, a name that is not ASCII, one missing, one broken."""
    root = tmp_path / "raw data"
    for name in ("Élan/1 a.avi", "Élan/2.mkv", "Élan/3.mkv", "Run/1.mkv", "Run/2.mkv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, root / name)
    (root / "Run" / "2.mkv").write_bytes(b"not a video")
    (root / "train.txt").write_text("Élan/1 a.avi 0\nÉlan/2.mkv 0\nRun/1.mkv 1\nRun/2.mkv 1\n", encoding="utf-8")
    (root / "val.txt").write_text("Élan/3.mkv 0\nRun/3.mkv 1\n", encoding="utf-8")
    (root / "classes.txt").write_text("Élan\nRun\n", encoding="utf-8")
    return root


def run(root: Path, *overrides: str) -> None:
    prepare.main(config.compose(["data=folder", f"data.root='{root}'", *QUICK, *overrides], "prepare"))


def summary(folder: Path) -> dict:
    return json.loads((folder / "prepare.json").read_text())


EXPECTED = {
    "train": {"listed": 4, "present": 4, "missing": 0, "unreadable": 1, "kept": 3},
    "val": {"listed": 2, "present": 1, "missing": 1, "unreadable": 0, "kept": 1},
}


def test_out_holds_small_videos_lists_of_them_and_a_report(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    before = sorted(root.rglob("*"))
    run(root, f"out={out}")
    assert sorted(root.rglob("*")) == before
    lists = FILES(out)
    assert lists.train == [Video("Élan/1 a.avi.mp4", 0), Video("Élan/2.mkv.mp4", 0), Video("Run/1.mkv.mp4", 1)]
    assert (lists.val, lists.classes) == ([Video("Élan/3.mkv.mp4", 0)], ["Élan", "Run"])
    for entry in (*lists.train, *lists.val):
        assert PyAV()(out / entry.path, lambda n: range(n)).shape == (40, 3, 32, 42)
    found = summary(out)
    assert {split: found[split] for split in EXPECTED} == EXPECTED
    assert found["data_hash"] == data_hash(lists.val, lists.classes)
    bad = dict(line.split("\t") for line in (out / "bad_videos.txt").read_text(encoding="utf-8").splitlines())
    assert bad["Run/3.mkv"] == "missing"
    assert bad["Run/2.mkv"] == "not a video"
    shown = capsys.readouterr().out
    assert "Run/2.mkv" in shown
    assert found["data_hash"] in shown
    assert {path.suffix for path in out.rglob("*") if path.is_file()} == {".mp4", ".txt", ".json", ".jsonl"}


def test_what_a_list_said_before_is_kept_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No command can restore a user's own list."""
    path = tmp_path / "train.txt"
    path.write_text("of the user\n")
    for line in ("first", "first", "second"):
        prepare.put(path, [line])
    found = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert found == {"train.txt": "second\n", "train.txt.bak": "of the user\n", "train.txt.bak2": "first\n"}

    def dies(*_: object, **__: object) -> None:
        raise Died

    monkeypatch.setattr(prepare.files, "_fill", dies)
    with pytest.raises(Died):
        prepare.put(path, ["third"])
    assert path.read_text() == "second\n"


def test_the_tables_show_names_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    listed = Lists([Video("a[x].mp4", 0), Video("b[/x].mp4", 0)], [], ["[/c]"])
    report = Report({"a[x].mp4": "why [/why]"}, {"b[/x].mp4": "1 of [2]"}, listed=listed, kept=listed, missing=[])
    prepare.show(report, {"data_hash": "0", "settings": {"transcode": None}}, Path("data [x] [/x] :car:"))
    shown = capsys.readouterr().out
    for text in ("a[x].mp4", "why [/why]", "b[/x].mp4", "1 of [2]", "data.root=data [x] [/x] :car:\n"):
        assert text in shown


def test_a_table_is_divided_by_the_labels_of_the_task_and_by_its_groups(tmp_path: Path) -> None:
    names = [f"{one};{other}" for one in "abcd" for other in "xyz"]
    rows = [f"{i}.mp4,{name},{i % 3}\n" for i, name in enumerate(names)]
    for i in range(len(names)):
        (tmp_path / f"{i}.mp4").touch()
    (tmp_path / "t.csv").write_text("path,label,group\n" + "".join(rows))
    with refused("'a;x'", "task=multi_label"):
        run(tmp_path)
    assert not (tmp_path / "train.txt").exists()
    run(tmp_path, "task=multi_label")
    lists = FILES(tmp_path)
    assert lists.classes == [*"abcdxyz"]
    learnt, held_out = ({int(video.path[:-4]) % 3 for video in part} for part in (lists.train, lists.val))
    assert (len(learnt), len(held_out)) == (2, 1)
    assert {len(video.labels) for video in lists.videos} == {2}


def test_without_out_only_lists_are_written_and_verify_reads_every_video(root: Path) -> None:
    run(root)
    assert len(FILES(root).train) == 4
    assert (root / "train.txt.bak").exists() is False  # nothing of it changed
    run(root, "verify=true")
    assert FILES(root).train == [Video("Élan/1 a.avi", 0), Video("Élan/2.mkv", 0), Video("Run/1.mkv", 1)]
    assert "Run/2.mkv 1" in (root / "train.txt.bak").read_text(encoding="utf-8")
    assert not list(root.rglob("*.mp4"))


def test_verify_writes_its_five_files_alone_and_names_what_is_no_class(
    root: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train.txt", "val.txt", "classes.txt"):
        (root / name).unlink()
    for i in range(2):
        (root / "Broken" / str(i)).mkdir(parents=True)
        (root / "Broken" / f"{i}.mkv").write_bytes(b"not a video")
        shutil.copy(video, root / "Run" / f"{3 + i}.mkv")
    (root / "Empty").mkdir()
    before = set(root.rglob("*"))
    run(root, "verify=true")
    names = ("train.txt", "val.txt", "classes.txt", "bad_videos.txt", "prepare.json")
    assert set(root.rglob("*")) == before | {root / name for name in names}
    said = [line for line in capsys.readouterr().out.splitlines() if line.lower().startswith("no ")]
    assert said == [f"no video is in {root / 'Empty'}: it is no class", "No training video is left of class Broken"]


def test_the_same_command_again_writes_only_what_is_new(
    root: Path, tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(root, f"out={out}")
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    assert len(times) == 4
    shutil.copy(video, root / "Run" / "3.mkv")
    shutil.copy(video, root / "Run" / "2.mkv")
    later = time.time() + 10
    os.utime(root / "Run" / "1.mkv", (later, later))
    os.utime(root / "Élan" / "2.mkv", (0, 0))  # replaced by an older file, as cp -p and rsync -a do
    run(root, f"out={out}")
    changed = {
        f"{path.parent.name}/{path.name}" for path in out.rglob("*.mp4") if times.get(path) != path.stat().st_mtime_ns
    }
    assert changed == {"Run/1.mkv.mp4", "Run/2.mkv.mp4", "Run/3.mkv.mp4", "Élan/2.mkv.mp4"}
    assert summary(out)["train"]["kept"] == 4
    assert "2 videos" in capsys.readouterr().out
    assert (out / "bad_videos.txt").read_text() == ""


def small(out: Path) -> dict[str, torch.Tensor]:
    """The first frame of each prepared video."""
    found = FILES(out)
    return {video.path: PyAV()(out / video.path, lambda n: [0]) for video in (*found.train, *found.val)}


def test_videos_that_were_exchanged_are_made_again(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one size and one time; and one is put in the place of a link's file."""
    root, out = tmp_path / "raw", tmp_path / "out"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(2):
            shutil.copy(shared / "cases" / "inputs" / ("plain.mp4" if name == "a" else "other.mp4"), root / name)
            (root / name / ("plain.mp4" if name == "a" else "other.mp4")).rename(root / name / f"{i}.mp4")
    size = max(path.stat().st_size for path in root.rglob("*.mp4"))
    for path in root.rglob("*.mp4"):
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, (1000, 1000))
    run(root, f"out={out}")
    before, times = small(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    exchange(root / "a" / "0.mp4", root / "b" / "0.mp4")
    run(root, f"out={out}")
    now = small(out)
    assert now["a/0.mp4"].equal(before["b/0.mp4"])
    assert now["b/0.mp4"].equal(before["a/0.mp4"])
    assert not now["a/0.mp4"].equal(now["b/0.mp4"])
    assert "made again: 2 videos" in capsys.readouterr().out
    kept = [path for path, when in times.items() if path.stat().st_mtime_ns == when]
    assert sorted(path.name for path in kept) == ["1.mp4", "1.mp4"]
    (root / "a" / "1.mp4").rename(tmp_path / "1.mp4")
    (root / "a" / "1.mp4").symlink_to(root / "b" / "1.mp4")
    run(root, f"out={out}")
    assert small(out)["a/1.mp4"].equal(before["b/1.mp4"])


def test_a_new_video_takes_no_others_place(root: Path, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(root, f"out={out}")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.rglob("*.mp4")}
    for name in ("2.avi", "2.mp4", "2.mkv.mp4"):
        shutil.copy(video, root / "Élan" / name)
    with (root / "train.txt").open("a", encoding="utf-8") as file:
        file.write("Élan/2.avi 0\nÉlan/2.mp4 0\nÉlan/2.mkv.mp4 0\n")
    run(root, f"out={out}")
    assert all((path.read_bytes(), path.stat().st_mtime_ns) == about for path, about in before.items())
    assert {path.name for path in out.rglob("Élan/2*")} == {"2.mkv.mp4", "2.avi.mp4", "2.mp4", "2.mkv.mp4.mp4"}


def test_what_an_earlier_version_wrote_is_made_again_and_its_shards_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, packed = tmp_path / "out", tmp_path / "packed"
    for folder, more in ((out, []), (packed, ["shards=true"])):
        run(root, f"out={folder}", *more)
        (folder / NAME).unlink()
    capsys.readouterr()
    run(root, f"out={out}")
    assert "made again: 4 videos" in capsys.readouterr().out
    with refused("train-000000.tar", "val-000000.tar", "delete"):
        run(root, f"out={packed}", "shards=true")


@dataclass(frozen=True)
class Swapping(Transcode):
    """Replaces its source meanwhile; fails unexpectedly with another."""

    def __call__(self, source: str | Path, target: Path) -> Frames:
        if Path(source).stem == "1 a":
            raise ZeroDivisionError("of a library")
        found = super().__call__(source, target)
        if Path(source).stem == "1":
            os.utime(source, (5, 5))
        return found


def test_a_video_that_is_replaced_or_fails_in_any_way_ends_no_other(root: Path, tmp_path: Path) -> None:
    listed, asked = FILES(root), {"short_side": 32, "preset": "ultrafast"}
    report = go_through(root, listed, replace(WAY, transcode=Swapping(**asked)), out=tmp_path / "out")
    assert report.unreadable["Élan/1 a.avi"] == "ZeroDivisionError: of a library"
    assert "replaced" in report.unreadable["Run/1.mkv"]
    assert [video.path for video in report.kept.train] == ["Élan/2.mkv.mp4"]
    report = go_through(root, listed, replace(WAY, transcode=Transcode(**asked)), out=tmp_path / "out")
    assert report.unnoted == ["Run/1.mkv"]
    assert len(report.kept.train) == 3


def test_names_as_long_as_a_file_system_takes_are_written(root: Path, video: Path, tmp_path: Path) -> None:
    long = f"{'n' * 247}.mkv", f"{'n' * 251}.mkv", f"{'ü' * 125}n.mp4"
    (root / "train.txt").write_text("".join(f"{name} 0\n" for name in long))
    for name in long:
        shutil.copy(video, root / name)
    run(root, f"out={tmp_path / 'out'}")
    assert summary(tmp_path / "out")["train"]["kept"] == 3


def test_where_nothing_can_be_read_no_list_is_written(root: Path, tmp_path: Path) -> None:
    for path in root.rglob("*.*"):
        if path.suffix in (".avi", ".mkv"):
            path.write_bytes(b"not a video")
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    for more in (["verify=true"], [f"out={tmp_path / 'out'}"]):
        with refused("5", "Run/1.mkv"):
            run(root, *more)
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_file()] == [NAME]


def test_checking_what_was_written_leaves_it_what_it_is(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(root, f"out={out}")
    made = summary(out)["settings"]["transcode"]
    assert made["short_side"] == 32
    run(out, "verify=true")
    assert summary(out)["settings"]["transcode"] == made
    run(root, "verify=true")
    assert summary(root)["settings"]["transcode"] is None


def test_shards_hold_what_out_would(root: Path, tmp_path: Path) -> None:
    plain, out, again = (tmp_path / name for name in ("plain", "out", "again"))
    run(root, f"out={plain}")
    run(root, f"out={out}", "shards=true")
    assert {path.name for path in out.iterdir() if "000000" in path.name} == {
        "train-000000.tar", "train-000000.tar.tsv", "val-000000.tar", "val-000000.tar.tsv",
    }  # fmt: skip
    assert not list(out.rglob("*.mp4"))
    for name in ("train.txt", "val.txt", "classes.txt", "bad_videos.txt"):
        assert (out / name).read_bytes() == (plain / name).read_bytes()
    assert summary(out)["data_hash"] == summary(plain)["data_hash"]
    lists = located(out, FILES(out))
    for video in (*lists.train, *lists.val):
        part = source_of(out, video)
        assert torch.equal(PyAV()(part, range), PyAV()(plain / video.path, range))
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    run(root, f"out={out}", "shards=true")
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.tar")} == before
    with refused("videos", "settings", "folder"):
        run(root, f"out={out}")

    run(out, f"out={again}", "shards=true", "transcode=null")  # as they are
    assert summary(again)["settings"]["transcode"] == summary(out)["settings"]["transcode"]
    (again / "train-000000.tar.tsv").unlink()
    run(again, "verify=true")
    assert summary(again)["train"]["kept"] == 3
    assert summary(again)["settings"]["shards"]
    assert (again / "train-000000.tar.tsv").exists()


def test_killed_while_packing_the_same_command_continues(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write, left = tmp_path / "out", Packer._write, [1]
    monkeypatch.setattr(packing, "SHARD_BYTES", 1)

    def dies(self: Packer, split: str) -> None:
        if not left:
            raise Died
        left.pop()
        write(self, split)

    monkeypatch.setattr(Packer, "_write", dies)
    with pytest.raises(Died):
        run(root, f"out={out}", "shards=true")
    assert len(list(out.glob("*.tar"))) == 1
    assert not (out / "train.txt").exists()
    monkeypatch.setattr(Packer, "_write", write)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    run(root, f"out={out}", "shards=true")
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert len(list(out.glob("*.tar"))) == 4
    assert not (out / UNPACKED).exists()
    assert all(video.stored for video in located(out, FILES(out)).train)


def test_shards_of_others_are_listed_where_they_are(shared: Path, tmp_path: Path) -> None:
    content = (shared / "videos" / "short_32_frames.mp4").read_bytes()
    for split in ("train", "val"):
        files = {f"{i}.{kind}": data for i in range(2) for kind, data in (("mp4", content), ("cls", b"%d" % i))}
        write_tar(tmp_path / f"some-{split}-000.tar", files)
    run(tmp_path)
    assert summary(tmp_path)["settings"]["format"] == "webdataset"
    assert FILES(tmp_path).train == [Video("some-train-000/0.mp4", 0), Video("some-train-000/1.mp4", 1)]
    assert (tmp_path / "some-train-000.tar.tsv").exists()
    write_tar(tmp_path / "some-train-001.tar", {"7.mp4": content, "7.cls": b"1"})
    run(tmp_path)  # listed anew
    assert FILES(tmp_path).train[-1] == Video("7.mp4", 1)
    stored = located(tmp_path, FILES(tmp_path)).train[0]
    assert PyAV()(source_of(tmp_path, stored), lambda n: [n - 1]).shape[0] == 1


def test_a_run_that_was_stopped_leaves_no_list_and_is_continued(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "raw", tmp_path / "out"
    for i in range(10):
        path = root / "ab"[i % 2] / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shared / "videos" / "k400_test.mp4", path)
    settings = ["data=folder", f"data.root={root}", f"out={out}", "transcode.preset=ultrafast"]

    def stop() -> None:
        while not list(out.rglob("[0-9]*.mp4")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with exits(75):
        prepare.main(config.compose([*settings, "processes=1"], "prepare"))
    assert "the same command continues" in capsys.readouterr().err
    done = {path: path.stat().st_mtime_ns for path in out.rglob("[0-9]*.mp4")}
    assert 0 < len(done) < 10
    assert not (out / "train.txt").exists()
    for path in root.rglob("*.mp4"):  # shorter ones, to save time
        if not (out / path.relative_to(root)).exists():
            shutil.copy(shared / "videos" / "short_32_frames.mp4", path)
            os.utime(path, (0, 0))
    prepare.main(config.compose([*settings, "processes=2"], "prepare"))
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert len(FILES(out).train) + len(FILES(out).val) == 10


@dataclass(frozen=True)
class Moody(Transcode):
    """Hangs on one file, dies of another."""

    def __call__(self, source: str | Path, target: Path) -> object:
        if Path(source).stem == "1 a":
            time.sleep(3600)
        if Path(source).stem == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(source, target)


def test_a_file_that_hangs_or_kills_is_bad_and_the_others_are_done(root: Path, tmp_path: Path) -> None:
    listed = FILES(root)
    moody = Moody(short_side=32, preset="ultrafast")
    report = go_through(root, listed, Way(False, moody, False, 2, 3.0), out=tmp_path / "out")
    assert report.unreadable["Élan/1 a.avi"] == "not done after 3 seconds"
    assert "signal 9" in report.unreadable["Run/1.mkv"]
    assert report.kept.train == [Video("Élan/2.mkv.mp4", 0)]


def test_a_name_depends_on_its_sources_alone_and_no_two_are_equal() -> None:
    long = f"a/{'ä' * 125}.mov"  # of 254 bytes
    paths = ["a/1.mp4", "a/1.avi", "a/1.avi.mp4", "a/1.MP4", "a.b/x", "a/1.b.mp4", f"{'n' * 251}.mp4", long]
    names = new_names(paths, again=True)
    assert list(names.values())[:7] == [
        "a/1.mp4", "a/1.avi.mp4", "a/1.avi.mp4.mp4", "a/1.MP4.mp4", "a.b/x.mp4", "a/1.b.mp4", paths[6],
    ]  # fmt: skip
    assert len(set(names.values())) == len(paths)
    assert len(Path(names[long]).name.encode()) <= 255
    assert all(new_names([path], again=True) == {path: names[path]} for path in paths)
    assert new_names(paths, again=False) == {path: path for path in paths}
    for path in ("/abs/1.mp4", "../1.mp4"):
        with refused("path", "out=DIR"):
            new_names([path], again=True)
    with refused("a/x", "a/x.mp4"):
        new_names(["a/x", "a/x.mp4"], again=True)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["out={root}/new"], ["out=", "data.root"]),
        (["out={root}/../new", "verify=true"], ["verify=true", "out=DIR"]),
        (["data.num_classes=3"], ["2", "data.num_classes=3", "data=folder"]),
        (["shards=true"], ["shards=true", "out=DIR"]),
        (["out={root}/../new", "transcode=null"], ["transcode=null", "shards=true"]),
        (["format=kinetics"], ["annotations/train.csv", "data/README.md"]),
        (["transcode.crf=99"], ["crf", "0", "51", "crf=99"]),
        (["timeout=soon"], ["timeout='soon'"]),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    root: Path, overrides: list[str], expected: list[str]
) -> None:
    before = sorted(root.parent.rglob("*"))
    with refused(*expected):
        run(root, *(text.format(root=root) for text in overrides))
    assert sorted(root.parent.rglob("*")) == before


def test_an_out_that_cannot_be_written_is_one_clear_error(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in ("file", "file/below"):
        with refused("file", "folder"):
            run(root, f"out={tmp_path / out}")
    work = Work(Full())
    with refused("x.mp4", "space"):
        work((root, tmp_path / "x.mp4"))


@dataclass(frozen=True)
class Full(Transcode):
    """Finds no room."""

    def __call__(self, source: str | Path, target: Path) -> Frames:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_out_of_other_settings_and_a_wrong_root_are_refused(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(root, f"out={out}")
    with refused("videos", "settings", "folder"):
        run(root, f"out={out}", "transcode.crf=30")
    listed = Lists([Video("x.mp4", 0)], [], ["a"])
    with refused("1", "none", "data.root"):
        go_through(tmp_path, listed, replace(WAY, transcode=Transcode()), out=None)


def test_the_shell_gets_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare", "+experiment=k400", f"data.root={tmp_path}/none"])
    with exits(2):
        command.entrypoint("aim.prepare", "prepare")
    begins, error = capsys.readouterr().err.splitlines()
    assert begins.startswith("aim: aim.prepare k400: loading")
    assert error.startswith("aim: error: data.root=")
    assert "data/README.md" in error


def test_lists_made_of_folders_are_made_anew(video: Path, tmp_path: Path) -> None:
    for name in ("a/1.mkv", "a/2.mkv", "b/1.mkv", "b/2.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(video, tmp_path / name)
    (tmp_path / "b/2.mkv").write_bytes(b"not a video")
    run(tmp_path, "verify=true")
    assert summary(tmp_path)["train"]["kept"] + summary(tmp_path)["val"]["kept"] == 3
    shutil.copy(video, tmp_path / "b/2.mkv")
    shutil.copy(video, tmp_path / "b/3.mkv")
    bad = (tmp_path / "bad_videos.txt").read_text()
    assert bad.startswith("b/2.mkv\t")
    run(tmp_path)
    assert summary(tmp_path)["train"]["kept"] + summary(tmp_path)["val"]["kept"] == 5
    assert (tmp_path / "bad_videos.txt.bak").read_text() == bad
    out = tmp_path.with_name("out")
    run(tmp_path, f"out={out}")
    split = FILES(out)
    run(out)
    assert FILES(out) == split  # what was transcoded keeps its lists
    assert summary(out)["settings"]["format"] == "ready"


@pytest.mark.parametrize("path", sorted((choices.CONFIGS / "format").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_format_builds_and_every_data_set_has_its_settings(path: Path) -> None:
    for data in ("k400", "k700", "ssv2", "diving48", "folder"):
        cfg = config.resolve(config.compose([f"data={data}", "data.root=x", f"format={path.stem}"], "prepare"))
        config.build({key: cfg[key] for key in prepare.Settings.__dataclass_fields__}, prepare.Settings)
    assert config.build(cfg["transcode"], Transcode) == Transcode()  # the YAML and the class agree


def test_shards_leave_the_folder_that_one_job_leaves(shared: Path, root: Path, tmp_path: Path) -> None:
    one, out = tmp_path / "one", tmp_path / "out"
    data = (shared / "videos" / "mpeg4_test.avi").read_bytes()
    for name in ("Élan/1 a.avi", "Run/1.mkv"):
        (root / name).write_bytes(data[: len(data) * 3 // 4])
    run(root, f"out={one}")
    assert summary(one)["shorter"].keys() == {"Élan/1 a.avi", "Run/1.mkv"}
    codes = []
    for shard in ("shard=0/3", "merge=true", "shard=1/3", "shard=2/3", "shard=2/3", "shard=1/3", "shard=0/3"):
        for manifest in out.rglob(f"0000{shard[6]}-of-*/manifest.json"):  # as if this job had been killed
            manifest.unlink()
        with pytest.raises(SystemExit) as caught:
            run(root, f"out={out}", shard)
        codes.append(caught.value.code)
    assert codes[1] == 3
    assert {code for code in codes if code != 3} == {0, 1}  # one is missing, one is no video
    run(root, f"out={out}", "merge=true")

    def files(folder: Path) -> dict[str, bytes]:
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        lines = found.pop("sources.jsonl").splitlines()
        return {name: data for name, data in found.items() if not name.startswith("shards/")} | {
            "notes": b"".join(sorted(lines))
        }

    assert files(out) == files(one)
    with refused("shards=true", "transcode=null"):
        run(root, f"out={out}", "shard=0/3", "shards=true")
    with refused("out=DIR"):
        run(root, "shard=0/3")
    with refused("videos", "settings", "folder"):
        run(root, f"out={out}", "shard=0/3", "transcode.crf=30")
