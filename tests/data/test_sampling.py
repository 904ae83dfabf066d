import json
import os
from pathlib import Path

import numpy as np
import pytest

from aim.data.sampling import Clip, test_indices, train_indices
from aim.ground import config
from tests.messages import refused


def golden(shared: Path) -> list[tuple[Clip, int, int, list[int]]]:
    """Clip, number of frames, views and indices of every recorded case, AIM_GOLDEN's too."""
    folders = [shared / "golden", *([Path(os.environ["AIM_GOLDEN"])] if os.environ.get("AIM_GOLDEN") else [])]
    cases = []
    for file in sorted(file for folder in folders for file in folder.glob("*.json")):
        recorded = json.loads(file.read_text())
        for case in recorded.get("dense", []):
            clip = Clip(case["clip_len"], case["frame_interval"], 224, "dense")
            cases.append((clip, case["num_frames"], case["num_clips"], case["indices"]))
        for case in recorded.get("uniform", []):
            cases.append((Clip(case["clip_len"], 1, 224, "uniform"), case["num_frames"], 1, case["indices"]))
    return cases


def test_test_indices_are_those_of_the_public_implementation(shared: Path) -> None:
    cases = golden(shared)
    assert len(cases) > 100
    for clip, num_frames, views, indices in cases:
        got = test_indices(num_frames, clip, views)
        assert got.shape == (views, clip.num_frames)
        assert got.dtype == np.int64
        assert got.ravel().tolist() == indices, (clip, num_frames, views)


def test_the_recorded_indices_tell_a_stride_from_another(shared: Path) -> None:
    wrong = 0
    for clip, num_frames, views, indices in golden(shared):
        other = Clip(clip.num_frames, clip.stride_frames + 1, 224, clip.sampling)
        wrong += test_indices(num_frames, other, views).ravel().tolist() != indices
    assert wrong > 50


@pytest.mark.parametrize("num_frames", [1, 7, 127, 128, 129, 300])
def test_train_dense_starts_anywhere_the_clip_fits(num_frames: int) -> None:
    clip = Clip(8, 16, 224, "dense")
    starts = [train_indices(num_frames, clip, np.random.default_rng(i))[0, 0] for i in range(3000)]
    assert set(starts) == set(range(max(num_frames - 127, 1)))


def test_train_dense_keeps_the_stride() -> None:
    got = train_indices(300, Clip(8, 16, 224, "dense"), np.random.default_rng(0), clips=3)
    assert got.shape == (3, 8)
    assert (np.diff(got) == 16).all()
    assert len(np.unique(got[:, 0])) == 3


def test_short_videos_loop_or_repeat_their_last_frame() -> None:
    rng = np.random.default_rng(0)
    assert train_indices(5, Clip(4, 2, 224, "dense", "loop"), rng).tolist() == [[0, 2, 4, 1]]
    assert train_indices(5, Clip(4, 2, 224, "dense", "repeat_last"), rng).tolist() == [[0, 2, 4, 4]]
    assert test_indices(5, Clip(4, 2, 224, "dense", "repeat_last"), 2).tolist() == [[0, 2, 4, 4], [0, 2, 4, 4]]


def test_train_uniform_draws_from_each_segment_both_ends_included() -> None:
    # 11 frames, 4 segments of 2.5: bounds 0, 2.5 -> 2, 5, 7.5 -> 8, 10 (half to even).
    clip = Clip(4, 1, 224, "uniform")
    drawn = train_indices(11, clip, np.random.default_rng(0), clips=2000)
    for column, (first, last) in zip(drawn.T, [(0, 2), (2, 5), (5, 8), (8, 10)], strict=True):
        assert set(column.tolist()) == set(range(first, last + 1))


@pytest.mark.parametrize("num_frames", [1, 2, 5, 33])
@pytest.mark.parametrize("sampling", ["dense", "uniform"])
def test_indices_exist(num_frames: int, sampling: str) -> None:
    clip = Clip(8, 2, 224, sampling)  # type: ignore[arg-type]
    for got in (train_indices(num_frames, clip, np.random.default_rng(1), 5), test_indices(num_frames, clip, 5)):
        assert got.shape == (5, 8)
        assert got.min() >= 0
        assert got.max() < num_frames


def test_several_uniform_views_take_other_frames_of_the_same_segments() -> None:
    one, three = (test_indices(80, Clip(8, 1, 224, "uniform"), views) for views in (1, 3))
    assert (three[1] == one[0]).all()
    assert (three[0] < three[1]).all()
    assert (three[1] < three[2]).all()


def test_the_same_seed_gives_the_same_indices() -> None:
    clip = Clip(8, 16, 224, "dense")
    one, same, other = (train_indices(3000, clip, np.random.default_rng([7, 0, i])) for i in (3, 3, 4))
    assert (one == same).all()
    assert (one != other).any()


@pytest.mark.parametrize("change", [{"num_frames": 0}, {"stride_frames": 0}, {"size": 0}])
def test_a_wrong_setting_is_named(change: dict[str, object]) -> None:
    settings = {"num_frames": 8, "stride_frames": 1, "size": 224, "sampling": "dense"} | change
    with refused(f"clip.{next(iter(change))}={next(iter(change.values()))}"):
        Clip(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"sampling": "random"}, {"short_videos": "black"}])
def test_a_wrong_choice_is_named_with_the_right_ones(change: dict[str, str]) -> None:
    settings = {"num_frames": 8, "stride_frames": 1, "size": 224, "sampling": "dense"} | change
    right = ("dense", "uniform") if "sampling" in change else ("loop", "repeat_last")
    with refused(*(f"{name}={value!r}" for name, value in change.items()), *right):
        config.build(settings, Clip)
