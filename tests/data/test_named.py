from io import StringIO
from pathlib import Path

import pytest

from aim.data.named import Input, find_videos
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
