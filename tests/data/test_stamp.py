import os
from pathlib import Path

import pytest

from aim.data.readers.interface import Part, Source
from aim.data.stamp import ENDS, differs_in_time_alone, stamp_of, stamps_of


def written(path: Path, content: bytes, when: int = 10**18 + 1) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(when, when))
    return path


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + b"!" + content[at + 1 :]


@pytest.mark.parametrize("size", [0, 1, ENDS, ENDS + 1, 2 * ENDS, 5 * ENDS])
def test_a_stamp_is_of_size_time_first_and_last_bytes(tmp_path: Path, size: int) -> None:
    path, content = tmp_path / "a.mp4", os.urandom(size)
    before = stamp_of(written(path, content))
    assert stamp_of(written(path, content)) == before
    others = [stamp_of(written(path, content, 10**18)), stamp_of(written(path, content + b"!"))]
    places = {0, ENDS - 1, size - ENDS, size - 1} & set(range(size))
    others += [stamp_of(written(path, changed(content, at))) for at in places]
    assert len({before, *others}) == 3 + len(places)
    assert [differs_in_time_alone(before, other) for other in (before, *others)] == [False, True] + [False] * (
        1 + len(places)
    )


def test_no_more_than_the_ends_are_read(tmp_path: Path) -> None:
    content = bytes(5 * ENDS)
    before = stamp_of(written(tmp_path / "a.mp4", content))
    assert stamp_of(written(tmp_path / "a.mp4", changed(content, 2 * ENDS))) == before  # whose time is set back


def test_a_part_of_a_file_has_a_stamp_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", b"abcabc")
    stamps = [stamp_of(Part(path, offset, 3, "x.mp4")) for offset in (0, 1, 3)]
    assert stamps[0] == stamps[2] != stamps[1]
    assert stamps[0] == stamp_of(written(tmp_path / "x.mp4", b"abc"))


@pytest.mark.parametrize("change", ["first", "middle", "last", "time", "name", "more"])
def test_a_folder_of_pictures_has_a_stamp(tmp_path: Path, change: str) -> None:
    names = [f"{i}.png" for i in range(5)]
    for name in names:
        written(tmp_path / name, name.encode())
    before = stamp_of(tmp_path)
    assert stamp_of(tmp_path) == before
    match change:
        case "first" | "last":
            written(tmp_path / names[0 if change == "first" else -1], b"#.png")
        case "middle":
            written(tmp_path / names[2], b"other.png")
        case "time":
            written(tmp_path / names[2], names[2].encode(), 10**18)
        case "name":
            (tmp_path / names[2]).rename(tmp_path / "9.png")
        case _:
            written(tmp_path / "6.png", b"")
    assert stamp_of(tmp_path) != before


def test_a_link_has_the_stamp_of_what_it_leads_to(tmp_path: Path) -> None:
    link = tmp_path / "link.mp4"
    stamps = []
    for name in "ab":
        link.unlink(missing_ok=True)
        link.symlink_to(written(tmp_path / name, name.encode()))
        stamps.append(stamp_of(link))
    assert stamps == [stamp_of(tmp_path / name) for name in "ab"]
    assert stamps[0] != stamps[1]


def test_what_cannot_be_read_has_none_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    there = written(tmp_path / "a.mp4", b"a")
    sources: list[Source] = [tmp_path / "pipe.mp4", there, tmp_path / "none.mp4"]
    assert list(stamps_of(sources)) == [None, stamp_of(there), None]
