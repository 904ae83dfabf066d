"""Videos that are hard to follow: each knob changes its own property alone."""

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from aim.data.demo.moving_shapes import MovingShapes
from aim.data.demo.shape_clutter import Clutter, film
from aim.data.demo.shape_motions import PAIRS, STEPS, draw_poses, pace
from aim.engine.run.settings import Run
from aim.ground import config
from scripts.explain_demo import mask_of
from tests.messages import refused

FULL = Clutter(distractors=3, occluders=2, camera=0.3, texture=2, haste=0.6)
HARD = MovingShapes(num_train=8, num_val=8, size=32, num_frames=9, seed=0, phases=2, difficulty=0.5, clutter=FULL)
KNOBS = list(asdict(FULL))


def at(clutter: Clutter, index: int = 0, phases: int = 2):
    return film(0, "val", index % 4, index, 17, 64, phases, clutter)


@pytest.mark.parametrize("phases", PAIRS)
def test_a_path_goes_the_way_that_its_class_names(phases: int) -> None:
    """By the names alone: each phase moves along its word."""
    rng = np.random.default_rng(phases)
    time = np.linspace(-0.5, 0.5, 1201)
    for first, second in PAIRS[phases] if phases > 1 else []:
        for name, backwards in ((first, False), (second, True)):
            poses = draw_poses(first, time, rng)
            x, y = (value[::-1] if backwards else value for value in (poses.x, poses.y))
            steps = np.stack([np.diff(x), np.diff(y)], axis=1)
            ways = [word for word in (way(step) for step in steps) if word]
            assert [word for word, last in zip(ways, ["", *ways], strict=False) if word != last] == name.split("_")
            for value in (x, y):
                assert 0 < value.min() < value.max() < 1


def way(step: np.ndarray) -> str:
    """The word of a step along one axis; none for a step around a corner."""
    words = [word for word, of in STEPS.items() if step @ of > 1e-5]
    return words[0] if len(words) == 1 else ""


@pytest.mark.parametrize("phases", PAIRS)
def test_pairs_hold_all_classes_once_and_are_each_other_backwards(phases: int) -> None:
    names = [name for pair in PAIRS[phases] for name in pair]
    assert len(set(names)) == len(names) == 8
    if phases > 1:
        back = {"right": "left", "left": "right", "up": "down", "down": "up"}
        for first, second in PAIRS[phases]:
            assert "_".join(back[word] for word in reversed(first.split("_"))) == second


def test_the_mean_place_of_a_path_tells_no_class() -> None:
    """The mean over frames must not tell the corner: each class against the rest, by Welch's test."""
    means = {
        first: np.array([(p.x.mean(), p.y.mean()) for p in drawn(first)])
        for pairs in PAIRS.values()
        for first, _ in pairs
    }
    for phases in (2, 3):
        for first, _ in PAIRS[phases]:
            rest = np.concatenate([means[other] for other, _ in PAIRS[phases] if other != first])
            mine = means[first]
            error = np.sqrt(mine.var(0) / len(mine) + rest.var(0) / len(rest))
            assert (np.abs(mine.mean(0) - rest.mean(0)) < 4 * error).all(), first
    assert abs(means["move_right"].mean() - 0.5) < 0.02


def drawn(first: str):
    rng = np.random.default_rng(0)
    return [draw_poses(first, pace(17), rng) for _ in range(400)]


def test_a_video_is_a_function_of_its_arguments() -> None:
    assert np.array_equal(at(FULL).frames(), at(FULL).frames())
    assert not np.array_equal(at(FULL).frames(), at(FULL, index=4).frames())


@pytest.mark.parametrize("phases", PAIRS)
def test_no_difficulty_is_the_plain_video(phases: int) -> None:
    plain = at(Clutter(), phases=phases).frames()
    assert np.array_equal(at(FULL.times(0), phases=phases).frames(), plain)
    assert not np.array_equal(at(FULL.times(0.3), phases=phases).frames(), plain)


@pytest.mark.parametrize("knob", KNOBS)
def test_a_knob_changes_its_own_thing_alone_and_more_of_it_changes_more(knob: str) -> None:
    for index in range(3):
        plain = at(Clutter(), index).frames().astype(int)
        bare = at(Clutter(), index)
        scene, poses = bare.scene, bare.poses
        found = [at(replace(Clutter(), **{knob: share * getattr(FULL, knob)}), index) for share in (0.5, 1)]
        for one in found:
            assert (one.scene.shape, one.scene.colour) == (scene.shape, scene.colour)
            assert np.array_equal(one.poses.radius, poses.radius)
            assert bool(one.distractors) <= (knob == "distractors")
            assert bool(one.occluders) <= (knob == "occluders")
            assert np.array_equal(one.scene.background, scene.background) == (knob not in ("camera", "texture"))
            assert np.array_equal(one.poses.x, poses.x) == (knob not in ("camera", "haste"))
        less, more = (np.abs(one.frames() - plain).mean() for one in found)
        assert less <= more
        assert more > 0


