"""Heads trained on stored features end like those that see pixels."""

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aim.data.stored import features
from aim.engine.loop import frozen
from aim.engine.run.settings import Run
from aim.ground import config, files
from aim.ground.paths import cache_folder
from aim.ground.signals import INTERRUPTED
from aim.models.classifier import VideoClassifier
from tests.messages import refused
from tests.toy import OWN, TOY, evaluate, exits, journal, killed_at, run, weights

pytestmark = pytest.mark.usefixtures("toy_cache")

# Every clip is all frames and all pixels of its video.
PLAIN = [
    *TOY, "clip.num_frames=9", "clip.sampling=dense", "augment.area=[1,1]", "augment.ratio=[1,1]", "augment.flip=0",
    "train.epochs=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def empty(toy_cache: Path) -> None:
    shutil.rmtree(toy_cache / "features", ignore_errors=True)


def seen(patch: pytest.MonkeyPatch) -> list[int]:
    """The clips of each pass through the trunk, without the zeros that measure its features."""
    found = list[int]()
    original = VideoClassifier.frozen

    def frozen(self: VideoClassifier, video: torch.Tensor) -> torch.Tensor:
        if video.any():
            found.append(len(video))
        return original(self, video)

    patch.setattr(VideoClassifier, "frozen", frozen)
    return found


@pytest.mark.parametrize("adapter", ["none", "attentive_probe", "probe", "side"])
def test_without_random_augmentation_the_run_is_that_on_pixels(tmp_path: Path, adapter: str) -> None:
    toy = [*PLAIN, f"adapter={adapter}", *(["adapter.ratio=1"] if adapter == "side" else [])]
    expected = run(tmp_path / "pixels", toy=toy)
    found = run(tmp_path / "kept", "train.features=cached", "train.draws=2", toy=toy)
    for line, other in zip(journal(tmp_path / "kept"), journal(tmp_path / "pixels"), strict=True):
        assert line == pytest.approx(other, rel=1e-5)
    for name, tensor in weights(tmp_path / "pixels").items():
        torch.testing.assert_close(weights(tmp_path / "kept")[name], tensor, rtol=1e-4, atol=1e-6)
    assert found["top1"] == expected["top1"]
    assert found["draws"] == 2
    assert "draws" not in expected
    again = evaluate(tmp_path / "kept", tmp_path / "test", toy=toy)
    assert again["top1"] == found["top1"]


def test_features_are_computed_once_for_all_epochs_heads_and_seeds_of_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = [*TOY, "adapter=none", "train.features=cached", "train.draws=3"]
    expected = config.build(config.compose(cached), Run).kept_gb(24)
    clips = seen(monkeypatch)
    first = run(tmp_path / "a", toy=cached)
    assert sum(clips) == 3 * 24 + 16  # draws of the training videos; the view of validation and test
    assert "24 of 24 videos x 3" in capsys.readouterr().out
    tensors = [load_file(path)["features"] for path in (cache_folder() / "features").rglob("*.safetensors")]
    assert sum(each.nbytes for each in tensors if len(each) == 3) == pytest.approx(expected * features.GB)
    clips.clear()
    again = run(tmp_path / "b", "optim.lr=1e-4", "dropout=0.1", toy=cached)
    assert not clips
    same = run(tmp_path / "c", toy=cached)
    assert (same["top1"], journal(tmp_path / "c")) == (first["top1"], journal(tmp_path / "a"))
    assert again["config_hash"] != first["config_hash"]
    run(tmp_path / "d", "adapter=attentive_probe", toy=cached)  # reads tokens, not pooled frames
    assert clips


def test_a_video_with_another_content_gets_features_of_its_own(tmp_path: Path) -> None:
    for name, content in (("a", b"1" * 200_000), ("b", b"1" * 200_000), ("c", b"1" * 199_999 + b"2")):
        (tmp_path / name).write_bytes(content)
    videos = [features.Video(name, 0) for name in "abc"] + [features.Video("a", 0, 0.0, 1.0), features.Video("gone", 0)]
    keys = features.keys_of(tmp_path, videos)
    a, b, c, part = (keys[video] for video in videos[:4])
    assert a == b
    assert len({a, c, part}) == 3
    assert videos[4] not in keys


def test_a_signal_keeps_what_was_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = [*TOY, "adapter=none", "train.features=cached"]
    clips = seen(monkeypatch)
    with monkeypatch.context() as patch:
        original = features.Store.write

        def write(self: features.Store, *args: Any) -> None:
            original(self, *args)
            patch.setattr("aim.ground.signals.Stop.__bool__", lambda _: True)

        patch.setattr(features.Store, "write", write)
        with exits(INTERRUPTED):
            run(tmp_path, toy=cached)
    before = sum(clips)
    run(tmp_path, toy=cached)
    assert 0 < before < 24 * 4
    assert sum(clips) - before < 24 * 4 + 32
    killed_at(0, tmp_path / "other", toy=cached)  # everything is there


def test_room_is_made_of_stores_that_nobody_holds(tmp_path: Path) -> None:
    stores = [features.Store(tmp_path / "features" / name) for name in "abc"]
    for store in stores:
        with store.held():
            store.write("0" * 32, torch.zeros(2, 500), torch.zeros(2, 2).numpy())
    used = features.bytes_in(tmp_path)
    with stores[2].held(), refused("train.features_gb"):
        stores[2].make_room(used, used - 1)
    assert all(store.folder.exists() for store in stores)  # it would have been in vain
    with stores[0].held(), stores[2].held():
        stores[2].make_room(1, used)
        assert [store.folder.exists() for store in stores] == [True, False, True]
        with refused("train.features_gb", "train.draws", "AIM_CACHE", "train.features=computed"):
            stores[2].make_room(used, used)
    assert stores[0].read("0" * 32, [1])[0].shape == (1, 500)


def test_a_store_that_is_deleted_as_it_is_locked_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, lock, calls = features.Store(tmp_path / "a"), fcntl.flock, list[int]()

    def deleted_first(file: Any, how: int) -> None:
        calls.append(how)
        if len(calls) == 1:
            shutil.rmtree(store.folder)  # another job, which held it before
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", deleted_first)
    with store.held():
        store.write("0" * 32, torch.zeros(2, 5), torch.zeros(2, 2).numpy())
        assert not features.is_idle(store.folder, remove=True)
        assert store.has("0" * 32)
    assert calls == [fcntl.LOCK_SH] * 2 + [fcntl.LOCK_EX | fcntl.LOCK_NB]


def test_what_a_killed_write_left_is_deleted_and_a_write_under_way_is_not(tmp_path: Path) -> None:
    store = features.Store(tmp_path / "a")
    old, new = (files.temporary_of(store.place("0" * 32), writer) for writer in ("killed", "writing"))
    with store.held():
        for part in (old, new):
            part.parent.mkdir(exist_ok=True)
            part.touch()
        os.utime(old, (0, 0))
        store.make_room(1, 100)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_store_that_cannot_be_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = features.Store(tmp_path / "a")
    with store.held():
        store.write("0" * 32, torch.zeros(2, 5), torch.zeros(2, 2).numpy())
    monkeypatch.setattr(os, "access", lambda *_: False)
    for _ in ("with its lock", "without"):
        with store.held():
            assert store.has("0" * 32)
            with refused(str(store.folder), "AIM_CACHE=DIR", "train.features=computed"):
                store.make_room(1, 100)
        (store.folder / features.LOCK).unlink(missing_ok=True)
    assert not (store.folder / features.LOCK).exists()


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["adapter=aim_demo"], ["train.features=cached", "adapter=none"]),
        (["adapter=none", "train.mixup=0.8"], ["train.features=cached", "train.mixup"]),
        (["adapter=none", "train.clips_per_video=8"], ["train.clips_per_video=8", "train.draws=8"]),
        (["adapter=none", "train.features_gb=1e-9"], ["train.features_gb", "train.features=computed"]),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, overrides: list[str], expected: list[str]) -> None:
    with refused(*expected):
        run(tmp_path, "train.features=cached", *overrides)


