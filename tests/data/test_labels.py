"""Labels that a task accepts: one or several, in words or not, of overlapping parts; and misspelt ones."""

from pathlib import Path

import pytest

from aim.data.folds import in_folds
from aim.data.labels import Labels, misspelt, several, single
from aim.data.lists import Lists, Video
from aim.data.sources.table import Table
from tests.data.test_lists import write
from tests.messages import named, refused


def in_words(*classes: str) -> Lists:
    """A list of one video of each class, without a file that names them."""
    videos = [Video(f"{i}.mp4", i) for i in range(len(classes))]
    return Lists(videos, videos, list(classes), in_words=True, split="the table a.csv")


def test_words_with_a_separator_are_several_labels_where_the_task_has_several() -> None:
    found = several(in_words("contact;violent", "violent", "quiet | contact"))
    assert found.classes == ["contact", "quiet", "violent"]
    assert [video.labels for video in found.train] == [(0, 2), (2,), (0, 1)]
    numbers = several(in_words("0;10", "2"))
    assert (numbers.classes, numbers.train[0].labels) == (["0", "2", "10"], (0, 2))
    with refused("a.csv", "'Contact' (2 videos)", "'contact' (2 videos)", "classes.txt"):
        several(in_words("Contact;violent", "contact"))


def test_words_with_a_separator_are_one_class_of_a_single_label_task_unless_a_part_is_one() -> None:
    plain = in_words("air, drumming", "hug")
    assert single(plain).classes == plain.classes
    named(single(plain).notes[0], "warning:", "drumming", "task=multi_label", "classes.txt")
    with refused("'contact;violent'", "'violent'", "task=multi_label", "classes.txt"):
        single(in_words("contact;violent", "violent"))


def test_joined_words_of_one_file_each_are_held_out_by_their_labels(tmp_path: Path) -> None:
    names = [f"{one};{other}" for one in "abcd" for other in "xyz"]
    for i in range(len(names)):
        write(tmp_path / f"{i}.mp4", "")
    write(tmp_path / "t.csv", "path,label\n" + "".join(f"{i}.mp4,{name}\n" for i, name in enumerate(names)))
    lists = Table(0.25)(tmp_path)
    found = in_folds(several(lists), None, None)
    assert len(found.classes) == 7
    assert len(found.train) + len(found.val) == 12
    assert {label for video in found.train for label in video.labels} == {*range(7)}
    assert 3 <= len(found.val) <= 4
    with refused("'a;x'", "task=multi_label", "classes.txt"):
        single(lists)
    write(tmp_path / "t.csv", "path,label\n0.mp4,a;x\n")
    with refused("t.csv", "validation", "split"):
        Table(0.25)(tmp_path)


def test_an_empty_label_is_none_or_an_error_by_the_task(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.mp4", "")
    write(tmp_path / "a.csv", "video;label;split\na.mp4;contact;train\nb.mp4;;train\nc.mp4;contact;val\n")
    lists = Table(0.5)(tmp_path)
    assert [video.labels for video in several(lists).train] == [(0,), ()]
    named(lists.notes[0], "1", "3")
    with refused("train", "b.mp4", "none", "task=multi_label"):
        single(lists)


def test_a_part_has_the_labels_of_each_part_that_it_lies_within() -> None:
    """Nested twice, across an end, at the same times, in another file and without times."""
    walk, wave, point = 0, 1, 2
    parts = [("a", 2.0, 4.0, wave), ("a", 3.0, 4.0, point), ("a", 0.0, 9.0, walk), ("a", 8.0, 12.0, wave)]
    others = [Video("b", point, 2.5, 3.0), Video("a", wave), Video("a", point, 0.0, 9.0), Video("a", wave, 12.0, 13.0)]
    lists = Lists(
        [*(Video(path, label, start, end) for path, start, end, label in parts), *others], [], ["w", "v", "p"]
    )
    found = several(lists)
    assert {video[:1] + video[2:4]: video.labels for video in found.train} == {
        ("a", 2.0, 4.0): (walk, wave, point),
        ("a", 3.0, 4.0): (walk, wave, point),
        ("a", 0.0, 9.0): (walk, point),
        ("a", 8.0, 12.0): (wave,),
        ("b", 2.5, 3.0): (point,),
        ("a", None, None): (wave,),
        ("a", 12.0, 13.0): (wave,),
    }
    assert [note.split()[0] for note in found.notes] == ["2", "1"]  # within others, and across


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"contact": 40, "contcat": 1}, ["'contcat'", "'contact' (40)"]),
        ({"Push": 5, "pusch": 1, "kick": 9}, ["'pusch'", "'Push' (5)"]),
        ({"contact": 40, "contcat": 2}, []),
        ({"contact": 4, "contcat": 1}, []),
        ({"contact": 40, "violent": 1}, []),
        ({"scene 1": 40, "scene 12": 1}, []),
    ],
)
def test_a_rare_class_that_is_spelt_like_a_large_one_is_said(names: dict[str, int], expected: list[str]) -> None:
    said = misspelt(names)
    assert len(said) == bool(expected)
    if expected:
        named(said[0], *expected)


def test_the_label_of_several_that_is_no_class_is_named() -> None:
    with refused("'vilent'", "violent", error=ValueError):
        Labels(["contact", "violent"]).numbers("contact;vilent")
    with refused("'kik'", "kick", error=ValueError):
        Labels(["kick", "hug"]).numbers("kik")
    with refused("'wave'", "classes.txt", error=ValueError):
        Labels(["kick", "hug"]).numbers("wave")
