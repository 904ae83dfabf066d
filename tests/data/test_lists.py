import itertools
from pathlib import Path

import pytest

from aim.data.class_folders import ClassFolders
from aim.data.lists import (
    ListFiles,
    Video,
    check_present,
    data_hash,
    read_classes,
    read_list,
    share_of,
    write_list,
)
from tests.messages import refused

FILES = ListFiles("train.txt", "val.txt", "classes.txt")
ABC = ["a", "b", "c"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def test_a_list_is_read_as_the_contract_says(tmp_path: Path) -> None:
    text = "a.mp4 0\nwith a space/日本 1.mp4 2\n\nseg ment.mkv\t1.5\t4\t1\n"
    expected = [Video("a.mp4", 0), Video("with a space/日本 1.mp4", 2), Video("seg ment.mkv", 1, 1.5, 4.0)]
    assert read_list(write(tmp_path / "unix.txt", text), ABC) == expected
    assert read_list(write(tmp_path / "windows.txt", "\ufeff" + text.replace("\n", "\r\n")), ABC) == expected


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    videos = [Video("a b.mp4", 3), Video("c.mp4", 0, 0.25, 7.5)]
    write_list(tmp_path / "list.txt", videos)
    assert read_list(tmp_path / "list.txt", ["a", "b", "c", "d"]) == videos
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.mp4 0\nb.mp4\n", ["list.txt:2", "'b.mp4'"]),
        ("a.mp4 0\nb.mp4 7\n", ["list.txt:2", "7", "3", "0", "2"]),
        ("a.mp4 -1\n", ["list.txt:1", "'a.mp4 -1'"]),
        ("a.mp4\t5\t2\t1\n", ["list.txt:1", "5.0", "2.0"]),
        ("\n", ["list.txt", "video", "data/README.md"]),
        ("".join(f"{i}.mp4\n" for i in range(9)), ["list.txt:1", "'0.mp4'", "list.txt:3", "6"]),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, expected: list[str]) -> None:
    with refused(*expected):
        read_list(write(tmp_path / "list.txt", text), ABC)


def test_both_lists_are_read_before_what_is_wrong_is_said(tmp_path: Path) -> None:
    for name, text in (("classes", "a\n"), ("train", "1.mp4\n"), ("val", "2.mp4 5\n")):
        write(tmp_path / f"{name}.txt", text)
    with refused("train.txt:1", "'1.mp4'", "val.txt:1", "5"):
        FILES(tmp_path)


def test_missing_files_are_all_named_with_where_to_read_on(tmp_path: Path) -> None:
    with refused("data.root=", "nowhere", "data/README.md"):
        FILES(tmp_path / "nowhere")
    write(tmp_path / "train.txt", "a.mp4 0\n")
    with refused("classes.txt", "val.txt", "data/README.md"):
        FILES(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\na\n", ["classes.txt:3", "'a'"]),
        ("", ["classes.txt", "empty", "names"]),
        ("a\n\nb", ["classes.txt:2", "empty"]),
    ],
)
def test_class_names_are_checked(tmp_path: Path, text: str, expected: list[str]) -> None:
    with refused(*expected):
        read_classes(write(tmp_path / "classes.txt", text))


def test_a_list_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.mp4 0\n")
    with refused("list.txt", "UTF-8"):
        read_list(tmp_path / "list.txt", ["a"])


def test_class_folders_are_split_reproducibly_and_nothing_is_written(tmp_path: Path) -> None:
    for name, count in (("jump", 10), ("run fast", 5), ("rare", 1)):
        for i in range(count):
            write(tmp_path / name / f"{i}.MP4", "")
    write(tmp_path / "jump" / "notes.txt", "")
    write(tmp_path / ".hidden" / "x.mp4", "")
    before = sorted(tmp_path.rglob("*"))
    lists = ClassFolders(val_share=0.2)(tmp_path)
    assert lists == ClassFolders(val_share=0.2)(tmp_path)
    assert lists.classes == ["jump", "rare", "run fast"]
    assert [sum(v.label == i for v in lists.val) for i in range(3)] == [2, 0, 1]
    assert len(lists.train) + len(lists.val) == 16
    assert not {v.path for v in lists.train} & {v.path for v in lists.val}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_new_video_moves_no_other_between_the_halves(tmp_path: Path) -> None:
    for name in "ab":
        for i in range(40):
            write(tmp_path / name / f"{i}.mp4", "")
    before = {v.path for v in ClassFolders(0.25)(tmp_path).val}
    write(tmp_path / "a" / "new.mp4", "")
    after = {v.path for v in ClassFolders(0.25)(tmp_path).val}
    assert len(before ^ after) <= 2


