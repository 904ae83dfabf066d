"""The motions of shapes: classes of motions, in pairs that are each other played backwards.

With one phase, a shape moves, grows or turns. With two or three, it goes along a path with corners, and the order of
the phases tells the classes apart: the two of a pair pass through the same places, and the mean place of a video tells
nothing, as it is drawn alike for all. Shapes: t frames.
"""

import math

import numpy as np
from numpy.typing import NDArray

from aim.data.demo.shape_drawing import Poses

Floats = NDArray[np.float64]

PAIRS = {  # by the number of phases
    1: (
        ("move_right", "move_left"),
        ("move_down", "move_up"),
        ("grow", "shrink"),
        ("turn_clockwise", "turn_counterclockwise"),
    ),
    2: (
        ("right_down", "up_left"),
        ("down_right", "left_up"),
        ("left_down", "up_right"),
        ("down_left", "right_up"),
    ),
    3: (
        ("right_down_left", "right_up_left"),
        ("left_down_right", "left_up_right"),
        ("down_right_up", "down_left_up"),
        ("up_right_down", "up_left_down"),
    ),
}
STEPS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def pace(num_frames: int, pause: float = 0.0, moment: float = 0.0) -> Floats:
    """The progress of a motion in each frame, "t" from -0.5 to 0.5.

    For the share `pause` of the video, in [0, 1), the shape rests, before and after its motion; `moment`, from -0.5 to
    0.5, says whether the motion is early or late.
    """
    return np.clip((np.linspace(-0.5, 0.5, num_frames) - pause * moment) / (1 - pause), -0.5, 0.5)


def draw_poses(motion: str, time: Floats, rng: np.random.Generator) -> Poses:
    """Draw a motion of the first class of a pair, at the progress `time`; its reversal is one of the second class."""
    poses = (draw_simple if motion in dict(PAIRS[1]) else draw_path)(motion, time, rng)
    return Poses(**{key: (value + np.zeros(len(time))).astype(np.float32) for key, value in poses.items()})


def draw_simple(motion: str, time: Floats, rng: np.random.Generator) -> dict[str, float | Floats]:
    """A motion of one phase, around the middle at time 0."""
    x, y = rng.uniform(0.3, 0.7, 2)
    radius, angle = rng.uniform(0.15, 0.25), rng.uniform(0, 2 * math.pi)
    poses: dict[str, float | Floats] = {"x": x, "y": y, "radius": radius, "angle": angle}
    if motion in ("move_right", "move_down"):
        length = rng.uniform(0.25, 0.6)
        middle = rng.uniform(0.15 + length / 2, 0.85 - length / 2)
        poses["x" if motion == "move_right" else "y"] = middle + length * time
        # It points about forwards or backwards: like the size of a turning shape, something that a single frame tells.
        poses["angle"] = rng.uniform(-0.4, 0.4) + math.pi * (rng.integers(2) + (motion == "move_down") / 2)
    elif motion == "grow":
        poses["radius"] = rng.uniform(0.16, 0.21) * rng.uniform(1.7, 2.6) ** time
    else:
        # Half way it points up, more or less: an eye that goes from the left over the top to the right turns clockwise.
        poses["radius"] = rng.uniform(0.2, 0.3)
        poses["angle"] = -math.pi / 2 + rng.uniform(-1, 1) + rng.uniform(0.5, 1.4) * math.pi * time
    return poses


def draw_path(motion: str, time: Floats, rng: np.random.Generator) -> dict[str, float | Floats]:
    """A path of phases that take about equally long; the mean place of a video is drawn alike for all motions."""
    steps = np.array([STEPS[word] for word in motion.split("_")], float)
    lengths = rng.uniform(0.25, 0.45, 2)  # across and down
    shares = rng.uniform(0.8, 1.2, len(steps))
    corners = np.concatenate([np.zeros((1, 2)), np.cumsum(steps * lengths, axis=0)])
    ends = np.concatenate([[0], np.cumsum(shares) / shares.sum()]) - 0.5
    way = np.stack([np.interp(time, ends, corner) for corner in corners.T])  # "2 t"
    mean = way.mean(1)
    room = np.maximum(0.35 - np.abs(corners - mean).max(0), 0)  # a shape's middle stays off the edges
    x, y = way + (0.5 + rng.uniform(-1, 1, 2) * room - mean)[:, None]
    return {"x": x, "y": y, "radius": rng.uniform(0.13, 0.2), "angle": rng.uniform(0, 2 * math.pi)}
