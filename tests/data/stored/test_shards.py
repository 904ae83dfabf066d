import io
import shutil
import subprocess
import tarfile
from pathlib import Path
from urllib.parse import unquote

import pytest

from aim.data.lists import Lists, Stored, Video, data_hash, ordered_hash
from aim.data.readers.interface import Part
from aim.data.stored import shards
from tests.messages import refused

CONTENT = {"a/1 x.mp4": b"one" * 300, "b/Élan.v2.mp4": b"two" * 400, "b/3.webm": b"3"}


def write_tar(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1000
            tar.addfile(info, io.BytesIO(content))
    return path


def write_index(shard: Path) -> None:
    shards.index_of(shard).write_text(shards.format_index(shard.stat().st_size, shards.scan(shard)), encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two shards of three videos, one of them with an index."""
    samples = {name: content for path, content in CONTENT.items() for name, content in sample(path, content)}
    first = {name: content for name, content in samples.items() if name.startswith("a")}
    write_index(write_tar(tmp_path / "train-000000.tar", first))
    write_tar(tmp_path / "val-000000.tar", {name: samples[name] for name in samples if name not in first})
    return tmp_path


def sample(path: str, content: bytes) -> list[tuple[str, bytes]]:
    name = shards.member_name(path)
    return [(name, content), (f"{shards.key_of(name)}.cls", b"0")]


LISTS = Lists([Video("a/1 x.mp4", 0)], [Video("b/Élan.v2.mp4", 1), Video("b/3.webm", 0, 1.0, 2.0)], ["a", "b"])


def content(root: Path, video: Video) -> bytes:
    part = shards.source_of(root, video)
    assert isinstance(part, Part)
    return part.file.read_bytes()[part.offset : part.offset + part.size]


def test_listed_videos_are_found_in_shards_with_an_index_and_without(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lists = shards.located(root, LISTS)
    for video in (*lists.train, *lists.val):
        assert content(root, video) == CONTENT[video.path]
    assert [record.message for record in caplog.records] == [
        f"{root}/val-000000.tar has no index and is read through; aim.prepare data.root=DIR writes it"
    ]
    assert str(shards.source_of(root, lists.train[0])) == f"{root}/train-000000.tar/a/1 x.mp4"


def test_lists_that_say_where_videos_lie_are_not_looked_for_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading shards without an index takes long."""
    lists = shards.located(root, LISTS)
    monkeypatch.setattr(shards, "entries", lambda shard: pytest.fail("read again"))
    assert shards.located(root, lists) == lists


def test_where_a_video_lies_is_no_part_of_what_it_is(root: Path) -> None:
    lists = shards.located(root, LISTS)
    assert lists != LISTS
    for identify in (data_hash, ordered_hash):
        assert identify(lists.val, lists.classes) == identify(LISTS.val, LISTS.classes)


def test_folders_of_files_are_left_alone(root: Path) -> None:
    for path in CONTENT:
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).touch()
    assert shards.located(root, LISTS) == LISTS


def test_a_listed_video_that_no_shard_has_stays_a_file(root: Path) -> None:
    lists = shards.located(root, Lists([*LISTS.train, Video("a/4.mp4", 0)], LISTS.val, LISTS.classes))
    assert lists.train[1].stored is None


@pytest.mark.parametrize("name", ["1.mp4", "a/1.2.3.mp4", "a.b/100%.mp4", "a/%2E.mp4", "Élan/..x.webm"])
def test_names_in_shards_have_one_dot_and_lead_back(name: str) -> None:
    member = shards.member_name(name)
    assert unquote(member) == name
    assert member.rpartition("/")[2].count(".") == 1
    assert shards.key_of(member) == member.rpartition(".")[0]


@pytest.mark.parametrize(
    "name", ["a\nb.mp4", "a\rb.mp4", "a\tb.mp4", '"a".mp4', "a\udcffb.mp4", " a .mp4", "\u2028.mp4"]
)
def test_an_index_holds_any_name(tmp_path: Path, name: str) -> None:
    write_index(shard := write_tar(tmp_path / "x.tar", {shards.member_name(name): b"a"}))
    assert [entry.path for entry in shards.read_index(shard, shards.index_of(shard))] == [name]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, "tar"])
