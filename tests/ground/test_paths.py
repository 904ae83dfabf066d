import os
import pwd
from io import StringIO
from pathlib import Path

import pytest

from aim.data.named import find_videos
from aim.ground.choices import CONFIGS
from aim.ground.paths import cache_folder, exists, matches, path_of
from aim.shell import words
from tests.messages import refused

ME = pwd.getpwuid(os.getuid())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("~", "/home/of/me"),
        ("~/clips/a.mp4", "/home/of/me/clips/a.mp4"),
        ("~//a.mp4", "/home/of/me/a.mp4"),
        (f"~{ME.pw_name}/a.mp4", f"{ME.pw_dir}/a.mp4"),
        ("~clip.mp4", "~clip.mp4"),
        ("~nosuchuser/videos", "~nosuchuser/videos"),
        ("~\0", "~\0"),
        ("./~/a.mp4", "~/a.mp4"),  # a folder of that name, as it's written
        ("a/~/b", "a/~/b"),
        ("/~", "/~"),
        ("", "."),
    ],
)
def test_a_tilde_is_a_home_only_where_it_is_a_users(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("HOME", "/home/of/me")
    assert str(path_of(text)) == expected


@pytest.mark.parametrize("text", ["https://a.org/b.safetensors", "s3://bucket/run", "file:///a/b", "hf://a"])
def test_an_address_is_refused_as_a_path_unless_something_is_called_so(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with refused(text):
        path_of(text)
    Path(text).mkdir(parents=True)
    assert path_of(text).is_dir()
    for name in ("http:a.mp4", "a/b://c", "C:/videos", "-i.mp4", "1://a"):
        assert path_of(name) == Path(name)


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_home_the_way_out_is_said(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    for key in ("HOME", "USERPROFILE", "AIM_CACHE"):
        monkeypatch.delenv(key, raising=False)
    if value is not None:
        monkeypatch.setenv("HOME", value)
    assert path_of("~") == Path(ME.pw_dir)  # the system knows it

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with refused("~/videos", "HOME=DIR"):
        path_of("~/videos")
    with refused("AIM_CACHE=DIR"):
        cache_folder()
    monkeypatch.setenv("AIM_CACHE", "there")
    assert cache_folder() == Path("there")


def test_a_file_with_a_tilde_is_found_named_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~clip.mp4").touch()
    assert [item[:2] for item in find_videos("~clip.mp4", StringIO())] == [(Path("~clip.mp4"), None)]
    assert words.as_setting(["~clip.mp4"], "input") == ["input='~clip.mp4'"]


def test_no_pattern_of_a_user_is_an_error(tmp_path: Path) -> None:
    for name in ("a/1.mp4", "a/b/2.mp4", ".hidden/3.mp4", "a/.4.mp4", "[odd]/5.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "more").symlink_to(tmp_path / "[odd]")

    def found(pattern: str) -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in matches(tmp_path / pattern)]

    assert found("a/**.mp4") == ["a/1.mp4"]
    assert found("a***/*.mp4") == ["a/1.mp4"]
    assert found("**/*.mp4") == ["[odd]/5.mp4", "a/1.mp4", "a/b/2.mp4"]
    assert found("a/more/**/*.mp4") == ["a/more/5.mp4"]
    assert found("[[]odd]/?.mp4") == ["[odd]/5.mp4"]
    assert found(".h*/*") == [".hidden/3.mp4"]
    for odd in ("[", "[z-a]", "[!", "**", "*" * 300, "?/\n", "a/1.mp4/*", "nowhere/*", "\\", "[]]", "(*", "*/" * 60):
        found(odd)


def test_what_the_system_refuses_is_one_line_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for odd in ("n" * 300, "a\0b"):
        assert not exists(Path(odd))
        assert words.checked([f"input=[{odd},{odd}]"], "predict") == [f"input=[{odd},{odd}]"]
        with refused(odd):
            find_videos(odd, StringIO())


def test_every_path_of_a_setting_goes_through_the_helper() -> None:
    folder = CONFIGS.parent / "aim"
    own = [
        path for path in folder.rglob("*.py") if any(text in path.read_text() for text in ("expanduser", "Path.home"))
    ]
    assert not own