def test_difficulty_adds_to_what_there_is() -> None:
    """Harder, one video keeps its distractors and bars, gets more, a stronger background and a longer rest."""
    for index in range(8):
        films = [at(FULL.times(difficulty), index) for difficulty in (0, 0.25, 0.5, 0.75, 1)]
        for less, more in pairwise(films):
            for kind in ("distractors", "occluders"):
                kept, all_of = (getattr(one, kind) for one in (less, more))
                assert [patch.paint.tolist() for patch in kept] == [
                    patch.paint.tolist() for patch in all_of[: len(kept)]
                ]
            assert less.scene.background.std() <= more.scene.background.std() * 1.05  # but for clipped values
        still = [at(replace(Clutter(), haste=haste), index).poses for haste in (0, 0.3, 0.6)]
        rests = [np.count_nonzero((np.diff(poses.x) == 0) & (np.diff(poses.y) == 0)) for poses in still]
        assert rests == sorted(rests)
        assert rests[0] == 0
        assert rests[2] >= 8  # of 16 steps
    assert {(len(one.distractors), len(one.occluders)) for one in (at(FULL, i) for i in range(50))} == {(3, 2)}
    halves = np.mean([len(at(FULL.times(0.5), index).distractors) for index in range(200)])
    assert abs(halves - 1.5) < 0.15


def test_distractors_move_and_never_as_the_shape_does() -> None:
    """Each takes another path than the shape, forwards or backwards: its corner is elsewhere."""
    for index in range(20):
        one = at(replace(FULL, camera=0, haste=0), index)
        for patch in one.distractors:
            assert np.ptp(patch.poses.x) > 0.1
            assert np.ptp(patch.poses.y) > 0.1
            assert patch.poses.radius.max() < one.poses.radius.min()
            assert corner(patch.poses) != corner(one.poses)


def corner(poses) -> tuple[bool, bool]:
    """From the middle of a two-phase path's ends to its corner."""
    middle = len(poses.x) // 2
    return tuple(bool(v[middle] > (v[0] + v[-1]) / 2) for v in (poses.x, poses.y))


def test_the_mask_is_where_the_shape_shows() -> None:
    """Independently: where another colour of the shape changes the frames."""
    for index in range(5):
        one = at(FULL, index)
        other = replace(one, scene=replace(one.scene, paint=1 - one.scene.paint, eye=1 - one.scene.eye))
        change = np.abs(one.frames().astype(int) - other.frames()).max(-1)
        mask = mask_of(one)
        assert (change[mask] > 0).mean() > 0.99
        assert change[~mask].mean() < 0.02 * change[mask].mean()
        assert mask.any()
        assert mask.sum() < mask_of(replace(one, occluders=())).sum()  # a bar hides some of it


def test_the_files_are_each_other_backwards_and_beside_those_of_other_difficulty(tmp_path: Path) -> None:
    lists = HARD(tmp_path)
    assert lists.classes == ["right_down", "up_left", "down_right", "left_up", *HARD.classes[4:]]
    for first, second in PAIRS[2]:
        a, b = (decode(tmp_path / HARD.folder / "val" / name / "00000.mp4") for name in (first, second))
        assert np.array_equal(a, b[::-1])
        assert not np.array_equal(a, b)
    folders = {replace(HARD, difficulty=d).folder for d in (0, 0.5, 1)} | {replace(HARD, phases=3).folder}
    assert len(folders) == 4
    twice = replace(HARD, difficulty=1, clutter=FULL.times(0.5))
    assert (twice.folder, replace(HARD, clutter=Clutter()).folder) == (HARD.folder, replace(HARD, difficulty=0).folder)


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("difficulty=1.5", ["difficulty=1.5", "0", "1"]),
        ("difficulty=-0.1", ["difficulty=-0.1", "0", "1"]),
        ("difficulty=nan", ["difficulty=nan", "0", "1"]),
        ("phases=4", ["phases=4", "1", "2", "3"]),
        ("clutter.distractors=-1", ["distractors=-1", "0", "8"]),
        ("clutter.camera=0.9", ["camera=0.9", "0", "0.5"]),
        ("clutter.haste=1", ["haste=1", "0", "0.8"]),
        ("num_train=2404", ["num_train=2404", "8"]),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(setting: str, message: list[str]) -> None:
    with refused(*message) as caught:
        config.build(config.compose(["+experiment=demo_hard", f"data.lists.{setting}"]), Run)
    assert "\n" not in str(caught.value)


def test_the_experiment_is_the_demos_with_other_videos() -> None:
    demo, hard = (config.build(config.compose([f"+experiment={name}"]), Run) for name in ("demo", "demo_hard"))
    assert replace(hard.data, lists=demo.data.lists) == demo.data
    assert replace(hard, name=demo.name, data=demo.data, train=replace(hard.train, clip_grad=None)) == demo
    other = config.build(config.compose(["+experiment=demo", "data=demo_hard"]), Run)
    assert other.data == hard.data
    assert hard.data.num_classes == len(hard.data.lists.classes)
    assert hard.data.lists.phases > 1
