"""Moving shapes: a video data set written on first use, whose classes come in pairs played backwards.

Every video is written twice: as it is, and with its frames reversed under the partner's class. The H.264 is lossless,
so the two files decode to the same frames, and only their order tells the classes apart: a model blind to order gives
both the same answer, which is right for at most one.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from aim.data.demo.shape_clutter import Clutter, Film, film
from aim.data.demo.shape_motions import PAIRS
from aim.data.lists import Lists, Video
from aim.data.readers.interface import url
from aim.ground import files
from aim.ground.errors import UserError, say

VERSION = 2  # of the drawing: raise it when the same settings give other videos, so that old files are left alone
FPS = 16
MANIFEST = "manifest.json"


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
    phases: int = 1  # of a motion
    difficulty: float = 1.0  # in [0, 1], how much of the clutter there is
    clutter: Clutter = field(default_factory=Clutter)
    imbalance: float = 1.0  # videos of the first classes for one of the last; the training list leaves the others out

    def __post_init__(self) -> None:
        if self.phases not in PAIRS:
            raise UserError(f"phases={self.phases} is not one of {', '.join(map(str, PAIRS))}")
        for name in ("num_train", "num_val"):
            if getattr(self, name) < len(self.classes) or getattr(self, name) % len(self.classes):
                raise UserError(f"{name}={getattr(self, name)} is not a multiple of the {len(self.classes)} classes")
        if self.size < 16 or self.size % 2:
            raise UserError(f"size={self.size}; use an even number of at least 16 pixels")
        if self.num_frames < 2:
            raise UserError(f"num_frames={self.num_frames}; a motion takes at least 2")
        if self.imbalance < 1:
            raise UserError(f"imbalance={self.imbalance:g}; use 1 for as many videos of each class, or more")
        if not 0 <= self.difficulty <= 1:
            raise UserError(f"difficulty={self.difficulty} is not from 0 to 1")

    def __call__(self, root: Path) -> Lists:
        """Return the lists, paths relative to `root`. Raises UserError if the files can't be written."""
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
        train, listed = list[Video](), Counter[int]()
        for video in splits["train"]:
            train += [video] if listed[video.label] < self.kept(video) else []
            listed[video.label] += 1
        classes = (folder / "classes.txt").read_text().splitlines()
        return Lists(train, splits["val"], classes, split=f"moving shapes, drawn for each list into {folder}")

    def kept(self, video: Video) -> int:
        """The number of listed training videos of a video's class: fewer from pair to pair, at a constant rate."""
        each, pairs = self.num_train // len(self.classes), len(PAIRS[self.phases])
        share: float = self.imbalance ** (-(video.label // 2) / max(1, pairs - 1))
        return max(1, round(each * share))

    @property
    def classes(self) -> list[str]:
        return [name for pair in PAIRS[self.phases] for name in pair]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that determine the videos; absent ones are left out, so the demo's folder keeps its name."""
        plain = {name: getattr(self, name) for name in ("num_train", "num_val", "size", "num_frames", "seed")}
        phases = {"phases": self.phases} if self.phases > 1 else {}
        clutter = {name: value for name, value in asdict(self.clutter.times(self.difficulty)).items() if value}
        return {**plain, **phases, **clutter, "version": VERSION}

    @property
    def folder(self) -> str:
        """The name of the folder that these settings are written to."""
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        return f"moving_shapes_{digest[:8]}"

    def film(self, split: str, pair: int, index: int) -> Film:
        """The content of video `index` of the first class of a pair."""
        clutter = self.clutter.times(self.difficulty)
        return film(self.seed, split, pair, index, self.num_frames, self.size, self.phases, clutter)

    def write(self, folder: Path) -> None:
        """Write everything to a temporary folder beside `folder`, then rename it. The caller holds the lock."""
        for stale in folder.parent.glob(f"{folder.name}.tmp*"):
            shutil.rmtree(stale)
        new = Path(tempfile.mkdtemp(prefix=f"{folder.name}.tmp", dir=folder.parent))
        for split in ("train", "val"):
            for name in self.classes:
                (new / split / name).mkdir(parents=True)
        jobs = [
            (split, pair, index)
            for split, count in (("train", self.num_train), ("val", self.num_val))
            for index in range(count // len(self.classes))
            for pair in range(len(PAIRS[self.phases]))
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            names = [name for both in pool.map(lambda job: self.write_pair(new, *job), jobs) for name in both]
        for split in ("train", "val"):
            lines = [f"{name} {self.classes.index(name.split('/')[1])}\n" for name in names if name.startswith(split)]
            (new / f"{split}.txt").write_text("".join(lines))
        (new / "classes.txt").write_text("".join(f"{name}\n" for name in self.classes))
        sizes = {str(path.relative_to(new)): path.stat().st_size for path in sorted(new.rglob("*.*"))}
        (new / MANIFEST).write_text(json.dumps({"settings": self.settings, "bytes": sizes}, indent=1))
        new.chmod(0o755)
        if folder.exists():
            folder.rename(f"{new}.old")
            shutil.rmtree(f"{new}.old")
        new.rename(folder)

    def write_pair(self, folder: Path, split: str, pair: int, index: int) -> list[str]:
        """Write a video and its reversal; return their paths in `folder`."""
        frames = self.film(split, pair, index).frames()
        names = [f"{split}/{name}/{index:05d}.mp4" for name in PAIRS[self.phases][pair]]
        encode(folder / names[0], frames)
        encode(folder / names[1], frames[::-1])
        return names


def complete(folder: Path, settings: dict[str, Any]) -> bool:
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
    """Let one process at a time write under `root`, which is created if necessary."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as file:
        files.lock(file)
        yield


def encode(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write uint8 "t h w c" as lossless H.264 (qp 0), so that the order of frames changes no pixel of any."""
    with av.open(url(path), "w") as container:
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
