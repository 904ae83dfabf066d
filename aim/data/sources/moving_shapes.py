"""Moving shapes: a video data set written on first use, whose classes come in pairs played backwards.

Every video is written twice: as it is, and with its frames reversed under the partner's class. The H.264 is lossless,
so the two files decode to the same frames, and only their order tells the classes apart: a model blind to order gives
both the same answer, which is right for at most one.
"""

import fcntl
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from aim.data.lists import Lists, Video
from aim.errors import UserError, say

Array = NDArray[np.float32]

PAIRS = (
    ("move_right", "move_left"),
    ("move_down", "move_up"),
    ("grow", "shrink"),
    ("turn_clockwise", "turn_counterclockwise"),
)
CLASSES = [name for pair in PAIRS for name in pair]
VERSION = 2  # of the drawing: raise it when the same settings give other videos, so that old files are left alone
FPS = 16
MANIFEST = "manifest.json"


def _box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


# A shape is a union of convex polygons within the unit circle, x to the right and y down, with an eye of another colour
# where it points to, so that turning is visible in all of them.
SHAPES: dict[str, list[list[tuple[float, float]]]] = {
    "arrow": [_box(-0.95, -0.25, 0.2, 0.25), [(0.0, -0.85), (1.0, 0.0), (0.0, 0.85)]],
    "ell": [_box(-0.9, -0.35, 0.9, 0.35), _box(-0.9, 0.0, -0.3, 0.9)],
    "tee": [_box(0.2, -0.85, 0.85, 0.85), _box(-0.9, -0.25, 0.25, 0.25)],
    "wedge": [[(-0.8, 0.0), (0.7, 0.75), (0.7, -0.75)]],
    "half": [[(math.cos(a), 0.9 * math.sin(a)) for a in np.linspace(-math.pi / 2, math.pi / 2, 9)]],
    "flag": [_box(-0.95, -0.2, 0.9, 0.2), [(0.1, 0.0), (0.9, 0.0), (0.9, 0.9)]],
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
    """What stays the same in a video: a shape, its colours "c", and the background "h w c", all in [0, 1]."""

    shape: str
    colour: str
    paint: Array
    eye: Array
    background: Array


@dataclass(frozen=True)
class Poses:
    """Where the shape is in each of "t" frames: lengths are shares of the frame's side, angles are in radians."""

    x: Array
    y: Array
    radius: Array
    angle: Array


def draw_scene(rng: np.random.Generator, size: int) -> Scene:
    """Draw a shape, a colour and a texture that the colour stands out from."""
    shape = str(rng.choice(list(SHAPES)))
    base = rng.uniform(0.1, 0.9, 3)
    far = sorted(COLOURS, key=lambda name: float(np.abs(np.subtract(COLOURS[name], base)).max()))
    colour = str(rng.choice(far[len(far) // 2 :]))
    paint = np.clip(COLOURS[colour] + rng.uniform(-0.05, 0.05, 3), 0, 1)
    brightness = paint.mean(), base.mean()
    eye = np.full(3, 0.05 if min(brightness) > 1 - max(brightness) else 0.95)  # whichever stands out from both

    # A few plane waves of random direction, length and tint: k waves, sin(u + v) = sin u cos v + cos u sin v.
    direction, phase = rng.uniform(0, 2 * math.pi, (2, 4, 1))
    grid = 2 * math.pi * rng.uniform(1, 8, (4, 1)) * (np.arange(size) + 0.5) / size
    along_x, along_y = np.cos(direction) * grid, np.sin(direction) * grid + phase  # "k w", "k h"
    rows = np.concatenate([np.sin(along_y), np.cos(along_y)])
    columns = np.concatenate([np.cos(along_x), np.sin(along_x)])[:, :, None] * np.tile(
        rng.uniform(-0.07, 0.07, (4, 1, 3)), (2, 1, 1)
    )
    background = np.clip(base + np.tensordot(rows.T, columns, 1), 0, 1)
    return Scene(shape, colour, *(value.astype(np.float32) for value in (paint, eye, background)))


def draw_poses(pair: int, num_frames: int, rng: np.random.Generator) -> Poses:
    """Draw a motion of the first class of PAIRS[pair]; its reversal is one of the second class."""
    time = np.linspace(-0.5, 0.5, num_frames)
    x, y = rng.uniform(0.3, 0.7, 2)
    radius, angle = rng.uniform(0.15, 0.25), rng.uniform(0, 2 * math.pi)
    still = np.zeros(num_frames)
    poses = {"x": x + still, "y": y + still, "radius": radius + still, "angle": angle + still}
    name = PAIRS[pair][0]
    if name in ("move_right", "move_down"):
        length = rng.uniform(0.25, 0.6)
        middle = rng.uniform(0.15 + length / 2, 0.85 - length / 2)
        poses["x" if name == "move_right" else "y"] = middle + length * time
        # It points about forwards or backwards: like the size of what turns, something that a single frame tells.
        poses["angle"] = rng.uniform(-0.4, 0.4) + math.pi * (rng.integers(2) + (name == "move_down") / 2) + still
    elif name == "grow":
        poses["radius"] = rng.uniform(0.16, 0.21) * rng.uniform(1.7, 2.6) ** time
    else:
        # Half way it points up, more or less: an eye that goes from the left over the top to the right turns clockwise.
        poses["radius"] = rng.uniform(0.2, 0.3) + still
        poses["angle"] = -math.pi / 2 + rng.uniform(-1, 1) + rng.uniform(0.5, 1.4) * math.pi * time
    return Poses(**{key: value.astype(np.float32) for key, value in poses.items()})


def cover(polygon: Sequence[tuple[float, float]], poses: Poses, size: int) -> Array:
    """How much of each pixel a convex polygon of unit size covers, about: "t h w" in [0, 1]."""
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


def render(scene: Scene, poses: Poses) -> NDArray[np.uint8]:
    """Draw the frames, uint8 "t h w c", with smooth edges."""
    size = len(scene.background)
    body = np.maximum.reduce([cover(polygon, poses, size) for polygon in SHAPES[scene.shape]])[..., None]
    frames = scene.background + body * (scene.paint - scene.background)
    frames += cover(EYE, poses, size)[..., None] * (scene.eye - frames)
    return np.asarray(np.rint(frames * 255), np.uint8)


def draw_motion(seed: int, split: str, pair: int, index: int, num_frames: int, size: int) -> tuple[Scene, Poses]:
    """Draw what happens in video `index` of the first class of a pair: a function of its arguments alone."""
    rng = np.random.default_rng([seed, ("train", "val").index(split), pair, index])
    return draw_scene(rng, size), draw_poses(pair, num_frames, rng)


def draw_video(seed: int, split: str, pair: int, index: int, num_frames: int, size: int) -> NDArray[np.uint8]:
    """Draw the frames of `draw_motion`, uint8 "t h w c"."""
    return render(*draw_motion(seed, split, pair, index, num_frames, size))


@dataclass(frozen=True)
class MovingShapes:
    """Writes the data set under a root on first use, in the Kinetics layout, and lists it.

    The numbers of videos count both directions. Other settings get another folder; one that is not complete is
    written again. Odd numbers of frames of the form 2 * clip.num_frames + 1 keep uniform sampling blind to direction,
    too: the test's middle frames of a video are those of its reversal.
    """

    num_train: int
    num_val: int
    size: int  # pixels, of both sides
    num_frames: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("num_train", "num_val"):
            if getattr(self, name) < len(CLASSES) or getattr(self, name) % len(CLASSES):
                raise UserError(f"{name}={getattr(self, name)} is not a multiple of the {len(CLASSES)} classes")
        if self.size < 16 or self.size % 2:
            raise UserError(f"size={self.size}; use an even number of at least 16 pixels")
        if self.num_frames < 2:
            raise UserError(f"num_frames={self.num_frames}; a motion takes at least 2")

    def __call__(self, root: Path) -> Lists:
        """Return the lists, paths relative to `root`. Raises UserError where the files can't be written."""
        folder = root / self.folder
        try:
            if not complete(folder, self.settings):
                with lock(root):
                    if not complete(folder, self.settings):
                        say(f"drawing {self.num_train + self.num_val} videos into {folder}, this once")
                        self.write(folder)
        except OSError as error:
            raise UserError(f"data.root={root}: the demo's videos can't be written ({error}); name another") from error
        splits = {}
        for split in ("train", "val"):
            lines = (folder / f"{split}.txt").read_text().splitlines()
            pairs = (line.rsplit(" ", 1) for line in lines)
            splits[split] = [Video(f"{self.folder}/{path}", int(label), None, None) for path, label in pairs]
        return Lists(splits["train"], splits["val"], (folder / "classes.txt").read_text().splitlines())

    @property
    def settings(self) -> dict[str, int]:
        return {**asdict(self), "version": VERSION}

    @property
    def folder(self) -> str:
        """The name of the folder that these settings are written to."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return f"moving_shapes_{digest[:8]}"

    def write(self, folder: Path) -> None:
        """Write everything to a temporary folder beside `folder`, then rename it. The caller holds the lock."""
        for stale in folder.parent.glob(f"{folder.name}.tmp*"):
            shutil.rmtree(stale)
        new = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp", dir=folder.parent))
        for split in ("train", "val"):
            for name in CLASSES:
                (new / split / name).mkdir(parents=True)
        jobs = [
            (split, pair, index)
            for split, count in (("train", self.num_train), ("val", self.num_val))
            for index in range(count // len(CLASSES))
            for pair in range(len(PAIRS))
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            names = [name for both in pool.map(lambda job: self.write_pair(new, *job), jobs) for name in both]
        for split in ("train", "val"):
            lines = [f"{name} {CLASSES.index(name.split('/')[1])}\n" for name in names if name.startswith(split)]
            (new / f"{split}.txt").write_text("".join(lines))
        (new / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        sizes = {str(path.relative_to(new)): path.stat().st_size for path in sorted(new.rglob("*.*"))}
        (new / MANIFEST).write_text(json.dumps({"settings": self.settings, "bytes": sizes}, indent=1))
        new.chmod(0o755)
        if folder.exists():
            folder.rename(f"{new}.old")
            shutil.rmtree(f"{new}.old")
        new.rename(folder)

    def write_pair(self, folder: Path, split: str, pair: int, index: int) -> list[str]:
        """Write a video and its reversal; return their paths in `folder`."""
        frames = draw_video(self.seed, split, pair, index, self.num_frames, self.size)
        names = [f"{split}/{name}/{index:05d}.mp4" for name in PAIRS[pair]]
        encode(folder / names[0], frames)
        encode(folder / names[1], frames[::-1])
        return names


def complete(folder: Path, settings: dict[str, int]) -> bool:
    """Whether the folder's manifest is of these settings and every file it names has its size."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return manifest["settings"] == settings and all(
            (folder / name).stat().st_size == size for name, size in manifest["bytes"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def lock(root: Path) -> Iterator[None]:
    """Let one process at a time write under `root`, which is made if need be."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def encode(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write uint8 "t h w c" as lossless H.264 (qp 0), so that the order of frames changes no pixel of any."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "qp": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        to_yuv = VideoReformatter()
        for time, frame in enumerate(frames):
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            yuv = to_yuv.reformat(rgb, format="yuv420p")
            yuv.pts = time
            container.mux(stream.encode(yuv))
        container.mux(stream.encode())