def test_a_scan_finds_the_bytes_in_tars_of_any_format(tmp_path: Path, form: int | str) -> None:
    files = {f"{'long/' * 40}Élan.mp4": b"a" * 1000, "./b.avi": b"b" * 512, "c.mp4": b""}
    if form == "tar":
        for name, data in files.items():
            (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "files" / name).write_bytes(data)
        shard = tmp_path / "x.tar"
        subprocess.run(["tar", "cf", shard, "-C", tmp_path / "files", "."], check=True)
    else:
        shard = write_tar(tmp_path / "x.tar", files, int(form))
    found = {e.path: shard.read_bytes()[e.offset : e.offset + e.size] for e in shards.scan(shard)}
    assert found == {name.removeprefix("./"): data for name, data in files.items()}


def test_labels_are_those_of_cls_before_json(tmp_path: Path) -> None:
    files = {
        "1.mp4": b"", "1.json": b'{"label": "wrong"}', "1.cls": b" 7\n",
        "2.json": b'{"width": 3, "cls": 4}', "2.mp4": b"", "3.mp4": b"", "3.json": b"{", "4.mp4": b"", "4.json": b"[1]",
        ".5.mp4": b"", "6.txt": b"a caption", "7.rgb.MP4": b"", "7.json": b'{"label": "a\\tb"}',
    }  # fmt: skip
    found = {entry.path: entry.label for entry in shards.scan(write_tar(tmp_path / "x.tar", files))}
    assert found == {"1.mp4": "7", "2.mp4": "4", "3.mp4": "", "4.mp4": "", "7.rgb.MP4": "a b"}


def cut(root: Path) -> None:
    shard = root / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:700])


def cut_without_index(root: Path) -> None:
    cut(root)
    shards.index_of(root / "train-000000.tar").unlink()


def foreign_index(root: Path) -> None:
    write_index(root / "val-000000.tar")
    shutil.copy(shards.index_of(root / "val-000000.tar"), shards.index_of(root / "train-000000.tar"))


def missing(root: Path) -> None:
    (root / "train-000000.tar").unlink()


def foreign_index_of_equal_size(root: Path) -> None:
    index = shards.index_of(root / "train-000000.tar")
    index.write_text(index.read_text().replace("\n512\t", "\n1024\t"))


def cut_index(root: Path) -> None:
    index = shards.index_of(root / "train-000000.tar")
    index.write_text(index.read_text().partition("\n")[0])


def no_index(root: Path) -> None:
    shards.index_of(root / "train-000000.tar").write_bytes(b"\xff\xfe\x00")


def not_a_tar(root: Path) -> None:
    (root / "val-000000.tar").write_bytes(b"PK" * 600)


def in_two_shards(root: Path) -> None:
    shutil.copy(root / "train-000000.tar", root / "train-000001.tar")


def twice_in_one(root: Path) -> None:
    with tarfile.open(root / "val-000000.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("b/3.webm"))


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (cut, ["train-000000.tar", "700", "10240", "aim.prepare"]),
        (missing, ["/train-000000.tar", "missing", "0", "aim.prepare"]),
        (cut_without_index, ["train-000000.tar", "damaged", "plain"]),
        (foreign_index, ["train-000000.tar", "1200", "aim.prepare"]),
        (foreign_index_of_equal_size, ["train-000000.tar", "900", "1024"]),
        (cut_index, ["tar.tsv", "0", "1", "aim.prepare"]),
        (no_index, ["train-000000.tar.tsv", "index"]),
        (not_a_tar, ["val-000000.tar", "damaged"]),
        (in_two_shards, ["a/1 x.mp4", "train-000000.tar", "train-000001.tar"]),
        (twice_in_one, ["val-000000.tar", "b/3.webm"]),
    ],
)  # fmt: skip
def test_what_is_damaged_or_double_is_said_in_a_line(root: Path, harm: object, expected: list[str]) -> None:
    harm(root)
    with refused(*expected) as caught:
        shards.located(root, LISTS)
    assert "\n" not in str(caught.value)


def test_a_place_is_told_by_shard_where_two_count_from_zero(tmp_path: Path) -> None:
    for split, data in (("train", b"t"), ("val", b"v")):
        write_tar(tmp_path / split / "000.tar", {"0.mp4": data})
    places = shards.Places(tmp_path, shards.find(tmp_path))
    assert places["train/000/0.mp4"] == Stored("train/000.tar", 512, 1)
    assert sorted(places.named()) == ["train/000/0.mp4", "val/000/0.mp4"]
