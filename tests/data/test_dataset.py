from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aim.data.class_folders import ClassFolders
from aim.data.dataset import Data, VideoDataset
from aim.data.list_files import ListFiles
from aim.data.lists import Video
from aim.data.readers.interface import BadVideo, Pick
from aim.data.readers.pyav import PyAV
from aim.data.sampling import Clip
from aim.data.transforms import Augment, Views
from aim.engine.run.settings import Run
from aim.ground import config
from tests.data.fakes import Fake
from tests.data.test_lists import write
from tests.messages import named, refused
from tests.toy import TOY

CLIP = Clip(num_frames=4, stride_frames=2, size=8, sampling="dense")
AUGMENT = Augment(
    area=(0.3, 1.0), ratio=(0.75, 1.33), flip=0.5, lighting=0.1, color_jitter=0.0,
    rand_augment=2, rand_augment_magnitude=7, erasing=0.25,
)  # fmt: skip


@dataclass(frozen=True)
class Noise(Fake):
    """The frames are a function of the file and their index."""

    def __call__(self, path: str | Path, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        number = int(Path(path).stem) + (1000 if span else 0)
        frames = [np.random.default_rng([number, int(i)]).integers(0, 256, (3, 12, 16)) for i in pick(40)]
        return torch.from_numpy(np.stack(frames).astype(np.uint8))


def dataset(transform: Augment | Views, **changes: object) -> VideoDataset:
    videos = [Video(f"{i}.mp4", 0) for i in range(5)] + [Video("0.mp4", 0, 1.0, 2.0)]
    made = VideoDataset(Path(), videos, Noise(), CLIP, transform, seed=3)
    return replace(made, **changes)


def test_a_sample_is_a_function_of_seed_epoch_and_index() -> None:
    ours, other = dataset(AUGMENT), dataset(AUGMENT, seed=4)
    clip = ours.read(2, 1)
    torch.manual_seed(99)
    torch.rand(3)  # the global generator plays no part, and is left alone
    state = torch.get_rng_state()
    assert torch.equal(ours.read(2, 1), clip)
    assert torch.equal(torch.get_rng_state(), state)
    for different in (ours.read(3, 1), ours.read(2, 2), other.read(2, 1)):
        assert not torch.equal(different, clip)


@pytest.mark.parametrize("transform", [AUGMENT, Views(temporal=2, spatial=3, resize=9)])
def test_shape_tells_what_read_returns(transform: Augment | Views) -> None:
    clips = dataset(transform)
    assert clips.read(0, 0).shape == clips.shape
    assert clips.read(0, 0).dtype == torch.uint8


def test_views_are_temporal_times_spatial_in_this_order() -> None:
    frames = dataset(Views(temporal=1, spatial=1, resize=12), clip=replace(CLIP, size=12))
    whole = dataset(Views(temporal=2, spatial=1, resize=12), clip=replace(CLIP, size=12)).read(0, 0)
    both = dataset(Views(temporal=2, spatial=3, resize=12), clip=replace(CLIP, size=12)).read(0, 0)
    assert len(frames.read(0, 0)) == 1
    assert torch.equal(both[[2, 5]], whole)  # the middle crop is the third


def test_several_clips_of_a_video_differ_and_cost_one_reading() -> None:
    class Counting(Noise):
        calls = 0

        def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
            Counting.calls += 1
            return super().__call__(*args, **kwargs)

    clips = dataset(AUGMENT, clips=3, reader=Counting())
    three = clips.read(0, 0)
    assert three.shape == clips.shape == (3, 4, 3, 8, 8)
    assert Counting.calls == 1
    assert not torch.equal(three[0], three[1])
    assert torch.equal(three, clips.read(0, 0))


def test_a_segment_is_read_by_its_seconds() -> None:
    clips = dataset(Views(temporal=1, spatial=1, resize=8))
    assert not torch.equal(clips.read(0, 0), clips.read(0, 5))


@dataclass(frozen=True)
class Refuses:
    def __call__(self, path: str | Path, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        pick(10)  # it got as far as knowing the length
        raise BadVideo(f"{path}: refused")


def test_what_a_reader_refuses_is_read_by_pyav_with_the_same_frames(shared: Path) -> None:
    root = shared / "videos"
    made = dataset(AUGMENT, root=root, videos=[Video("k400_test.mp4", 0)])
    expected = replace(made, reader=PyAV()).read(1, 0)
    assert torch.equal(replace(made, reader=Refuses()).read(1, 0), expected)


def test_a_file_that_no_reader_reads_is_bad_and_named(shared: Path) -> None:
    broken = dataset(AUGMENT, root=shared / "videos", videos=[Video("corrupted.mp4", 0)], reader=Refuses())
    with refused("corrupted.mp4", "packet", "frames", error=BadVideo):
        broken.read(0, 0)


def data(root: Path, num_classes: int | None = 2) -> Data:
    return Data(
        root=str(root), lists=ListFiles("train.txt", "val.txt", "classes.txt"), num_classes=num_classes,
        directional=False, on_error="skip", eval_on_error="raise", max_bad=0.02, timeout=60.0, workers=0,
    )  # fmt: skip


def test_lists_are_checked_against_the_configs_classes_and_the_disk(tmp_path: Path) -> None:
    for name, text in (("classes", "a\nb\n"), ("train", "1.mp4 0\n2.mp4 1\n"), ("val", "3.mp4 1\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "1.mp4").touch()
    (tmp_path / "2.mp4").touch()
    with refused("1", "3.mp4", "data.root", "data/README.md"):
        data(tmp_path).load()
    with refused("2", "data.num_classes=400", "1", "3.mp4", "data.root"):
        data(tmp_path, 400).load()
    (tmp_path / "3.mp4").touch()
    assert [len(part) for part in (data(tmp_path).load().train, data(tmp_path, None).load().val)] == [2, 1]
    assert len(replace(data(tmp_path, None), share=0.01).load().train) == 2  # one of each class


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_share_is_above_0_and_up_to_1(tmp_path: Path, share: float) -> None:
    with refused(f"data.share={share}", "0", "1"):
        replace(data(tmp_path), share=share)


def test_lists_of_other_names_are_a_setting_for_folders_and_list_files(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for i in range(3):
        write(root / "a" / f"{i}.mp4", "")
    texts = {"classes": "b\na\n", "train": "a/0.mp4 0\n", "val": "a/1.mp4 0\n", "test": "a/2.mp4 0\n"}
    for name, text in texts.items():
        write(root / f"{name}.txt", text)
    write(root / "train_two.txt", "a/2.mp4 a\n")
    write(tmp_path / "val_two.txt", "a/0.mp4 b\n")
    for lists in (ListFiles("train.txt", "val.txt", "classes.txt"), ClassFolders(0.2)):
        made = replace(data(root), lists=lists)
        assert made.load().test == [Video("a/2.mp4", 0)]
        found = replace(made, train="train_two.txt", val=str(tmp_path / "val_two.txt")).load()
        assert list(found.parts.values()) == [[Video("a/2.mp4", 1)], [Video("a/0.mp4", 0)]]
        assert replace(made, test="val.txt").load().third == [Video("a/1.mp4", 0)]
        with refused("train_tow.txt", "val.txt", "data.train=FILE"):
            replace(made, train="train_tow.txt").load()
        with refused("test_two.txt"):
            replace(made, test="test_two.txt").load()
    write(root / "classes_two.txt", "a\nb\n")
    (note,) = replace(data(root), train="train_two.txt", val="val.txt").load().notes
    named(note, f"data.classes={root / 'classes_two.txt'}")
    named_all = replace(data(root), train="train_two.txt", val="val.txt", classes="classes_two.txt").load()
    assert (named_all.notes, named_all.train) == ((), [Video("a/2.mp4", 0)])
    write(root / "train_two.txt", "a/2.mp4 1\n")  # a number, which both could name
    with refused(f"data.classes={root / 'classes_two.txt'}", "data.classes=./classes.txt"):
        replace(data(root), train="train_two.txt", val="val.txt").load()
    for classes, name in (("./classes.txt", "a"), ("classes_two.txt", "b")):
        found = replace(data(root), train="train_two.txt", val="val.txt", classes=classes).load()
        assert found.classes[found.train[0].label] == name
    with refused("data.train=x.txt", "data=folder"):
        replace(data(root), lists=config.build(config.compose(TOY), Run).data.lists, train="x.txt").load()
