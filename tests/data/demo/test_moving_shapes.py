"""Moving shapes: real video files, balanced, in pairs that only the order of frames distinguishes."""

import hashlib
import json
import math
import threading
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from aim.data.demo.moving_shapes import MANIFEST, MovingShapes
from aim.data.demo.shape_clutter import Clutter, film
from aim.data.demo.shape_drawing import Poses, draw_scene, render
from aim.data.demo.shape_motions import PAIRS
from aim.data.lists import Video
from aim.data.sampling import Clip, test_indices
from aim.engine.run.settings import Run
from aim.ground import config
from tests.messages import refused

CONFIGS = Path(__file__).parents[3] / "configs"

SHAPES = MovingShapes(num_train=16, num_val=24, size=32, num_frames=9, seed=0)


def draw_video(*where: int | str) -> np.ndarray:
    """The frames of a plain video, by seed, split, pair, index, number of frames and size."""
    return film(*where, 1, Clutter()).frames()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    SHAPES(root)
    return root


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def partner(path: str) -> str:
    split, name, file = Path(path).parts[-3:]
    other = next(b if name == a else a for a, b in PAIRS[1] if name in (a, b))
    return f"{Path(path).parts[0]}/{split}/{other}/{file}"


def test_the_files_are_h264_videos_in_the_kinetics_layout(root: Path) -> None:
    lists = SHAPES(root)
    assert lists.classes == SHAPES.classes == (root / SHAPES.folder / "classes.txt").read_text().splitlines()
    for split, videos, count in (("train", lists.train, 16), ("val", lists.val, 24)):
        assert len(videos) == count
        assert np.bincount([video.label for video in videos]).tolist() == [count // 8] * 8
        assert len((root / SHAPES.folder / f"{split}.txt").read_text().splitlines()) == count
        for video in videos:
            assert decode(root / video.path).shape == (9, 32, 32, 3)
            assert Path(video.path).parts[-3:-1] == (split, lists.classes[video.label])


def test_a_file_shows_what_was_drawn(root: Path) -> None:
    drawn = draw_video(0, "val", 0, 0, 9, 32).astype(float)
    decoded = decode(root / SHAPES.folder / "val" / "move_right" / "00000.mp4").astype(float)
    assert np.abs(drawn - decoded).mean() < 8  # colours are stored at half the resolution
    assert np.abs(drawn - decoded[::-1]).mean() > 1.5 * np.abs(drawn - decoded).mean()


def test_the_partner_is_the_same_video_backwards_to_the_last_bit(root: Path) -> None:
    lists = SHAPES(root)
    paths = {video.path for video in (*lists.train, *lists.val)}
    for path in paths:
        assert partner(path) in paths
        frames, reverse = decode(root / path), decode(root / partner(path))
        assert np.array_equal(frames, reverse[::-1])
        assert not np.array_equal(frames, reverse)


def test_the_demo_samples_the_same_frames_of_both_directions() -> None:
    settings = yaml.safe_load((CONFIGS / "data" / "demo.yaml").read_text())
    num_frames = settings["lists"]["num_frames"]
    indices = test_indices(num_frames, Clip(num_frames=8, stride_frames=1, size=64, sampling="uniform"), 1)[0]
    assert sorted(num_frames - 1 - indices) == indices.tolist()
    one_more = test_indices(num_frames + 1, Clip(num_frames=8, stride_frames=1, size=64, sampling="uniform"), 1)[0]
    assert sorted(num_frames - one_more) != one_more.tolist()


def test_the_drawing_moves_as_its_class_says() -> None:
    def eye(frames: np.ndarray) -> np.ndarray:
        return np.abs(frames.astype(float) - np.median(frames, axis=0)).sum(-1)  # "t h w": changed pixels

    for index in range(5):
        weight = eye(draw_video(1, "train", 0, index, 17, 64))
        at = (weight.sum(1) * np.arange(64)).sum(1) / weight.sum((1, 2))
        assert at[-1] - at[0] > 5  # to the right
        weight = eye(draw_video(1, "train", 1, index, 17, 64))
        at = (weight.sum(2) * np.arange(64)).sum(1) / weight.sum((1, 2))
        assert at[-1] - at[0] > 5  # down
        frames = draw_video(1, "train", 2, index, 17, 64).astype(int)
        background = draw_video(1, "train", 2, index, 17, 64)[0].astype(int)
        assert np.abs(frames[-1] - background).sum() > np.abs(frames[1] - background).sum()  # grows over more of it


def test_seeds_splits_and_indices_give_different_videos_and_a_seed_the_same() -> None:
    first = draw_video(0, "train", 0, 0, 3, 32)
    assert np.array_equal(first, draw_video(0, "train", 0, 0, 3, 32))
    for other in ((1, "train", 0, 0), (0, "val", 0, 0), (0, "train", 1, 0), (0, "train", 0, 1)):
        assert not np.array_equal(first, draw_video(*other, 3, 32))


def test_the_demo_is_the_videos_and_the_folder_that_it_was_before_it_could_be_made_harder() -> None:
    """The first version's numbers; other ones would rewrite users' videos and change results."""
    found = hashlib.sha256()
    for split in ("train", "val"):
        for pair in range(4):
            for index in (0, 1, 7):
                found.update(draw_video(0, split, pair, index, 17, 64).tobytes())
    assert found.hexdigest() == "61875cc7393701dd75f7d8e94d6244ecf21f07ef39612ca26ab6e691de5cd556"
    shapes = config.build(config.compose(["+experiment=demo"]), Run).data.lists
    assert shapes.folder == "moving_shapes_856498f3"
    assert SHAPES.settings == {"num_train": 16, "num_val": 24, "size": 32, "num_frames": 9, "seed": 0, "version": 2}


def test_complete_files_are_kept_and_incomplete_ones_written_again(tmp_path: Path) -> None:
    shapes = MovingShapes(num_train=8, num_val=8, size=16, num_frames=3, seed=0)
    lists = shapes(tmp_path)
    file = tmp_path / lists.val[3].path
    content, time = file.read_bytes(), file.stat().st_mtime_ns
    assert shapes(tmp_path) == lists
    assert file.stat().st_mtime_ns == time

    for damage in (file.unlink, lambda: file.write_bytes(content[:-1]), (tmp_path / shapes.folder / MANIFEST).unlink):
        damage()
        assert shapes(tmp_path) == lists
        assert file.read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", shapes.folder]


def test_what_an_interrupted_run_left_is_removed_and_never_used(tmp_path: Path) -> None:
    shapes = MovingShapes(num_train=8, num_val=8, size=16, num_frames=3, seed=0)
    (tmp_path / f"{shapes.folder}.tmp123").mkdir()
    (tmp_path / shapes.folder).mkdir()
    (tmp_path / shapes.folder / MANIFEST).write_text(json.dumps({"settings": shapes.settings}))
    assert len(shapes(tmp_path).train) == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", shapes.folder]


def test_other_settings_get_another_folder(tmp_path: Path) -> None:
    one = MovingShapes(num_train=8, num_val=8, size=16, num_frames=3, seed=0)
    two = MovingShapes(num_train=8, num_val=8, size=16, num_frames=3, seed=1)
    assert one(tmp_path).train[0].path != two(tmp_path).train[0].path
    assert (tmp_path / one(tmp_path).train[0].path).is_file()


def test_two_that_start_at_once_get_the_same_complete_files(tmp_path: Path) -> None:
    shapes = MovingShapes(num_train=8, num_val=8, size=16, num_frames=3, seed=0)
    found = []
    threads = [threading.Thread(target=lambda: found.append(shapes(tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert found[0] == found[1]
    assert all((tmp_path / video.path).is_file() for video in (*found[0].train, *found[0].val))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_train": 12}, ["num_train=12"]), ({"num_val": 0}, ["num_val=0"]), ({"size": 31}, ["size=31"])],
)
def test_impossible_settings_are_refused(change: dict[str, int], message: list[str]) -> None:
    settings = {"num_train": 8, "num_val": 8, "size": 16, "num_frames": 3, "seed": 0}
    with refused(*message):
        MovingShapes(**(settings | change))


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refused("data.root=", "file", "videos"):
        MovingShapes(num_train=8, num_val=8, size=16, num_frames=3, seed=0)(tmp_path / "file")


def stills(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fresh images "b h w c", each of its own scene, and their poses "b 4": place and direction."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0.2, 0.8, (2, count))
    angle, radius = rng.uniform(0, 2 * math.pi, count), np.full(count, 0.25)
    images = [
        render(draw_scene(rng, 64), Poses(*(np.float32([value[i]]) for value in (x, y, radius, angle))))[0]
        for i in range(count)
    ]
    poses = np.stack([x, y, np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    return torch.from_numpy(np.stack(images)), torch.from_numpy(poses)


@torch.no_grad()
def explained(trunk: torch.nn.Module) -> torch.Tensor:
    """The share of each pose's variance explained by a ridge regression on class tokens, on fresh images."""
    features, poses = [], []
    for seed, count in ((0, 600), (1, 200)):
        images, pose = stills(count, seed)
        pixels = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        x = trunk.forward_features(pixels)[:, 0]
        features.append(torch.cat([x, torch.ones(count, 1)], dim=1).double())
        poses.append(pose.double())
    (a, b), (y, z) = features, poses
    weight = torch.linalg.solve(a.T @ a + 0.1 * torch.eye(a.shape[1]), a.T @ y)
    return 1 - (b @ weight - z).square().mean(0) / z.var(0)


def test_the_demo_trunk_sees_where_a_shape_is_and_points_and_an_untrained_one_does_not() -> None:
    settings = yaml.safe_load((CONFIGS / "backbone" / "demo.yaml").read_text())
    path = CONFIGS.parent / "aim" / "weights" / "demo_trunk.safetensors"
    assert path.stat().st_size < 8e6
    torch.manual_seed(0)
    untrained = timm.create_model(settings["name"], num_classes=0, **settings["options"]).eval()
    before = explained(untrained)
    untrained.load_state_dict(load_file(path))
    after = explained(untrained)
    assert (after[:2] > 0.9).all()
    assert (after[2:] > 0.6).all()
    assert (before < 0.5).all()


def test_unbalanced_classes_are_those_of_the_same_videos(root: Path) -> None:
    plain = replace(SHAPES, num_train=16)(root)
    found = replace(SHAPES, num_train=16, imbalance=2)(root)
    counts = [sum(video.label == label for video in found.train) for label in range(8)]
    assert counts == [2, 2, 2, 2, 1, 1, 1, 1]
    assert [video for video in plain.train if video in found.train] == found.train
    assert found.val == plain.val
    steep = replace(SHAPES, num_train=1600, imbalance=100)
    assert [steep.kept(Video("a", label)) for label in range(8)] == [200, 200, 43, 43, 9, 9, 2, 2]
    with refused("imbalance=0.5", "1"):
        replace(SHAPES, imbalance=0.5)
