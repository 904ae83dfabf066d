"""The check of a small data set's files before a run begins."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aim.data.dataset import VideoDataset
from aim.data.lists import Lists, Stored
from aim.data.readers.frames import Frames
from aim.engine.run import inspection
from aim.engine.run.inspection import inspected
from aim.engine.run.settings import Run
from aim.ground import config
from tests.conftest import ROOT
from tests.messages import named, refused
from tests.toy import OWN, TOY, run


@pytest.fixture
def folder(toy_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 good videos, five a class, one held out; and an empty cache."""
    lists = config.build(config.compose(TOY), Run).load_lists()
    for i, video in enumerate([*lists.train, *lists.val]):
        target = tmp_path / "data" / lists.classes[video.label] / f"{i:02}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(toy_cache / video.path, target)
    monkeypatch.setenv("AIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def begun(folder: Path, *overrides: str) -> tuple[Run, Lists]:
    made = config.build(config.compose([*OWN, f"data.root={folder}", *overrides]), Run)
    return made, made.load_lists()


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the inspected files, in a list that a test may clear."""
    original, names = inspection.bad_files, list[str]()

    def spy(root: Path, paths: Sequence[str], **settings: Any) -> Iterator[tuple[str, str | None]]:
        names.extend(paths)
        yield from original(root, paths, **settings)

    monkeypatch.setattr(inspection, "bad_files", spy)
    return names


def test_all_bad_files_are_named_at_once_and_the_command_that_is_told_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lists = begun(folder)
    assert (len(lists.train), len(lists.val)) == (32, 8)
    bad = {lists.train[3].path: b"", lists.train[9].path: b"no video", lists.val[5].path: b""}
    for path, content in bad.items():
        (folder / path).write_bytes(content)
    way_out = ["data.on_error=skip", "data.eval_on_error=skip", "data.max_bad=0.125"]
    with refused("2", "32", "1", "8", " ".join(way_out)):
        run(tmp_path / "run", f"data.root={folder}", toy=OWN)
    reasons = {b"": "an empty file", b"no video": "not a video"}
    lines = [f"aim: {folder / path}: {reasons[content]}" for path, content in sorted(bad.items())]
    assert [line for line in capsys.readouterr().err.splitlines() if str(folder) in line] == lines
    assert not (tmp_path / "run" / "last.pt").exists()

    read, original = set[str](), VideoDataset.read_video
    monkeypatch.setattr(VideoDataset, "read_video", lambda *a: read.add(a[1].path) or original(*a))
    found = run(tmp_path / "run", f"data.root={folder}", *way_out, toy=OWN)
    assert found["num_missing"] == 1
    assert read == {video.path for video in (*lists.train, *lists.val)} - bad.keys()
    listed = (tmp_path / "run" / "bad_videos.txt").read_text(encoding="utf-8")
    assert listed == "".join(f"{path}\t{reasons[content]}\n" for path, content in sorted(bad.items()))
    err = capsys.readouterr().err
    named(err, "2", "32", "1", "8")
    named(err.splitlines()[-1], "3", str(tmp_path / "run" / "bad_videos.txt"))


def test_good_files_are_looked_at_once_and_again_when_they_change(folder: Path, looked_at: list[str]) -> None:
    made, lists = begun(folder)
    assert inspected(made, lists).bad == {}
    assert sorted(looked_at) == sorted(video.path for video in (*lists.train, *lists.val))
    looked_at.clear()
    assert inspected(made, lists).bad == {}
    assert looked_at == []
    one, two = (folder / lists.train[i].path for i in (0, 1))
    content, before = one.read_bytes(), one.stat()
    one.write_bytes(bytes(len(content)))  # of the same size
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with refused("1", "32", "data.on_error=skip", "data.max_bad=0.032"):
        inspected(made, lists)
    one.write_bytes(content)
    two.unlink()
    with refused("1", "32", "data.on_error=skip", "data.max_bad=0.032"):
        inspected(made, lists)
    assert looked_at == [lists.train[i].path for i in (0, 0, 1)]


def test_a_file_of_the_same_size_and_time_is_looked_at_again_when_its_content_changes(
    folder: Path, looked_at: list[str]
) -> None:
    made, lists = begun(folder)
    inspected(made, lists)
    looked_at.clear()
    path = folder / lists.train[0].path
    content, before = path.read_bytes(), path.stat()
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with refused("1", "32", "data.on_error=skip", "data.max_bad=0.032"):
        inspected(made, lists)
    assert looked_at == [lists.train[0].path]


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": ["x", 2]}', "\xff"])
def test_a_memory_that_is_not_ours_is_none(folder: Path, looked_at: list[str], content: str) -> None:
    memory = inspection.memory_of(folder)
    memory.parent.mkdir(parents=True)
    memory.write_bytes(content.encode("latin-1"))
    made, lists = begun(folder)
    inspected(made, lists)
    assert len(looked_at) == 40
    assert len(json.loads(memory.read_text(encoding="utf-8"))) == 40


def test_where_nothing_can_be_remembered_it_is_looked_at_again(
    folder: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIM_CACHE", str(folder / "file"))
    (folder / "file").touch()
    made, lists = begun(folder)
    for count in (40, 80):
        inspected(made, lists)
        assert len(looked_at) == count


def test_only_small_folders_of_somebodys_own_are_looked_at(
    folder: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, lists = begun(folder)
    published = replace(made, data=replace(made.data, num_classes=8))
    for other in (published, replace(made, reader=Frames())):
        assert inspected(other, lists) == lists
    packed = replace(lists, train=[lists.train[0]._replace(stored=Stored("0.tar", 512, 1000)), *lists.train[1:]])
    assert inspected(made, packed) == packed
    monkeypatch.setattr(inspection, "MOST", 39)
    assert inspected(made, lists) == lists
    assert looked_at == []
    monkeypatch.setattr(inspection, "MOST", 40)
    inspected(made, lists)
    assert len(looked_at) == 40


def test_a_file_of_many_segments_is_looked_at_once(folder: Path, looked_at: list[str]) -> None:
    made, lists = begun(folder)
    segments = [lists.train[0]._replace(start=i / 10, end=1.0) for i in range(5)]
    inspected(made, replace(lists, train=segments, val=segments))
    assert looked_at == [lists.train[0].path]


def test_what_may_be_skipped_is_skipped_and_no_more(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, lists = begun(folder, "data.on_error=skip", "data.max_bad=0.04")
    (folder / lists.train[0].path).write_bytes(b"")
    assert inspected(made, lists).bad == {lists.train[0].path: "an empty file"}
    (folder / lists.train[1].path).write_bytes(b"")
    with refused("2", "32", "data.max_bad=0.063"):
        inspected(made, lists)
    made = replace(made, data=replace(made.data, max_bad=0.2))
    for video in lists.train[:4]:
        (folder / video.path).write_bytes(b"")
    assert len(inspected(made, lists).bad) == 4
    named(capsys.readouterr().err, lists.classes[0])
    for video in lists.train:
        (folder / video.path).write_bytes(b"")
    with refused("32", "data.root="):
        inspected(made, lists)


def test_of_many_bad_files_the_first_are_said_and_all_are_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, lists = begun(folder, f"run_dir={tmp_path / 'run'}")
    for video in lists.train[1:]:
        (folder / video.path).write_bytes(b"")
    with refused("31", "32", "data.on_error=skip", "data.max_bad=0.969"):
        inspected(made, lists)
    err = capsys.readouterr().err
    assert err.count(str(folder)) == inspection.NAMED
    named(err, "11", str(tmp_path / "run" / "bad_videos.txt"))
    assert len((tmp_path / "run" / "bad_videos.txt").read_text(encoding="utf-8").splitlines()) == 31


def test_the_other_ranks_wait_for_longer_than_a_collective_while_one_looks(
    folder: Path, looked_at: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = list[int]()
    monkeypatch.setattr(inspection.distributed, "meet", lambda: done.append(len(looked_at)))
    inspected(*begun(folder))
    assert done == [40]


def test_a_folder_without_videos_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty" / "deep").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    inspected(*begun(folder))
    hidden, empty = [line for line in capsys.readouterr().err.splitlines() if str(folder) in line]
    named(hidden, "1 (.hidden)")
    named(empty, str(folder / "empty"))


def test_what_is_listed_twice_and_what_cannot_be_learnt_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, lists = begun(folder)
    train = [video for video in lists.train if video.label] + [lists.train[-1]]
    inspected(made, replace(lists, train=train, third=[lists.val[0]]))
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("aim: warning: ")]
    assert len(said) == 4
    named(said[0], "1", f"({lists.train[-1].path})")
    named(said[1], "1", f"({lists.val[0].path})")
    named(said[2], lists.classes[0])
    named(said[3], "6", "8", "5", f"{lists.classes[1]} 4")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["torchrun"]])
def test_of_several_ranks_one_looks_and_all_end(folder: Path, tmp_path: Path, launcher: list[str]) -> None:
    _, lists = begun(folder)
    (folder / lists.train[3].path).write_bytes(b"")
    start = [sys.executable, "-m", "aim.train", "gpus=2"]
    if launcher:
        start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "aim.train"]
    command = [*start, *OWN, f"data.root={folder}", f"run_dir={tmp_path / 'run'}", "data.workers=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == (1 if launcher else 2), done.stderr
    assert done.stderr.count(f"{folder / lists.train[3].path}: ") == 1
    said = done.stderr.count("data.on_error=skip")
    assert said == 1 or (launcher and said == 2)  # torchrun has a box for each rank
    more = ["data.on_error=skip", "data.max_bad=0.032"]
    done = subprocess.run([*command, *more], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"\b1 of 32\b", done.stderr)) == 1


def test_segments_after_their_videos_end_are_named(
    folder: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, lists = begun(folder)
    videos = {name: shared / "cases/inputs" / name for name in ("joined.ts", "plain.mp4", "trimmed.mp4")}
    for name, path in videos.items():
        shutil.copy(path, folder / name)
    segments = [
        ("joined.ts", 4, 6), ("joined.ts", 5, 9), ("plain.mp4", 0, 3), ("plain.mp4", 1, 4.5), ("plain.mp4", 3.5, 4),
        ("trimmed.mp4", 1, 5),
    ]  # fmt: skip
    train = [lists.train[0]._replace(path=name, start=start, end=end) for name, start, end in segments]
    inspected(run, replace(lists, train=train, val=lists.val[:1]))
    said = [line for line in capsys.readouterr().err.splitlines() if "segment" in line]
    expected = [("joined.ts", "5 to 9", "6.00"), ("plain.mp4", "1 to 4.5", "3.00"), ("plain.mp4", "3.5 to 4", "3.00"),
                ("trimmed.mp4", "1 to 5", "2.00")]  # fmt: skip
    assert len(said) == len(expected)
    for line, parts in zip(said, expected, strict=True):
        assert all(part in line for part in parts)
