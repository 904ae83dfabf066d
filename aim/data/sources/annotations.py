"""Reads the published annotations of data sets into lists; `aim.prepare` writes those as list files.

Every format finds the video files by their names, anywhere under the root. A listed video without a file keeps its
usual path.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from aim.data.lists import README, Lists, Video, nfc
from aim.data.scanning import look
from aim.ground.errors import UserError

Split = Literal[1, 2, 3]  # of UCF-101 and HMDB-51


class Format(Protocol):
    """Reads the annotations under a root, or reports that they are missing."""

    def recognises(self, root: Path) -> bool: ...

    def __call__(self, root: Path) -> Lists: ...


@dataclass(frozen=True)
class Files:
    """The video files under a root."""

    root: Path

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """Name without extension, by NFC -> paths relative to the root."""
        found: dict[str, list[str]] = {}
        for path in look(self.root).videos:
            found.setdefault(nfc(path.rpartition("/")[2].rpartition(".")[0]), []).append(path)
        return found

    def find(self, stem: str, usual: str, prefer: Sequence[str] = (), never: Container[str] = ()) -> str:
        """The path of a video, of several that under the earliest folder of `prefer`; `usual` where there is none.

        One in a folder of `never` is another video of the same name.
        """
        found = self.by_stem.get(nfc(stem), [])
        paths = [path for path in found if not any(name in never for name in path.split("/")[:-1])]
        return min(paths, key=lambda path: _rank(path, prefer), default=usual)

    def find_listed(self, name: str, prefer: Sequence[str], *, alone: bool) -> str:
        """The path that a list names, from the root or from any folder on; the extension may be another.

        Where it's in another folder, and no other listed video has its name (`alone`), the one file of that name.
        """
        paths = self.by_stem.get(nfc(Path(name).stem), [])
        ending = nfc("/" + Path(name).with_suffix("").as_posix())
        exact = [path for path in paths if nfc(f"/{Path(path).with_suffix('').as_posix()}").endswith(ending)]
        if not exact and alone and len(paths) == 1:
            return paths[0]
        return min(exact, key=lambda path: (path != name, _rank(path, prefer)), default=name)


def _rank(path: str, prefer: Sequence[str]) -> int:
    """The first of the folder names that the path has."""
    folders = path.split("/")[:-1]
    return next((i for i, name in enumerate(prefer) if name in folders), len(prefer))


def near(root: Path, *patterns: str) -> list[Path]:
    """Files of these names in the root or a folder of it, not deeper; none that is hidden."""
    found = (path for pattern in patterns for depth in ("", "[!.]*/") for path in root.glob(depth + pattern))
    return sorted(path for path in found if not path.name.startswith(".") and path.is_file())


def only(root: Path, *patterns: str) -> Path:
    """The one file of these names. Raises UserError if there is none or another."""
    return one(root, near(root, *patterns), " or ".join(patterns))


def one(root: Path, paths: Sequence[Path], kind: str) -> Path:
    """The one of these paths under the root. Raises UserError if there is none of its kind, or several."""
    if not paths:
        raise UserError(f"{root} has no {kind}; {README}")
    if len(paths) > 1:
        names = ", ".join(path.relative_to(root).as_posix() for path in paths)
        raise UserError(f"{root} has more than one {kind}: {names}; keep one")
    return paths[0]


def checked_label(label: int, classes: Sequence[str], path: Path) -> int:
    """The label. Raises UserError if there is no such class."""
    if not isinstance(label, int):
        raise UserError(f"{path}: {label!r} is no number of a class; a video has one label")
    if not 0 <= label < len(classes):
        raise UserError(f"{path}: label {label} is not among the {len(classes)} classes")
    return label


def in_folder(files: Files, folder: str, name: Path, classes: Sequence[str]) -> Video:
    """The video of this name under its class's folder."""
    others = set(classes) - {folder}
    return Video(files.find(name.stem, f"{folder}/{name.name}", [folder], others), classes.index(folder))
