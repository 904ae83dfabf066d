from pathlib import Path

import pytest

from aim.data.lists import Stored, Video
from aim.data.sources.detected import Auto
from aim.data.sources.webdataset import WebDataset
from tests.data.stored.test_shards import write_tar
from tests.messages import refused

FORMAT = WebDataset(val_share=0.5)


def test_numbers_in_cls_files_are_labels_and_names_of_shards_splits(tmp_path: Path) -> None:
    write_tar(tmp_path / "data-train-000.tar", {"x.mp4": b"", "x.cls": b"2", "y.webm": b"", "y.cls": b"0"})
    write_tar(tmp_path / "data-val-000.tar", {"z.mp4": b"1", "z.cls": b"1"})
    write_tar(tmp_path / "data-test-000.tar", {"w.mp4": b"1", "w.cls": b"1"})
    assert Auto(split=1, val_share=0.2).of(tmp_path) == WebDataset(val_share=0.2)
    lists = FORMAT(tmp_path)
    assert [video[:2] for video in lists.train] == [("x.mp4", 2), ("y.webm", 0)]
    assert lists.val == [Video("z.mp4", 1, stored=Stored("data-val-000.tar", 512, 1))]
    assert lists.classes == ["0", "1", "2"]
    (tmp_path / "classes.txt").write_text("run\nwalk\njump\n")
    assert FORMAT(tmp_path).classes == ["run", "walk", "jump"]


def test_names_in_json_files_are_classes_and_a_hash_holds_out(tmp_path: Path) -> None:
    files = {f"{i}.{kind}": data for i in range(8) for kind, data in
             (("mp4", b""), ("json", b'{"label": "%s"}' % (b"run", b"walk")[i % 2]))}  # fmt: skip
    write_tar(tmp_path / "shards" / "0.tar", files)
    lists = FORMAT(tmp_path)
    assert lists.classes == ["run", "walk"]
    assert all(video.label == int(video.path[0]) % 2 for video in (*lists.train, *lists.val))
    assert [sum(video.label for video in part) for part in (lists.train, lists.val)] == [2, 2]
    assert {video.path for video in lists.train} ^ {video.path for video in lists.val} == {f"{i}.mp4" for i in range(8)}


def test_without_labels_folders_in_the_tar_are_classes(tmp_path: Path) -> None:
    write_tar(tmp_path / "all.tar", {"./run/1.mp4": b"", "./run/2.mp4": b"", "./walk/1.mp4": b"", "./walk/2.mp4": b""})
    lists = FORMAT(tmp_path)
    assert (lists.classes, len(lists.train), len(lists.val)) == (["run", "walk"], 2, 2)


@pytest.mark.parametrize(
    ("files", "classes", "expected"),
    [
        ({"1.mp4": b""}, "", ["1", "1.mp4", "KEY.cls", "KEY.json"]),
        ({"1.mp4": b"", "1.json": b'{"label": null}'}, "", ["1", "1.mp4", "KEY.cls", "KEY.json"]),
        ({"1.jpg": b""}, "", ["shards", ".mp4", ".webm"]),
        ({"1.mp4": b"", "1.cls": b"1", "2.mp4": b"", "2.cls": b"run"}, "", ["1", "run", "numbers"]),
        ({"1.mp4": b"", "1.cls": b"1 3"}, "", ["0.tar:", "1.cls", "2", "1", "3"]),
        ({"1.mp4": b"", "1.json": b'{"label": [1, 3]}'}, "", ["0.tar:", "1.json", "2", "1", "3"]),
        ({"1.mp4": b"", "1.cls": b"2"}, "a\nb\n", ["2", "classes.txt"]),
        ({"1.mp4": b"", "1.cls": b"c"}, "a\nb\n", ["c", "2", "classes.txt"]),
    ],
)  # fmt: skip
def test_labels_that_are_no_labels_are_said(tmp_path: Path, files: dict, classes: str, expected: list[str]) -> None:
    write_tar(tmp_path / "0.tar", files)
    if classes:
        (tmp_path / "classes.txt").write_text(classes)
    with refused(*expected):
        FORMAT(tmp_path)


def test_a_folder_of_videos_with_an_archive_beside_is_no_set_of_shards(tmp_path: Path) -> None:
    write_tar(tmp_path / "old.tar", {"1.mp4": b"", "1.cls": b"1"})
    assert FORMAT.recognises(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "1.mp4").touch()
    assert not FORMAT.recognises(tmp_path)


def test_hidden_videos_and_shards_are_left(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {f"{name}/{i}.mp4": b"" for name in ("a", "b", ".x") for i in range(2)})
    write_tar(tmp_path / ".old" / "1.tar", {"c/1.mp4": b""})
    assert FORMAT(tmp_path).classes == ["a", "b"]
