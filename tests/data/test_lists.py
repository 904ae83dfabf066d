import itertools
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest

from aim.data.labels import Labels, several, single
from aim.data.list_files import ListFiles
from aim.data.lists import (
    NONE,
    Lists,
    Video,
    check_present,
    data_hash,
    format_line,
    ordered_hash,
    quoted,
    read_classes,
    set_apart,
    share_of,
    targets,
)
from aim.data.rows import divided, read_list, video_of
from tests.data.written import write_list
from tests.messages import named, refused

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
        ("a.mp4 0\nb.mp4 " + "9" * 5000, ["list.txt:2"]),  # no number to Python
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


def test_a_table_with_an_unknown_separator_is_told_from_a_list(tmp_path: Path) -> None:
    write(tmp_path / "l.csv", "path:label\na.mp4:hug\n")
    with refused("val.txt", "l.csv", "'path:label'", "data.val=FILE"):
        replace(FILES, train="l.csv")(tmp_path)


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


def test_a_share_of_several_labels_a_video_is_of_the_rarest() -> None:
    """Each set of labels is of one video; 40 have a frequent label, 10 a rarer one as well, 10 none."""
    videos = [Video(f"{i}.mp4", 0, also=((1, 2 + i) if i < 10 else (2 + i,))) for i in range(2)]
    videos += [Video(f"{i}.mp4", 0, also=(1,)) if i < 12 else Video(f"{i}.mp4", 0) for i in range(2, 42)]
    videos += [Video(f"{i}.mp4", NONE) for i in range(42, 52)]
    part = share_of(videos, 0.1)
    assert [sum(video.labels == own for video in part) for own in [(0, 1, 2), (0, 1, 3), (0, 1), (0,), ()]] == [
        1, 1, 1, 3, 1,
    ]  # fmt: skip
    assert len(set_apart(videos, 0.1)[1]) == 5  # neither of the rarest: nothing would be left


LABELS = Labels(["jump", "brush hair", "hair", "air, drumming"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.mp4 jump", Video("a.mp4", 0)),
        ("a b.mp4 brush hair", Video("a b.mp4", 1)),
        ("frames/12 hair", Video("frames/12", 2)),
        ("a.mp4 air, drumming", Video("a.mp4", 3)),
        ("a.mp4\tbrush hair", Video("a.mp4", 1)),
        ("a.mp4\t0\t2\thair", Video("a.mp4", 2, 0.0, 2.0)),
        ("a.mp4,jump", Video("a.mp4", 0)),
        ("  a.mp4   2 ", Video("a.mp4", 2)),
        ('" a\\tb.mp4" jump', Video(" a\tb.mp4", 0)),
        ('"q.mp4 1', Video('"q.mp4', 1)),
    ],
)
def test_a_label_may_be_the_name_of_its_class(line: str, expected: Video) -> None:
    assert video_of(divided(line, LABELS), LABELS) == expected


@pytest.mark.parametrize("labels", ["1 3", "1,3", "1; 3", "jump|hair", "jump, hair"])
def test_several_labels_are_read(labels: str) -> None:
    assert len(video_of(divided(f"a.mp4 {labels}", LABELS), LABELS).labels) == 2


def test_a_class_that_there_is_not_is_named_with_the_nearest() -> None:
    with refused("'jmp'", "jump", error=ValueError):
        divided("a.mp4 jmp", LABELS)


ODD = [
    " a/0.mp4",
    "a /0.mp4",
    "x.mp4 ",
    "a\tb.mp4",
    '"q".mp4',
    "# a.mp4",
    "#",
    "#a.mp4",
    "x.mp4 3",
    "a\nb.mp4",
    "\u2028x",
]


@pytest.mark.parametrize("path", [*ODD, "a\nb.mp4", "back\\slash.mp4", "clip 12", "é.mp4", "x.mp4 3.mp4", "a\x85b.mp4"])
def test_any_path_is_read_as_it_was_written(tmp_path: Path, path: str) -> None:
    videos = [Video(path, 2), Video(path, 1, 0.5, 2.0)]
    write_list(tmp_path / "list.txt", videos)
    assert read_list(tmp_path / "list.txt", ABC) == videos


