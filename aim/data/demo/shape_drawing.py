"""The drawing of a moving shape: a shape with an eye before a texture of plane waves.

Lengths are shares of the frame's side, x to the right and y down; colours are in [0, 1].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Polygon = Sequence[tuple[float, float]]


def box(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


# A shape is a union of convex polygons within the unit circle, x to the right and y down, with an eye of another colour
# where it points to, so that turning is visible in all of them.
SHAPES: dict[str, list[Polygon]] = {
    "arrow": [box(-0.95, -0.25, 0.2, 0.25), [(0.0, -0.85), (1.0, 0.0), (0.0, 0.85)]],
    "ell": [box(-0.9, -0.35, 0.9, 0.35), box(-0.9, 0.0, -0.3, 0.9)],
    "tee": [box(0.2, -0.85, 0.85, 0.85), box(-0.9, -0.25, 0.25, 0.25)],
    "wedge": [[(-0.8, 0.0), (0.7, 0.75), (0.7, -0.75)]],
    "half": [[(math.cos(a), 0.9 * math.sin(a)) for a in np.linspace(-math.pi / 2, math.pi / 2, 9)]],
    "flag": [box(-0.95, -0.2, 0.9, 0.2), [(0.1, 0.0), (0.9, 0.0), (0.9, 0.9)]],
}
EYE = [(0.5 + 0.32 * math.cos(a), 0.32 * math.sin(a)) for a in np.linspace(0, 2 * math.pi, 8, endpoint=False)]
COLOURS = {
    "red": (0.9, 0.15, 0.15),
    "green": (0.15, 0.75, 0.2),
    "blue": (0.2, 0.3, 0.95),
    "yellow": (0.95, 0.9, 0.2),
    "magenta": (0.85, 0.2, 0.85),
    "cyan": (0.2, 0.85, 0.9),
    "orange": (0.95, 0.55, 0.1),
}


@dataclass(frozen=True)
class Scene:
    """The constants of a video: a shape, its colours "c", its background "h w c", or "t h w c" if that moves."""

    shape: str
    colour: str
    paint: Array
    eye: Array
    background: Array


@dataclass(frozen=True)
class Poses:
    """Where the shape is in each of "t" frames; angles are in radians."""

    x: Array
    y: Array
    radius: Array
    angle: Array


@dataclass(frozen=True)
class Patch:
    """Something of one colour "c" that is drawn beside the shape: polygons of unit size and their poses."""

    polygons: Sequence[Polygon]
    paint: Array
    poses: Poses


def draw_scene(
    rng: np.random.Generator, size: int, contrast: float = 1.0, camera: NDArray[np.float64] | None = None
) -> Scene:
    """Draw a shape, a colour and a texture that the colour stands out from.

    `contrast` is the strength of the texture relative to the demo's, `camera` its position in each frame, "2 t".
    """
    shape = str(rng.choice(list(SHAPES)))
    base = rng.uniform(0.1, 0.9, 3)
    far = sorted(COLOURS, key=lambda name: float(np.abs(np.subtract(COLOURS[name], base)).max()))
    colour = str(rng.choice(far[len(far) // 2 :]))
    paint = np.clip(COLOURS[colour] + rng.uniform(-0.05, 0.05, 3), 0, 1)
    brightness = paint.mean(), base.mean()
    eye = np.full(3, 0.05 if min(brightness) > 1 - max(brightness) else 0.95)  # whichever stands out from both

    # A few plane waves of random direction, length and tint: k waves, sin(u + v) = sin u cos v + cos u sin v.
    direction, phase = rng.uniform(0, 2 * math.pi, (2, 4, 1))
    frequency = 2 * math.pi * rng.uniform(1, 8, (4, 1))
    grid = frequency * (np.arange(size) + 0.5) / size
    tint = np.tile(contrast * rng.uniform(-0.07, 0.07, (4, 1, 3)), (2, 1, 1))

    def texture(x: float, y: float) -> NDArray[np.float64]:
        along_x = np.cos(direction) * (grid - frequency * x)  # "k w"
        along_y = np.sin(direction) * (grid - frequency * y) + phase  # "k h"
        rows = np.concatenate([np.sin(along_y), np.cos(along_y)])
        columns = np.concatenate([np.cos(along_x), np.sin(along_x)])[:, :, None] * tint
        return np.clip(base + np.tensordot(rows.T, columns, 1), 0, 1)

    background = texture(0, 0) if camera is None else np.stack([texture(x, y) for x, y in camera.T])
    return Scene(shape, colour, *(value.astype(np.float32) for value in (paint, eye, background)))


def cover(polygon: Polygon, poses: Poses, size: int) -> Array:
    """The approximate coverage of each pixel by a convex polygon of unit size: "t h w" in [0, 1]."""
    corners = np.array(polygon, np.float32)
    edges = np.roll(corners, -1, axis=0) - corners
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1) / np.linalg.norm(edges, axis=1, keepdims=True)
    normals *= np.sign((normals * (corners - corners.mean(0))).sum(1, keepdims=True))  # outward
    reach = (normals * corners).sum(1)
    # A pixel is inside if it is on the inner side of each of e edges.
    cos, sin = np.cos(poses.angle)[:, None], np.sin(poses.angle)[:, None]
    normal_x, normal_y = cos * normals[:, 0] - sin * normals[:, 1], sin * normals[:, 0] + cos * normals[:, 1]  # "t e"
    offset = size * (normal_x * poses.x[:, None] + normal_y * poses.y[:, None] + reach * poses.radius[:, None])
    grid = np.arange(size, dtype=np.float32) + 0.5
    rows = normal_y[:, :, None] * grid - offset[:, :, None]
    distance = (normal_x[:, :, None, None] * grid + rows[:, :, :, None]).max(1)  # in pixels, negative inside
    return np.asarray(np.clip(0.5 - distance, 0, 1), np.float32)


def covered(polygons: Sequence[Polygon], poses: Poses, size: int) -> Array:
    """The coverage of each pixel by a union of convex polygons: "t h w" in [0, 1]."""
    return np.asarray(np.maximum.reduce([cover(polygon, poses, size) for polygon in polygons]), np.float32)


def render(scene: Scene, poses: Poses, behind: Sequence[Patch] = (), before: Sequence[Patch] = ()) -> NDArray[np.uint8]:
    """Draw the frames, uint8 "t h w c", with smooth edges; objects behind the shape first, then those before it."""
    size = scene.background.shape[-2]
    eye = Patch([EYE], scene.eye, poses)
    frames = scene.background
    for patch in (*behind, Patch(SHAPES[scene.shape], scene.paint, poses), eye, *before):
        frames = frames + covered(patch.polygons, patch.poses, size)[..., None] * (patch.paint - frames)
    return np.asarray(np.rint(frames * 255), np.uint8)
