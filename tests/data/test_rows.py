"""Rows as people write them: separators, headers, quotes, labels in words."""

from pathlib import Path

import pytest

from aim.data.columns import Row
from aim.data.labels import Labels, named_classes, settled
from aim.data.list_files import ListFiles
from aim.data.lists import Video
from aim.data.rows import divided, read_list, read_rows, times, video_of
from tests.data.test_lists import write
from tests.messages import named, refused

FILES = ListFiles("train.txt", "val.txt", "classes.txt")
CLASSES = ["hand shake", "hug"]
TABLES = {
    "commas": "path,label\nhug/1 a.avi,hand shake\n",
    "semicolons": "Video;n;Class\nhug/1 a.avi;3;hand shake\n",
    "tabs": "FILE\tAction\nhug/1 a.avi\thand shake\n",
    "spaces": 'path label\n"hug/1 a.avi" "hand shake"\n',
    "quotes": '"path","label"\n"hug/1 a.avi","hand shake"\n',
    "signs in names": "Video Path,Class-Name,start_frame\nhug/1 a.avi,hand shake,3\n",
    "column order": "label, path\nhand shake, hug/1 a.avi\n",
    "comments": "# ours\n\npath,label\n# one\nhug/1 a.avi,hand shake\n\n",
    "no header, commas": "hug/1 a.avi,hand shake\n",
    "no header, semicolons": "hug/1 a.avi; hand shake\n",
    "no header, tabs": "hug/1 a.avi\thand shake\n",
    "no header, quotes": '"hug/1 a.avi","hand shake"\n',
    "no header, spaces": "hug/1 a.avi hand shake\n",
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_row_is_read_whatever_stands_between_its_fields(tmp_path: Path, text: str, coding: str, end: str) -> None:
    (tmp_path / "list.csv").write_bytes(text.replace("\n", end).encode(coding))
    assert read_list(tmp_path / "list.csv", CLASSES) == [Video("hug/1 a.avi", 0)]
    rows, _ = read_rows(tmp_path / "list.csv", Labels())  # whose classes aren't known yet
    assert named_classes(rows, "list.csv") == ["hand shake"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.avi,0.5,2,hug", Video("a.avi", 1, 0.5, 2.0)),
        ("a.avi;0.5;2;hand shake", Video("a.avi", 0, 0.5, 2.0)),
        ('"a, b.avi",1,2,1', Video("a, b.avi", 1, 1.0, 2.0)),
        ("frames/12,hug", Video("frames/12", 1)),
        ("frames/12\t1", Video("frames/12", 1)),
    ],
)
def test_a_line_may_have_commas_and_times(line: str, expected: Video) -> None:
    assert video_of(divided(line, Labels(CLASSES)), Labels(CLASSES)) == expected


@pytest.mark.parametrize("line", ["a.avi|hug", "frames/12 1,x", "a.avi", "a.avi,", "a\tb\tc hug", ",hug"])
def test_a_line_without_a_path_or_a_label_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="label"):
        divided(line, Labels(CLASSES))


def test_what_is_in_which_column_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "n;Video;Label;Subject;Set\n1;a.avi;hug;p1;train\n")
    rows, said = read_rows(file, Labels())
    assert rows == [Row("a.avi", "hug", split="train", group="p1", place=f"{file}:2")]
    named(said, "a.csv", "path='Video'", "label='Label'", "group='Subject'", "split='Set'", "'n'")


def test_times_are_seconds_however_their_columns_are_spelt(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "videoPath,Start (s),end-seconds,ACTION\na.avi,1,2.5,hug\n")
    assert read_rows(file, Labels())[0] == [Row("a.avi", "hug", "1", "2.5", place=f"{file}:2")]


def rows(*labels: str) -> list[Row]:
    return [Row(f"{i}.avi", label, place=f"a.csv:{i + 2}") for i, label in enumerate(labels)]


@pytest.mark.parametrize("span", [("1", "inf"), ("nan", "1"), ("0", "nan"), ("2", "1"), ("1", ""), ("-1", "1")])
def test_times_that_are_no_part_of_a_video_are_refused(span: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="seconds"):
        times(Row("a.avi", "0", *span))