def test_any_class_is_read_as_it_was_written(tmp_path: Path) -> None:
    classes = [" a", "a", "a ", '"b"', "# c", "d\te", "f, g"]
    write(tmp_path / "classes.txt", "".join(f"{quoted(name)}\n" for name in classes))
    assert read_classes(tmp_path / "classes.txt") == classes
    write(tmp_path / "classes.txt", unicodedata.normalize("NFC", "é\n") + unicodedata.normalize("NFD", "é\n"))
    with refused("classes.txt:2"):
        read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_is_read_whatever_wrote_it(tmp_path: Path, coding: str) -> None:
    (tmp_path / "list.txt").write_bytes("# of é\r\n\r\na.mp4 0\r\n #b.mp4 1\r\n".encode(coding))
    assert read_list(tmp_path / "list.txt", ABC) == [Video("a.mp4", 0), Video("#b.mp4", 1)]


def list_files(root: Path, **texts: str) -> Path:
    for name, text in {"classes": "a\nb\n", "train": "1.mp4 0\n2.mp4 1\n", **texts}.items():
        write(root / f"{name}.txt", text)
    return root


@pytest.mark.parametrize("name", ["Val", "valid", "VALIDATION", "dev", "test", "testing"])
def test_another_usual_name_of_a_list_is_taken(tmp_path: Path, name: str) -> None:
    lists = FILES(list_files(tmp_path, **{name: "3.mp4 b\n"}))
    assert (lists.val, lists.third) == ([Video("3.mp4", 1)], None)
    named(lists.split, "train.txt", f"{name}.txt", "classes.txt")


def test_lists_that_are_not_used_are_named(tmp_path: Path) -> None:
    lists = FILES(list_files(tmp_path, val="3.mp4 0\n", Valid="4.mp4 0\n", TEST="5.mp4 0\n"))
    assert (lists.val, lists.third) == ([Video("3.mp4", 0)], [Video("5.mp4", 0)])
    (note,) = lists.notes
    named(note, "Valid.txt")


def test_a_listed_path_is_found_however_its_accents_are_written(tmp_path: Path) -> None:
    listed, there = (unicodedata.normalize(form, "é/ü 1.mp4") for form in ("NFC", "NFD"))
    write(tmp_path / there, "")
    lists = FILES(list_files(tmp_path, val=f"{listed} 0\nmissing é.mp4 1\n"))
    assert [video.path for video in lists.val] == [there, "missing é.mp4"]
    named(lists.notes[0], "val.txt", listed)


def test_labels_of_the_same_part_of_a_video_are_put_together() -> None:
    videos = [
        Video("a", 2, 0.0, 2.0),
        Video("b", 1),
        Video("a", 0, 0.0, 2.0),
        Video("a", 1, 1.0, 3.0),
        Video("c", NONE),
    ]
    lists = Lists([*videos, Video("b", 1)], [Video("d", 0)], ["x", "y", "z"])
    found = several(lists)
    assert found.train == [Video("a", 0, 0.0, 2.0, also=(2,)), Video("b", 1), Video("a", 1, 1.0, 3.0), Video("c", NONE)]
    assert [video.labels for video in found.train] == [(0, 2), (1,), (1,), ()]
    assert [format_line(video) for video in found.train] == ["a\t0.0\t2.0\t0,2", "b 1", "a\t1.0\t3.0\t1", "c -"]
    assert targets(found.train, 3).tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0], [0, 0, 0]]
    named(found.notes[0], "1")  # overlaps another, and lies in none
    assert ordered_hash(found.train, lists.classes) != ordered_hash(lists.train, lists.classes)
    (note,) = several(replace(lists, train=[Video("a", 1)])).notes
    named(note, "task=single_label")


@pytest.mark.parametrize("video", [Video("k/a.mp4", 0, also=(2,)), Video("k/a.mp4", NONE)])
def test_one_label_a_video_is_checked_with_the_way_out(video: Video) -> None:
    lists = Lists([Video("b", 1)], [Video("b", 1), video], ["x", "y", "z"])
    with refused("val", "k/a.mp4", "task=multi_label"):
        single(lists)
    plain = replace(lists, val=[Video("b", 1)])
    assert single(plain) is plain
    assert targets(plain.train, None).tolist() == [1]
