"""Annotations in a user's own table."""

from pathlib import Path

import pytest

from aim.data.lists import Video
from aim.data.sources.detected import Auto
from aim.data.sources.table import Table
from tests.data.test_lists import write
from tests.messages import named, refused

FORMAT = Table(val_share=0.5)


def table(root: Path, text: str, name: str = "annotations.csv") -> Path:
    for i in range(4):
        write(root / "videos" / f"{i}.mp4", "")
    write(root / name, text)
    return root


def test_segments_are_read_and_all_of_a_file_are_on_one_side(tmp_path: Path) -> None:
    rows = "".join(f"videos/{i}.mp4,{s},{s + 1},{('run', 'jump')[s % 2]}\n" for i in range(4) for s in range(3))
    lists = FORMAT(table(tmp_path, "path,start,end,label\n" + rows))
    assert lists.classes == ["jump", "run"]
    assert lists.train[:2] == [Video(lists.train[0].path, 1, 0.0, 1.0), Video(lists.train[0].path, 0, 1.0, 2.0)]
    sides = [{video.path for video in part} for part in (lists.train, lists.val)]
    assert [len(side) for side in sides] == [2, 2]
    assert not sides[0] & sides[1]
    assert Auto(1, 0.5)(tmp_path) == lists
    named(lists.split, "50%")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_column_says_the_split_and_columns_have_several_names(tmp_path: Path, delimiter: str) -> None:
    rows = ["Class,Subset,Filename", "run,Training,0.mp4", "a b,train,1.mp4", "run,validation,2.mp4", "a b,TEST,3.mp4"]
    lists = FORMAT(table(tmp_path, "\ufeff" + "\r\n".join(rows).replace(",", delimiter), "my.csv"))
    assert (lists.train, lists.classes) == ([Video("videos/0.mp4", 1), Video("videos/1.mp4", 0)], ["a b", "run"])
    assert (lists.val, lists.third) == ([Video("videos/2.mp4", 1)], [Video("videos/3.mp4", 0)])


def test_the_names_of_several_tables_are_those_of_the_splits(tmp_path: Path) -> None:
    table(tmp_path, "path,label\nvideos/0.mp4,1\n9.mp4,0\n", "my_train.csv")
    lists = FORMAT(table(tmp_path, "path,label\nvideos/1.mp4,0\n", "my_val.csv"))
    assert (lists.train, lists.classes) == ([Video("videos/0.mp4", 1), Video("9.mp4", 0)], ["0", "1"])
    assert lists.val == [Video("videos/1.mp4", 0)]


def test_tables_in_folders_of_splits_name_the_files_beside_them(tmp_path: Path) -> None:
    for part, label in (("train", "run"), ("test", "jump")):  # as `datasets` of Hugging Face has them
        write(tmp_path / part / "0.mp4", "")
        write(tmp_path / part / "metadata.csv", f"file_name,label\n0.mp4,run\n{part}/0.mp4,{label}\n")
    lists = FORMAT(tmp_path)
    assert (lists.train, lists.val) == ([Video("train/0.mp4", 1)] * 2, [Video("test/0.mp4", 1), Video("test/0.mp4", 0)])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\n0.mp4,\n", ["annotations.csv:2", "label"]),
        ("path,label\n0.mp4,a,b\n", ["annotations.csv:2", "label"]),
        ("path,label,start,end\n0.mp4,a,1,\n", ["annotations.csv:2", "start='1'", "end=''"]),
        ("path,label,start,end\n0.mp4,a,2,1\n", ["annotations.csv:2", "2.0", "1.0"]),
        ("path,label,start,end\n0.mp4,a,1,2\n1.mp4,a,,\n", ["annotations.csv:3", "1", "2"]),
        ("path,label,start\n0.mp4,a,1\n", ["annotations.csv", "'start'", "end"]),
        ("path,label,subject\n0.mp4,a,1\n0.mp4,b,2\n", ["annotations.csv:3", "videos/0.mp4", "'1'", "'2'"]),
        ("path|label\n0.mp4|a\n", ["CSV", "path,start,end,label"]),
        ("path,label,split\n0.mp4,a,first\n", ["annotations.csv:2", "split='first'", "train"]),
        ("path,label,split\n0.mp4,a,train\n1.mp4,a,\n", ["split"]),
        ("path,label,split\n0.mp4,a,train\n", ["annotations.csv", "split"]),
        ("path,label\n0.mp4,a\n1.mp4,b\n", ["annotations.csv", "split"]),
        ("name,label\n0.mp4,a\n", ["CSV", "path,start,end,label"]),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, text: str, expected: list[str]) -> None:
    with refused(*expected):
        FORMAT(table(tmp_path, text))


def test_a_name_of_two_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "more" / "0.mp4", "")
    with refused("annotations.csv:2", "more/0.mp4", "videos/0.mp4"):
        FORMAT(table(tmp_path, "path,label\n0.mp4,a\n"))


def test_own_lists_go_before_a_table_and_it_before_folders(tmp_path: Path) -> None:
    table(tmp_path, "path,label,split\nvideos/0.mp4,a,train\nvideos/1.mp4,a,val\n")
    assert isinstance(Auto(1, 0.5).of(tmp_path), Table)
    for name, text in (("train", "a.mp4 0\n"), ("val", "b.mp4 0\n"), ("classes", "x\n")):
        write(tmp_path / f"{name}.txt", text)
    assert Auto(1, 0.5)(tmp_path).classes == ["x"]


def test_a_column_says_the_group_and_columns_are_named_with_what_they_are_read_as(tmp_path: Path) -> None:
    lists = FORMAT(table(tmp_path, "Clip;n;Action;t_start;T_End;Subject\n0.mp4;;a;0;1;p1\n1.mp4;x;a;0;1;p2\n"))
    assert lists.groups == {"videos/0.mp4": "p1", "videos/1.mp4": "p2"}
    read = ("path='Clip'", "label='Action'", "start='t_start'", "end='T_End'", "group='Subject'")
    named(lists.notes[0], "annotations.csv", *read, "'n'")


def test_numbers_that_are_names_are_said(tmp_path: Path) -> None:
    lists = FORMAT(table(tmp_path, "".join(["path,label\n", *(f"{i}.mp4,{10 - i // 2}\n" for i in range(4))])))
    assert lists.classes == ["9", "10"]
    named(lists.notes[-1], "2", str(tmp_path / "classes.txt"))
