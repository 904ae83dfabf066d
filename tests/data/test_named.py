import os
from contextlib import suppress
from io import StringIO
from pathlib import Path

import av
import pytest
from PIL import Image

from aim.data.named import Input, arriving, find_videos
from aim.data.scanning import STILL, VIDEO_EXTENSIONS, look
from tests.messages import named, refused

NOTHING = StringIO()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b c.MKV", "sub/d.avi", "sub/[e].mp4", "notes.txt", "still.jpg", "film/2.png", "film/10.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(found: list[Input], folder: Path) -> list[str]:
    assert not any(item.problem for item in found)
    return [item.path.relative_to(folder).as_posix() for item in found]


def test_files_folders_and_patterns_name_videos_once_in_their_order(folder: Path) -> None:
    everything = ["a.mp4", "b c.MKV", "sub/[e].mp4", "sub/d.avi"]
    assert names(find_videos(str(folder), NOTHING), folder) == everything
    both = [str(folder / "sub/d.avi"), str(folder)]
    assert names(find_videos(both, NOTHING), folder) == ["sub/d.avi", "a.mp4", "b c.MKV", "sub/[e].mp4"]
    assert names(find_videos(str(folder / "*"), NOTHING), folder) == everything  # pictures and texts aren't meant
    assert names(find_videos(str(folder / "**/*.mp4"), NOTHING), folder) == ["a.mp4", "sub/[e].mp4"]
    assert names(find_videos(str(folder / "sub/[e].mp4"), NOTHING), folder) == ["sub/[e].mp4"]  # a name, no pattern


def test_a_list_comes_from_standard_input(folder: Path) -> None:
    listed = StringIO(f"{folder}/sub/d.avi\n\n{folder}/b c.MKV\n")
    assert names(find_videos("-", listed), folder) == ["sub/d.avi", "b c.MKV"]
    ended_by_zeros = StringIO(f"{folder}/b c.MKV\0{folder}/a.mp4\0")
    assert names(find_videos(["-"], ended_by_zeros), folder) == ["b c.MKV", "a.mp4"]
    of_windows = StringIO(f"\ufeff# a comment\r\n{folder}/sub/d.avi\r\n\r\n")
    assert names(find_videos("-", of_windows), folder) == ["sub/d.avi"]
    with refused("input=-", "empty"):
        find_videos("-", StringIO("\n"))


def test_pictures_are_videos_where_they_move(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    (tmp_path / "in").mkdir()
    for name in ("moves.WEBP", "moves.gif"):
        first.save(tmp_path / "in" / name, save_all=True, append_images=[second])
    for name in ("still.webp", "still.gif"):
        first.save(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.webp").write_bytes(b"RIFF")
    expected = ["in/moves.WEBP", "in/moves.gif"]
    assert names(find_videos(str(tmp_path), NOTHING), tmp_path) == expected
    assert names(find_videos(str(tmp_path / "in/*"), NOTHING), tmp_path) == expected
    assert look(tmp_path).left == {STILL: ["in/broken.webp", "in/still.gif", "in/still.webp"]}
    with refused("still.gif", "reader=frames"):
        find_videos(str(tmp_path / "in/still.gif"), NOTHING)


def test_every_ending_of_a_scan_is_one_that_ffmpeg_reads() -> None:
    known = set[str]()
    for name in av.formats_available:
        with suppress(ValueError):
            known |= av.format.ContainerFormat(name).extensions
    assert {ending.removeprefix(".") for ending in VIDEO_EXTENSIONS} <= known


def piped(*chunks: bytes) -> list[list[str]]:
    """The result of `arriving` for a list written in these parts; files needn't exist."""
    found, (read, end) = list[list[str]](), os.pipe()
    with open(read) as stdin:  # noqa: PTH123 - a descriptor
        os.write(end, chunks[0])
        groups = arriving(stdin)
        for chunk in chunks[1:]:
            found.append([item.name for item in next(groups)])
            os.write(end, chunk)
        os.close(end)
        found += [[item.name for item in group] for group in groups]
    return found


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b"a.mp4\n", b"b.mp4\nc.m", b"p4\n"], [["a.mp4"], ["b.mp4"], ["c.mp4"]]),
        ([b"a.mp4\r\n \n\nb.mp4"], [["a.mp4"], ["b.mp4"]]),  # the last one without an end
        ([b"\xef\xbb\xbfa.mp4\na.mp4\n"], [["a.mp4", "a.mp4"]]),  # of Windows; a line twice is two answers
        ([b"a\nb.mp4\0".replace(b"a\n", b"a"), b"b\nc.mp4\0"], [["ab.mp4"], ["b\nc.mp4"]]),  # find -print0
        ([b"a.mp4\nb\0.mp4\n"], [["a.mp4", "b\0.mp4"]]),
        ([b"\xff.mp4\n"], [["\udcff.mp4"]]),
    ],
    ids=str,
)
def test_a_list_is_read_as_it_comes(chunks: list[bytes], expected: list[list[str]]) -> None:
    assert piped(*chunks) == expected


def test_an_address_is_named_as_it_is_and_no_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b.mp4").touch()
    for address in ("rtsp://cam//1", "HTTP://a.b/c.mp4", "s3://bucket/a*.mp4"):
        found, _ = find_videos([address, str(tmp_path)], NOTHING)
        assert found.name == address
        named(str(found.problem), "ffmpeg", address)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:").mkdir()
    (tmp_path / "a:" / "b.mp4").touch()
    assert find_videos("a://b.mp4", NOTHING)[0].problem is None  # a file's name as well


def test_one_bad_name_does_not_stop_the_others(folder: Path) -> None:
    found = find_videos([str(folder / "nix.mp4"), str(folder / "a.mp4")], NOTHING)
    assert [bool(item.problem) for item in found] == [True, False]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("nix.mp4", ["input=", "nix.mp4", "pattern"]),
        ("*.wmv", ["input=", "*.wmv"]),
        ("film", ["input=", "film", "reader=frames"]),
        ("still.jpg", ["input=", "still.jpg", "reader=frames"]),
    ],
)
def test_what_is_no_video_is_refused_with_what_to_do(folder: Path, named: str, expected: list[str]) -> None:
    with refused(*expected):
        find_videos(str(folder / named), NOTHING)


def test_folders_of_pictures_are_videos_for_the_reader_of_frames(folder: Path) -> None:
    (folder / "still.jpg").unlink()
    assert names(find_videos(str(folder), NOTHING, folders=True), folder) == ["film"]
    with refused("a.mp4", "reader=frames"):
        find_videos(str(folder / "a.mp4"), NOTHING, folders=True)
    with refused("sub", "reader=frames"):
        find_videos(str(folder / "sub"), NOTHING, folders=True)


def test_what_a_folder_has_beside_its_videos_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("sub/._d.avi", ".trash/e.mp4", "film/._2.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / "gone.mp4").symlink_to(folder / "absent.mp4")
    (folder / "sub" / "back").symlink_to(folder)
    assert names(find_videos(str(folder), NOTHING), folder) == ["a.mp4", "b c.MKV", "sub/[e].mp4", "sub/d.avi"]
    named(capsys.readouterr().err, str(folder), "1 (gone.mp4)", "2 (.trash, sub/._d.avi)", "1 (sub/back)", "4")
    assert names(find_videos(str(folder / "film"), NOTHING, folders=True), folder) == ["film"]


def test_links_to_folders_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "film" / "more").symlink_to(folder / "sub")
    assert names(find_videos(str(folder / "film"), NOTHING), folder) == ["film/more/[e].mp4", "film/more/d.avi"]