def test_a_damaged_file_is_named_and_one_that_is_cut_off_is_computed_again(
    tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = [*TOY, "adapter=none", "train.features=cached", "train.epochs=1"]
    expected = run(tmp_path / "a", toy=cached)
    first, other = sorted((toy_cache / "features").rglob("*.safetensors"))[:2]
    first.write_bytes(first.read_bytes()[:50])
    clips = seen(monkeypatch)
    assert run(tmp_path / "b", toy=cached)["top1"] == expected["top1"]
    assert 0 < sum(clips) <= 8  # one batch
    content = other.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    other.write_bytes(content[:header] + bytes(len(content) - header))
    with refused(str(other)):
        run(tmp_path / "c", toy=cached)


def test_a_trunk_that_came_with_a_checkpoint_has_features_of_its_own(tmp_path: Path) -> None:
    """Random weights have no file, and so no fingerprint."""
    toy = [*TOY, "adapter=none", "train.epochs=1"]
    run(tmp_path / "other", "seed=1", toy=toy)
    run(tmp_path / "plain", "train.features=cached", toy=toy)
    stores = len(list((cache_folder() / "features").iterdir()))
    run(tmp_path / "begun", "train.features=cached", f"init={tmp_path / 'other' / 'best.safetensors'}", toy=toy)
    assert len(list((cache_folder() / "features").iterdir())) > stores


def test_what_was_skipped_once_is_skipped_again(tmp_path: Path, toy_cache: Path) -> None:
    config.build(config.compose(TOY), Run).load_lists()
    folder = Path(shutil.copytree(next(toy_cache.glob("moving_shapes_*")), tmp_path / "data"))
    for path in sorted((folder / "train").rglob("*.mp4"))[:2]:
        path.write_bytes(b"garbage")
    settings = ["adapter=none", "train.features=cached", f"data.root={folder}", "data.num_classes=8"]
    toy = [*OWN, *settings, "data.on_error=skip", "data.max_bad=0.2", "train.epochs=1"]
    run(tmp_path / "a", toy=toy)
    run(tmp_path / "b", "optim.lr=1e-3", toy=toy)
    with refused("data.max_bad=0.05", "2", "24"):
        run(tmp_path / "c", "data.max_bad=0.05", toy=toy)


def test_a_run_is_checked_with_what_auto_came_to(tmp_path: Path) -> None:
    with refused("train.clips_per_video=8", "train.draws=8"):
        run(tmp_path, "adapter=none", "train.features=auto", "train.clips_per_video=8")


def test_auto_keeps_what_only_reads_the_trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen, "computed", lambda *_: pytest.fail("kept"))
    run(tmp_path / "aim", "train.features=auto", "train.epochs=1")
    run(tmp_path / "large", "train.features=auto", "adapter=side", "train.features_gb=1e-3", "train.epochs=1")
    run(tmp_path / "mixed", "train.features=auto", "adapter=none", "train.mixup=0.8", "train.epochs=1")
    with pytest.raises(pytest.fail.Exception):
        run(tmp_path / "none", "train.features=auto", "adapter=none")


def test_few_features_are_read_from_the_disk_once_and_never_by_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = [*TOY, "adapter=none", "train.features=cached", "train.draws=2", "train.epochs=3", "train.eval_every=1"]
    expected = run(tmp_path / "a", toy=cached)
    opened = list[str]()
    original = features.Store._read

    def read(self: features.Store, key: str, rows: list[int] | slice) -> Any:
        opened.append(key)
        return original(self, key, rows)

    monkeypatch.setattr(features.Store, "_read", read)
    monkeypatch.setattr("aim.data.loading.loader.Pool", lambda *_: pytest.fail("no process is needed"))
    assert run(tmp_path / "b", "data.workers=1", toy=cached)["top1"] == expected["top1"]
    assert journal(tmp_path / "b") == journal(tmp_path / "a")
    assert len(opened) == len(set(opened)) == 24 + 16
    monkeypatch.setattr(frozen, "IN_MEMORY", 1)
    with pytest.raises(pytest.fail.Exception):
        run(tmp_path / "c", "data.workers=1", toy=cached)
