"""Folds and groups."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from aim.data.class_folders import ClassFolders
from aim.data.folds import apart, in_folds, listed_in
from aim.data.lists import Lists, Video, set_apart
from aim.data.sources.table import Table
from tests.conftest import shared_folder
from tests.data.test_lists import write
from tests.messages import named, refused

UT = shared_folder() / "real" / "ut-interaction"


def made(*counts: int, subjects: int = 1) -> Lists:
    """Videos of each class by a number of subjects, the first four fifths for training."""
    videos = [
        Video(f"c{label}/p{i % subjects}_{i}.mp4", label) for label, count in enumerate(counts) for i in range(count)
    ]
    part = len(videos) // 5
    return Lists(videos[part:], videos[:part], [f"c{label}" for label in range(len(counts))], split="halves")


def by_fold(lists: Lists, count: int, pattern: str | None = None) -> list[list[Video]]:
    return [in_folds(lists, f"{number}/{count}", pattern).val for number in range(1, count + 1)]


def test_each_video_is_held_out_once_and_classes_are_divided_evenly() -> None:
    lists = made(20, 23, 7)
    parts = by_fold(lists, 5)
    assert sorted(video for part in parts for video in part) == sorted(lists.videos)
    for label, count in enumerate((20, 23, 7)):
        of_class = [sum(video.label == label for video in part) for part in parts]
        assert set(of_class) <= {count // 5, -(-count // 5)}
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    one = in_folds(lists, "2/5", None)
    assert set(one.train) | set(one.val) == set(lists.videos)
    assert not set(one.train) & set(one.val)
    named(one.split, "2", "5", "50", "halves")


def test_folds_depend_on_neither_the_order_of_the_list_nor_its_split() -> None:
    lists = made(20, 23, 7, subjects=5)
    other = replace(lists, train=lists.videos[:3:-1], val=lists.videos[:4])
    for pattern in (None, r"p\d+"):
        ours, theirs = by_fold(lists, 4, pattern), by_fold(other, 4, pattern)
        assert [set(part) for part in ours] == [set(part) for part in theirs]
    assert by_fold(lists, 4)[0] != sorted(lists.videos)[: len(by_fold(lists, 4)[0])]  # a hash chooses


@pytest.mark.parametrize("pattern", [r"p\d+", r"/p(\d+)_"])
def test_a_group_is_in_one_fold_and_classes_are_still_divided(pattern: str) -> None:
    lists = made(24, 24, 24, subjects=12)
    parts = by_fold(lists, 4, pattern)
    groups = [{match[0] for video in part if (match := re.search(r"p\d+", video.path))} for part in parts]
    assert sum(map(len, groups)) == len(set[str]().union(*groups)) == 12
    assert [Counter(video.label for video in part) for part in parts] == 4 * [Counter({0: 6, 1: 6, 2: 6})]
    named(in_folds(lists, "1/4", pattern).split, f"data.groups={pattern}", "12")


def test_groups_hold_together_what_a_hash_divides() -> None:
    lists = replace(made(20, 20, subjects=10), held_out=0.2)
    found = in_folds(lists, None, r"p\d+_")
    sides = [{video.path.split("/")[1].split("_")[0] for video in part} for part in (found.train, found.val)]
    assert not sides[0] & sides[1]
    assert [len(side) for side in sides] == [8, 2]
    assert Counter(video.label for video in found.val) == {0: 4, 1: 4}
    named(found.split, "data.groups=p\\d+_", "10")
    two = in_folds(replace(made(20, 20, subjects=2), held_out=0.2), None, r"p\d+_")  # of which one is held out
    assert len(two.val) == 20


def test_videos_that_choose_are_whole_groups() -> None:
    lists = in_folds(made(40, 40, subjects=20), "1/4", r"p\d+_")
    rest, spared = apart(lists, 0.2)
    sides = [{video.path.split("/")[1].split("_")[0] for video in part} for part in (rest, spared, lists.val)]
    assert [len(side) for side in sides] == [12, 3, 5]
    assert len(set[str]().union(*sides)) == 20
    assert sorted(rest + spared) == sorted(lists.train)
    plain = replace(lists, groups={})
    assert apart(plain, 0.2) == set_apart(plain.train, 0.2)


def test_lists_that_divide_a_group_are_warned_of() -> None:
    lists = made(20, 20, subjects=10)
    named(in_folds(lists, None, r"p\d+_").notes[-1], r"data.groups=p\d+_", "10", "8")
    named(in_folds(lists, None, r"c\d/p\d+_\d+").notes[-1], "40", "0")


@pytest.mark.parametrize(
    ("fold", "pattern", "expected"),
    [
        ("11/10", None, ["data.fold=11/10", "data.fold=1/10", "data.fold=10/10"]),
        ("0/10", None, ["data.fold=0/10"]),
        ("1/1", None, ["data.fold=1/1", "data.fold=2/2"]),
        ("3", None, ["data.fold=3", "data.fold=1/10", "data.folds=DIR"]),
        ("all/10", None, ["data.fold=all/10", "data.fold=1/10"]),
        ("1/61", None, ["data.fold=K/61", "60", "data.fold=K/60"]),
        ("1/5", r"p\d+_", ["data.fold=K/5", "3", "data.fold=K/3"]),
        ("1/3", r"c\d", ["c0", "data.groups"]),
        ("1/3", "p[", ["data.groups=p[", "'data.groups=...'"]),
        ("1/3", "q", ["data.groups=q", "60", "c0/p0_12.mp4", "data.root"]),
        ("1/3", "p[12]_", ["data.groups=p[12]_", "21", "60", "c0/p0_12.mp4"]),
    ],
)
def test_folds_that_can_not_be_are_refused(fold: str, pattern: str | None, expected: list[str]) -> None:
    with refused(*expected):
        in_folds(made(20, 20, 20, subjects=3), fold, pattern)


def test_a_fold_without_a_class_is_named_and_videos_for_the_test_alone_are_left_out() -> None:
    lists = replace(made(20, 2), third=[Video("t.mp4", 0)])
    notes = [in_folds(lists, f"{number}/4", None).notes for number in range(1, 5)]
    assert sum("c1" in " ".join(own) for own in notes) == 2
    assert all("1 videos for the test alone" in own[-1] for own in notes)
    assert not any(video.path == "t.mp4" for part in by_fold(lists, 4) for video in part)


def test_a_column_of_a_table_says_the_groups(tmp_path: Path) -> None:
    rows = "".join(f"{i}.mp4,{'ab'[i % 2]},s{i // 4}\n" for i in range(20))
    for i in range(20):
        write(tmp_path / f"{i}.mp4", "")
    write(tmp_path / "all.csv", f"path,label,subject\n{rows}")
    lists = Table(0.2)(tmp_path)
    found = in_folds(lists, None, None)
    assert sorted(int(video.path.removesuffix(".mp4")) // 4 for video in found.val) in [[i] * 4 for i in range(5)]
    assert {len(part) for part in by_fold(lists, 5)} == {4}
    assert ClassFolders(0.2)(tmp_path) == lists


@pytest.mark.skipif(not UT.is_dir(), reason="no real data")
def test_the_lists_of_a_folder_of_folds_are_taken() -> None:
    """Fold k of UT-Interaction holds out sequences k and 10 + k."""
    for fold in (1, "10"):
        lists = listed_in(UT, "folds", fold, None)(UT)
        held = {int(match[1]) for video in lists.val if (match := re.search(r"seq(\d+)_", video.path))}
        assert held == {int(fold), 10 + int(fold)}
        assert len(lists.train) + len(lists.val) == 120
        named(lists.split, f"folds/fold{int(fold):02}_val.txt")
    with refused("data.fold=11", "10"):
        listed_in(UT, "folds", 11, None)


def test_lists_of_folds_have_several_names(tmp_path: Path) -> None:
    for name, text in (("train", "a.mp4 0\n"), ("test", "b.mp4 0\n")):
        write(tmp_path / "folds" / f"{name}list03.txt", text)
        write(tmp_path / "others" / "split_2" / f"{name}.csv", text)
    write(tmp_path / "folds" / "classes.txt", "x\n")
    for folder, number in (("folds", 3), (str(tmp_path / "others"), 2)):
        lists = listed_in(tmp_path, folder, number, str(tmp_path / "folds" / "classes.txt"))(tmp_path)
        assert (lists.train, lists.val, lists.third) == ([Video("a.mp4", 0)], [Video("b.mp4", 0)], None)
    assert listed_in(tmp_path, "folds", 3, None)(tmp_path).classes == ["x"]
    (tmp_path / "folds" / "testlist03.txt").unlink()
    with refused("data.folds=", "val", "trainlist03.txt"):
        listed_in(tmp_path, "folds", 3, None)
