"""Clutter that makes a moving shape hard to follow, and videos with it: functions of their arguments alone.

Each knob has its own random numbers: a video with more of one thing is otherwise the same.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aim.data.demo.shape_drawing import COLOURS, SHAPES, Patch, Poses, Scene, box, draw_scene, render
from aim.data.demo.shape_motions import PAIRS, Floats, draw_poses, pace
from aim.ground.errors import UserError


@dataclass(frozen=True)
class Clutter:
    """The amount of each kind of clutter in a video; 0 is none."""

    distractors: float = 0.0  # mean number of smaller shapes without an eye that move like another class
    occluders: float = 0.0  # mean number of bars in front
    camera: float = 0.0  # the range of the view, as a share of the frame's side
    texture: float = 0.0  # contrast added to the background, in multiples of the demo's
    haste: float = 0.0  # the share of the video for which the shape rests; its motion is faster

    def __post_init__(self) -> None:
        for name, most in (("distractors", 8), ("occluders", 8), ("camera", 0.5), ("texture", 8), ("haste", 0.8)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name}={getattr(self, name)} is not from 0 to {most}")

    def times(self, difficulty: float) -> "Clutter":
        """This share of everything, without digits from rounding."""
        return Clutter(**{name: round(difficulty * value, 6) for name, value in asdict(self).items()})


@dataclass(frozen=True)
class Film:
    """The content of a video: the shape, and the objects behind and in front of it."""

    scene: Scene
    poses: Poses
    distractors: Sequence[Patch] = ()
    occluders: Sequence[Patch] = ()

    def frames(self) -> NDArray[np.uint8]:
        """uint8 "t h w c"."""
        return render(self.scene, self.poses, self.distractors, self.occluders)


def film(
    seed: int, split: str, pair: int, index: int, num_frames: int, size: int, phases: int, clutter: Clutter
) -> Film:
    """Draw the motions in video `index` of the first class of PAIRS[phases][pair]."""
    key = [seed, ("train", "val").index(split), pair, index]
    rng, aside = np.random.default_rng(key), np.random.default_rng([*key, 1])
    for_camera, for_haste, for_distractors, for_occluders = aside.spawn(4)
    camera = clutter.camera * wander(num_frames, for_camera)
    scene = draw_scene(rng, size, 1 + clutter.texture, camera if clutter.camera else None)
    time = hurried(num_frames, clutter.haste, for_haste)
    poses = draw_poses(PAIRS[phases][pair][0], time, rng)
    others = [first for first, _ in PAIRS[phases] if first != PAIRS[phases][pair][0]]
    distractors = [
        distractor(str(one.choice(others)), hurried(num_frames, clutter.haste, one), camera, one)
        for one in several(clutter.distractors, for_distractors)
    ]
    occluders = [occluder(camera, one) for one in several(clutter.occluders, for_occluders)]
    return Film(scene, seen_by(camera, poses), distractors, occluders)


def wander(num_frames: int, rng: np.random.Generator) -> Floats:
    """Where the world lies before a camera that pans and shakes, x and y "2 t", a unit from end to end."""
    time = np.linspace(-0.5, 0.5, num_frames)
    angle = rng.uniform(0, 2 * math.pi)
    pan = np.array([[math.cos(angle)], [math.sin(angle)]]) * time
    beats, phase = rng.uniform(1, 2.5, (2, 1)), rng.uniform(0, 2 * math.pi, (2, 1))
    return pan + 0.15 * np.sin(2 * math.pi * beats * time + phase)


def seen_by(camera: Floats, poses: Poses) -> Poses:
    """The poses in the frame of those in the world."""
    x, y = camera.astype(np.float32)
    return replace(poses, x=poses.x + x, y=poses.y + y)


def hurried(num_frames: int, haste: float, rng: np.random.Generator) -> Floats:
    """The pace of a motion at any moment of the video."""
    return pace(num_frames, haste, rng.uniform(-0.5, 0.5))


def several(mean: float, rng: np.random.Generator) -> list[np.random.Generator]:
    """So many generators on average: of a video's, a larger mean has all those of a smaller one."""
    return rng.spawn(int(mean + rng.uniform()))


def distractor(motion: str, time: Floats, camera: Floats, rng: np.random.Generator) -> Patch:
    """A small shape that moves as it is said, or the other way round."""
    shape, colour = str(rng.choice(list(SHAPES))), str(rng.choice(list(COLOURS)))
    poses = draw_poses(motion, time, rng)
    if rng.integers(2):
        poses = Poses(*(value[::-1] for value in vars(poses).values()))
    small = replace(poses, radius=0.55 * poses.radius)
    return Patch(SHAPES[shape], np.array(COLOURS[colour], np.float32), seen_by(camera, small))


def occluder(camera: Floats, rng: np.random.Generator) -> Patch:
    """A bar of one colour that stands still in the world, from edge to edge."""
    x, y, width = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8), rng.uniform(0.07, 0.14)
    still = np.ones(camera.shape[1], np.float32)
    poses = Poses(x * still, y * still, 2 * still, rng.uniform(0, math.pi) * still)
    paint = rng.uniform(0.1, 0.9, 3).astype(np.float32)
    return Patch([box(-1, -width / 4, 1, width / 4)], paint, seen_by(camera, poses))