def test_train_and_val_folders_and_list_files_are_taken_as_they_are(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in "ab":
            write(tmp_path / split / name / f"{split}.mp4", "")
    lists = ClassFolders(0.5)(tmp_path)
    assert lists.val == [Video("val/a/val.mp4", 0), Video("val/b/val.mp4", 1)]
    write(tmp_path / "train.txt", "x.mp4 0\n")
    write(tmp_path / "val.txt", "y.mp4 1\n")
    write(tmp_path / "classes.txt", "p\nq\n")
    assert ClassFolders(0.5)(tmp_path).classes == ["p", "q"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a/1.mp4"], ["1", "folders"]),
        (["a/1.mp4", "b/2\n.mp4"], ["b/2", "UTF-8"]),
        (["a/1.mp4", "b/caf\udce9.mp4"], ["b/caf\\udce9.mp4", "UTF-8"]),
        (["train/a/1.mp4", "train/b/1.mp4", "val/c/1.mp4"], ["classes", "train", "c"]),
        (["a/1.mp4", "b/1.mp4"], ["validation", "val"]),
    ],
)
def test_folders_that_make_no_data_set_are_refused(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    for name in files:
        write(tmp_path / name, "")
    with refused(*expected):
        ClassFolders(0.5)(tmp_path)


@pytest.mark.parametrize("held_out", ["val", "validation", "valid", "test"])
def test_the_folder_beside_train_has_several_names(tmp_path: Path, held_out: str) -> None:
    for name in ("train/a/1.mp4", "train/b/2.mp4", f"{held_out}/a/3.mp4", f"{held_out}/b/4.mp4"):
        write(tmp_path / name, "")
    lists = ClassFolders(0.2)(tmp_path)
    assert lists.classes == ["a", "b"]
    assert [video.path for video in lists.val] == [f"{held_out}/a/3.mp4", f"{held_out}/b/4.mp4"]


def test_a_name_may_hold_what_unicode_calls_the_end_of_a_line(tmp_path: Path) -> None:
    videos = [Video("a/one\u2028two\x85.mp4", 0)]
    write_list(tmp_path / "train.txt", videos)
    assert read_list(tmp_path / "train.txt", ["a"]) == videos


def test_a_wrong_root_is_found_from_a_sample_of_paths(tmp_path: Path) -> None:
    videos = [Video(f"{i}.mp4", 0) for i in range(1000)]
    with refused("64", "0.mp4", "data.root", "data/README.md"):
        check_present(tmp_path, videos)
    for video in videos[:600]:
        write(tmp_path / video.path, "")
    check_present(tmp_path, videos)


def test_the_hash_knows_order_of_classes_and_content_but_not_order_of_lines() -> None:
    videos = [Video("a.mp4", 0), Video("b.mp4", 1)]
    expected = data_hash(videos, ["x", "y"])
    assert data_hash(videos[::-1], ["x", "y"]) == expected
    assert data_hash(videos, ["y", "x"]) != expected
    assert data_hash([Video("a.mp4", 1), videos[1]], ["x", "y"]) != expected
    # By hand, with the shell's tool: printf 'a.mp4 0\nb.mp4 1\nx\ny' | sha256sum
    assert expected == "f5fcb60dca1f9d019c509acf97fe4b3b02830d92b519c7c106f80555a47532ee"


def test_a_share_is_of_each_class_and_inside_of_larger_ones() -> None:
    videos = [Video(f"{label}/{i}.mp4", label) for i in range(40) for label in (0, 1)] + [Video("rare.mp4", 2)]
    shares = {share: share_of(videos, share) for share in (0.01, 0.05, 0.1, 0.5, 1.0)}
    counts = {share: [sum(v.label == label for v in part) for label in range(3)] for share, part in shares.items()}
    assert counts == {0.01: [1, 1, 1], 0.05: [2, 2, 1], 0.1: [4, 4, 1], 0.5: [20, 20, 1], 1.0: [40, 40, 1]}
    sets = list(map(set, shares.values()))
    assert all(smaller < larger for smaller, larger in itertools.pairwise(sets))
    for part in shares.values():
        assert part == [video for video in videos if video in part]  # in the order of the list
    assert set(share_of(videos[::-1], 0.1)) == set(shares[0.1])
    assert shares[0.5] != [*videos[:40], videos[-1]]  # a hash chooses, not the order


def test_a_third_list_is_for_the_test_alone(tmp_path: Path) -> None:
    for name, text in (("classes", "a\nb\n"), ("train", "1.mp4 0\n"), ("val", "2.mp4 1\n")):
        write(tmp_path / f"{name}.txt", text)
    lists = FILES(tmp_path)
    assert (lists.third, lists.test, list(lists.parts)) == (None, lists.val, ["train", "val"])
    write(tmp_path / "test.txt", "3.mp4 1\n")
    lists = FILES(tmp_path)
    assert lists.test == lists.parts["test"] == [Video("3.mp4", 1)]
    assert ClassFolders(0.5)(tmp_path) == lists
    assert ListFiles("train.txt", "val.txt", "classes.txt", test=None)(tmp_path).third is None
    assert ListFiles("train.txt", "test.txt", "classes.txt")(tmp_path).third is None  # it validates
    changed = lists.mapped(lambda videos: videos * 2)
    assert [len(videos) for videos in changed.parts.values()] == [2, 2, 2]
    write(tmp_path / "test.txt", "3.mp4\n")
    with refused("test.txt:1", "'3.mp4'", "rename"):
        FILES(tmp_path)


@pytest.mark.parametrize("held_out", ["val", "valid", "validation"])
def test_a_folder_test_beside_that_of_the_validation_is_a_third_list(tmp_path: Path, held_out: str) -> None:
    for split in ("train", held_out, "test"):
        for name in "ab":
            write(tmp_path / split / name / "1.mp4", "")
    lists = ClassFolders(0.5)(tmp_path)
    assert lists.val == [Video(f"{held_out}/a/1.mp4", 0), Video(f"{held_out}/b/1.mp4", 1)]
    assert lists.test == [Video("test/a/1.mp4", 0), Video("test/b/1.mp4", 1)]
    write(tmp_path / "test" / "c" / "1.mp4", "")
    with refused("test", "c"):
        ClassFolders(0.5)(tmp_path)
