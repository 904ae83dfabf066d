import os
import shutil
import subprocess
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
import torch

from aim.data.lists import Lists, Video
from aim.data.stamp import stamp_of
from aim.data.stored import shards
from aim.engine.machine.distributed import World
from aim.engine.run import content
from aim.engine.run.settings import Run
from aim.ground import config
from aim.prepare import packing
from aim.prepare.notes import NAME, Notes
from aim.prepare.packing import Packer
from tests.data.written import write_list
from tests.messages import refused
from tests.prepare.test_notes import exchange
from tests.toy import OWN, file_size_limit, journal, killed_at, run, weights

LISTS = Lists(
    [*(Video(f"a/{i}.mp4", i % 2) for i in range(5)), Video("s.avi", 0, 0.0, 1.0), Video("s.avi", 1, 1.0, 2.0)],
    [Video("a/Élan 9.mkv", 1), Video("a/0.mp4", 0)],
    ["x", "y"],
)
PATHS = {video.path: i for i, video in enumerate((*LISTS.train, *LISTS.val))}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for path, i in PATHS.items():
        (tmp_path / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / path).write_bytes(bytes([i]) * 1000)
        os.utime(tmp_path / "raw" / path, (1000 + i, 1000 + i))
    return tmp_path / "raw"


@pytest.fixture(autouse=True)
def two_videos_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARD_BYTES", 2000)


def pack(source: Path, out: Path, lists: Lists = LISTS) -> list[str]:
    """Pack all that isn't packed yet; returns the newly packed."""
    out.mkdir(exist_ok=True)
    packer = Packer(out, lists, Notes(out, {}), lambda source: None)
    stamps = {path: stamp_of(source / path) for path in PATHS}
    packer.check(stamps)
    left = [path for path in PATHS if not packer.has(path)]
    for path in left:
        packer.add(path, source / path, stamps[path])
    packer.close()
    return left


NAMES = ["train-000000.tar", "train-000001.tar", "train-000002.tar", "val-000000.tar"]


