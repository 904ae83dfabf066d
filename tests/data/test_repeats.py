"""Repeated videos of a data set."""

from pathlib import Path

from aim.data.lists import Stored, Video
from aim.data.repeats import repeats
from aim.data.stamp import ENDS
from tests.messages import named

CLASSES = ["a", "b"]


def written(root: Path, **contents: bytes) -> Path:
    for name, content in contents.items():
        (root / f"{name}.mp4").write_bytes(content)
    return root


def videos(*lines: tuple[str, int]) -> list[Video]:
    return [Video(f"{name}.mp4", label) for name, label in lines]


def test_nothing_is_said_of_videos_that_are_listed_once(tmp_path: Path) -> None:
    written(tmp_path, x=b"1", y=b"2", z=b"3")
    parts = {"training": videos(("x", 0), ("y", 1)), "validation": videos(("z", 0), ("missing", 0))}
    assert repeats(tmp_path, parts, CLASSES, compare=True) == []


def test_videos_in_two_lists_twice_in_one_and_under_two_labels_are_counted(tmp_path: Path) -> None:
    parts = {
        "training": videos(("x", 0), ("y", 1), ("y", 0), ("z", 0), ("z", 0)),
        "validation": videos(("x", 0), ("z", 0), ("w", 1)),
        "test": videos(("w", 1)),
    }
    again, train_val, val_test, torn = repeats(tmp_path, parts, CLASSES, compare=True)
    named(again, "1 (z.mp4)")
    named(train_val, "2", "3", "(x.mp4, z.mp4)")
    named(val_test, "1", "1", "(w.mp4)")
    named(torn, "1 (y.mp4:", "a", "b)")


def test_copies_are_found_by_size_head_and_tail(tmp_path: Path) -> None:
    middle = bytes(3 * ENDS)
    ends = {"x": b"12", "copy": b"12", "tail": b"13", "head": b"02"}
    written(tmp_path, **{name: both[:1] + middle + both[1:] for name, both in ends.items()})
    parts = {"training": videos(("x", 0), ("tail", 0)), "validation": videos(("copy", 1), ("head", 0))}
    both, torn = repeats(tmp_path, parts, CLASSES, compare=True)
    named(both, "1", "2", "(copy.mp4 = x.mp4)")
    named(torn, "1 (copy.mp4:")
    assert repeats(tmp_path, parts, CLASSES, compare=False) == []
    (within,) = repeats(tmp_path, {"training": videos(("x", 0), ("copy", 0))}, CLASSES, compare=True)
    named(within, "1 (x.mp4 = copy.mp4)")


def test_segments_of_a_video_are_videos_of_their_own_in_one_list_alone(tmp_path: Path) -> None:
    one, other = Video("x.mp4", 0, 0.0, 1.0), Video("x.mp4", 1, 1.0, 2.0)
    assert repeats(tmp_path, {"training": [one, other]}, CLASSES, compare=True) == []
    (both,) = repeats(tmp_path, {"training": [one], "validation": [other]}, CLASSES, compare=True)
    named(both, "1", "1", "(x.mp4)")


def test_files_in_shards_are_not_opened(tmp_path: Path) -> None:
    parts = {
        "training": [Video("x.mp4", 0, stored=Stored("0.tar", 0, 1)), Video("y.mp4", 0, stored=Stored("0.tar", 1, 1))]
    }
    assert repeats(tmp_path, parts, CLASSES, compare=True) == []
