"""List files: which videos there are, and their classes. (first version by the lead)"""
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aim.errors import UserError


class Video(NamedTuple):
    path: str
    label: int
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Lists:
    train: list[Video]
    val: list[Video]
    classes: list[str]


def read_list(path: Path, num_classes: int) -> list[Video]:
    if not path.is_file():
        raise UserError(f"list file {path} is missing")
    videos = []
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, label = line.rpartition(" ")
        videos.append(Video(name, int(label), None, None))
    return videos


def write_list(path: Path, videos: list[Video]) -> None:
    path.write_text("".join(f"{v.path} {v.label}\n" for v in videos), encoding="utf-8")


def data_hash(videos: list[Video], classes: list[str]) -> str:
    lines = sorted(f"{v.path} {v.label}" for v in videos)
    return hashlib.sha256("\n".join([*lines, *classes]).encode()).hexdigest()


@dataclass(frozen=True)
class ListFiles:
    train: str
    val: str
    classes: str

    def __call__(self, root: Path) -> Lists:
        classes = (root / self.classes).read_text().splitlines()
        return Lists(read_list(root / self.train, len(classes)), read_list(root / self.val, len(classes)), classes)