def test_shards_hold_the_videos_and_their_labels_and_tar_reads_them(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(source, out)
    assert sorted(path.name for path in out.iterdir()) == sorted([NAME, *NAMES, *(f"{name}.tsv" for name in NAMES)])
    with tarfile.open(out / NAMES[0]) as tar:
        assert tar.getnames() == ["a/0.mp4", "a/0.cls", "a/1.mp4", "a/1.cls"]
        assert tar.extractfile("a/1.cls").read() == b"1"
        assert tar.getmember("a/1.mp4").mtime == 1001
    (tmp_path / "unpacked").mkdir()
    for name in NAMES:
        subprocess.run(["tar", "xf", out / name, "-C", tmp_path / "unpacked"], check=True)
    for path in PATHS:
        assert (tmp_path / "unpacked" / path).read_bytes() == (source / path).read_bytes()
    assert not (tmp_path / "unpacked" / "s.cls").exists()  # its segments have several labels


def test_lists_find_in_the_shards_what_the_files_held(source: Path, tmp_path: Path) -> None:
    pack(source, tmp_path / "out")
    found = shards.located(tmp_path / "out", LISTS)
    for video in (*found.train, *found.val):
        shard, offset, size = video.stored
        content = (tmp_path / "out" / shard).read_bytes()[offset : offset + size]
        assert content == (source / video.path).read_bytes()


def test_the_same_again_packs_what_is_new(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(source, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert pack(source, out) == []
    (out / NAMES[1]).unlink()
    shards.index_of(out / NAMES[1]).unlink()
    assert pack(source, out) == ["a/2.mp4", "a/3.mp4"]
    assert (out / "train-000003.tar").exists()
    kept = {path: when for path, when in before.items() if path.name.removesuffix(".tsv") not in (NAME, NAMES[1])}
    assert all(path.stat().st_mtime_ns == when for path, when in kept.items())


def test_killed_between_a_shard_and_its_index_it_goes_on(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(source, out)
    index = shards.index_of(out / NAMES[3])
    before = index.read_text(encoding="utf-8")
    index.unlink()
    assert pack(source, out) == []
    assert index.read_text(encoding="utf-8") == before


def test_a_full_disk_leaves_no_half_shard_and_the_same_again_goes_on(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with (
        file_size_limit(1500),
        refused("train-000000.tar", "ulimit", "command"),
    ):
        pack(source, out)
    assert [path.name for path in out.iterdir()] == [NAME]
    assert pack(source, out) == list(PATHS)


def test_another_source_or_label_than_what_was_packed_is_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pack(source, out)
    other = Lists([video._replace(label=0) for video in LISTS.train], LISTS.val, LISTS.classes)
    with refused("a/1.mp4", "1", "delete"):
        pack(source, out, other)
    exchange(source / "a/2.mp4", source / "a/3.mp4")
    with refused("train-000001.tar", "a/2.mp4", "delete", f"{out / 'train-000001.tar'}*"):
        pack(source, out)
    (out / NAME).unlink()  # packed by an earlier version
    with refused("train-000000.tar", "val-000000.tar"):
        pack(source, out)


def test_a_source_that_is_replaced_before_it_is_packed_is_left_out(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    packer = Packer(tmp_path / "out", LISTS, Notes(tmp_path / "out", {}), lambda source: None)
    for path in ("a/1.mp4", "a/2.mp4"):
        stamp = stamp_of(source / path)
        (source / "a/1.mp4").write_bytes(b"x")
        packer.add(path, source / path, stamp)
    packer.close()
    assert packer.replaced == {"a/1.mp4"}
    (shard,) = shards.find(tmp_path / "out")
    assert [entry.path for entry in shards.entries(shard)] == ["a/2.mp4"]


def test_videos_that_would_be_one_sample_are_refused(tmp_path: Path) -> None:
    lists = Lists([Video("a/1.avi", 0), Video("a/1.mkv", 0)], [], ["x"])
    with refused("a/1.avi", "a/1.mkv", "transcode=null"):
        Packer(tmp_path, lists, Notes(tmp_path, {}), lambda source: None)


def packed(root: Path, toy_cache: Path) -> tuple[Path, Path]:
    """Twelve of the toy's videos as a folder, and as shards."""
    for i, path in enumerate(sorted(toy_cache.rglob("*.mp4"))[:12]):
        (root / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / "ab"[i % 2] / f"{i}.mp4")
    videos = [Video(f"{'ab'[i % 2]}/{i}.mp4", i % 2) for i in range(12)]
    lists, out = Lists(videos[:8], videos[8:], ["a", "b"]), root.with_name("shards")
    out.mkdir()
    packer = Packer(out, lists, Notes(out, {}), lambda source: None)
    for video in videos:
        packer.add(video.path, root / video.path, stamp_of(root / video.path))
    packer.close()
    for folder in (root, out):
        write_list(folder / "train.txt", lists.train)
        write_list(folder / "val.txt", lists.val)
        (folder / "classes.txt").write_text("a\nb\n")
    return root, out


def batches(root: Path, start: int, *overrides: str) -> tuple[dict[str, str], list[torch.Tensor]]:
    """The data's identity, and the clips of an epoch from a batch on."""
    settings = config.compose([*OWN, "train.batch_size=2", f"data.root={root}", *overrides])
    run = config.build(config.resolve(settings), Run)
    lists = run.load_lists()
    with closing(run.train_loader(run.train_dataset(lists), World(0, 1, torch.device("cpu")))) as loader:
        return content.of_data(lists), [batch.video.clone() for batch in loader.epoch(3, start)]


@pytest.mark.usefixtures("unbroken")  # whose data are these
def test_shards_are_the_data_that_the_folder_is_in_its_order_from_any_batch_on(toy_cache: Path, tmp_path: Path) -> None:
    root, out = packed(tmp_path / "root", toy_cache)
    cache = [f"data.cache={tmp_path / 'fast'}", "data.cache_gb=0.00001"]
    expected = batches(root, 0)
    for start, overrides in ((0, []), (2, cache), (1, [*cache, "data.workers=1"])):
        same, clips = batches(out, start, *overrides)
        assert same == expected[0]
        assert torch.equal(torch.cat(clips), torch.cat(expected[1][start:]))
    sizes = [path.stat().st_size for path in (tmp_path / "fast").rglob("*.mp4")]
    assert 0 < sum(sizes) <= 10_000


@pytest.mark.slow
@pytest.mark.usefixtures("unbroken")
def test_a_run_that_began_on_a_folder_goes_on_with_its_shards_and_a_cache(toy_cache: Path, tmp_path: Path) -> None:
    root, out = packed(tmp_path / "root", toy_cache)
    toy = [*OWN, "train.batch_size=4"]
    expected = run(tmp_path / "unbroken", f"data.root={root}", toy=toy)
    killed_at(3, tmp_path / "moved", f"data.root={root}", toy=toy)
    found = run(tmp_path / "moved", f"data.root={out}", f"data.cache={tmp_path / 'fast'}", toy=toy)
    assert (found["top1"], found["identity"]) == (expected["top1"], expected["identity"])
    assert journal(tmp_path / "moved") == journal(tmp_path / "unbroken")
    for name, tensor in weights(tmp_path / "unbroken").items():
        assert tensor.equal(weights(tmp_path / "moved")[name])