def test_two_spellings_of_a_class_are_refused_with_their_counts() -> None:
    with refused("a.csv", "'Push it' (1 videos)", "'push_it' (2 videos)", "classes.txt"):
        named_classes(rows("push_it", "Push it", "hug", "push_it"), "a.csv")
    with refused("a.csv", "1,", "'-1'"):  # the sign is no space, so that they are not two spellings
        named_classes(rows("-1", "1", "2"), "a.csv")


def test_numbers_beside_words_are_refused() -> None:
    with refused("a.csv", "0", "'hug'"):
        named_classes(rows("hug", "0"), "a.csv")


@pytest.mark.parametrize(
    "line", ["a b.avi 1,0", "a b.avi\t0, 1", "a b.avi hug|hand shake", '"a b.avi",1;0', "a b.avi 0 1"]
)
def test_a_line_may_have_several_labels(line: str) -> None:
    assert video_of(divided(line, Labels(CLASSES)), Labels(CLASSES)) == Video("a b.avi", 0, also=(1,))


def test_a_line_may_have_no_label_and_a_part_may_have_several() -> None:
    labels = Labels(CLASSES)
    found = [
        video_of(divided(line, labels), labels) for line in ("a.avi -", "a.avi\t1\t2\t-", "a.avi,1,2,hug,hand shake")
    ]
    assert [video.labels for video in found] == [(), (), (0, 1)]
    assert [video[2:4] for video in found] == [(None, None), (1.0, 2.0), (1.0, 2.0)]
    assert video_of(divided("frames/12 1,0", labels), labels).labels == (0, 1)
    assert Labels(["-", "hug"]).numbers("-") == [0]  # of a class with that name
    for wrong in ("a.avi hug,kick", "a.avi 1,2"):
        with refused("classes", error=ValueError):
            video_of(divided(wrong, labels), labels)


def test_several_labels_in_words_are_such_where_each_is_a_class() -> None:
    assert named_classes(rows("hug", "kick", "hug, kick", "-"), "a.csv") == ["hug", "kick"]
    assert named_classes(rows("0|3", "1", "-"), "a.csv") == ["0", "1", "3"]
    assert named_classes(rows("air, drumming", "hug"), "a.csv") == ["air, drumming", "hug"]


def test_classes_named_by_numbers_are_taken_as_what_all_labels_fit() -> None:
    """Labels 1 to 3 of classes called 1, 2, 3 are names, 0 to 2 are lines, and 1 and 2 may be either."""
    classes, where = ["1", "2", "3"], Path("classes.txt")
    assert [settled(rows("1", "3"), classes, where).number(text) for text in ("1", "3")] == [0, 2]
    assert [settled(rows("0", "2"), classes, where).number(text) for text in ("0", "2")] == [0, 2]
    with refused("a.csv:2", "1", "'2'", "'1'", "classes.txt"):
        settled(rows("1", "2"), classes, where)
    assert settled(rows("0", "1"), ["0", "1"], where).number("1") == 1


def test_labels_that_count_from_one_are_noticed() -> None:
    with refused("a.csv:4", "3", "0", "2", "1"):
        settled(rows("1", "2", "3"), ["a", "b", "c"], Path("classes.txt"))
    assert settled(rows("1", "2"), ["a", "b", "c"], Path("classes.txt")).number("2") == 2


def test_labels_in_words_name_the_classes_where_no_file_does(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "hug/1.avi hug\nkick/2.avi,kick\n")
    write(tmp_path / "val.txt", "video;class;subject\nhug/3.avi;hug;p1\n")
    lists = FILES(tmp_path)
    assert (lists.classes, lists.val) == (["hug", "kick"], [Video("hug/3.avi", 0)])
    assert lists.groups == {"hug/3.avi": "p1"}
    named(lists.notes[0], "val.txt", "path='video'")
    write(tmp_path / "train.txt", "hug/1.avi 0\n")
    write(tmp_path / "val.txt", "hug/3.avi 0\n")
    with refused("classes.txt", "train.txt", "val.txt"):
        FILES(tmp_path)


def test_a_row_of_another_split_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "path,label,split\na.avi,hug,train\nb.avi,hug,val\n")
    write(tmp_path / "val.txt", "c.avi hug\n")
    with refused("train.txt:3", "split='val'", "data.train=FILE"):
        FILES(tmp_path)
