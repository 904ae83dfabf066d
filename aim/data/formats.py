"""Reads the annotations that data sets are published with into lists; `aim.prepare` writes those as list files.

Every format finds the video files by their names, wherever under the root they lie. A listed video without a file keeps
the path where it's usually found.
"""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from aim.data.lists import README, VIDEO_EXTENSIONS, ClassFolders, ListFiles, Lists, Video, read_lines, require_folder
from aim.errors import UserError


class Format(Protocol):
    """Reads the annotations under a root, or says that they aren't there."""

    def recognises(self, root: Path) -> bool: ...

    def __call__(self, root: Path) -> Lists: ...


@dataclass(frozen=True)
class Files:
    """The video files under a root."""

    root: Path

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """Name without extension -> paths relative to the root. Links to folders are followed, once."""
        found: dict[str, list[str]] = {}
        seen = set[str]()
        for folder, folders, names in os.walk(self.root, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if (real := os.path.realpath(folder)) in seen:
                folders.clear()
                continue
            seen.add(real)
            inside = Path(folder).relative_to(self.root)
            for name in sorted(names):
                stem, extension = os.path.splitext(name)  # noqa: PTH122 - a million Paths would take a minute
                if extension.lower() in VIDEO_EXTENSIONS and not name.startswith("."):
                    found.setdefault(stem, []).append((inside / name).as_posix())
        return found

    def find(self, stem: str, usual: str, prefer: Sequence[str] = (), never: Container[str] = ()) -> str:
        """The path of a video, of several that under the earliest folder of `prefer`; `usual` where there is none.

        One in a folder of `never` is another video of the same name.
        """
        paths = [path for path in self.by_stem.get(stem, []) if not any(name in never for name in path.split("/")[:-1])]
        return min(paths, key=lambda path: _rank(path, prefer), default=usual)

    def find_listed(self, name: str, prefer: Sequence[str], *, alone: bool) -> str:
        """The path that a list names, from the root or from any folder on; the extension may be another.

        Where it's in another folder, and no other listed video has its name (`alone`), the one file of that name.
        """
        paths = self.by_stem.get(Path(name).stem, [])
        ending = "/" + Path(name).with_suffix("").as_posix()
        exact = [path for path in paths if f"/{Path(path).with_suffix('').as_posix()}".endswith(ending)]
        if not exact and alone and len(paths) == 1:
            return paths[0]
        return min(exact, key=lambda path: (path != name, _rank(path, prefer)), default=name)


def _rank(path: str, prefer: Sequence[str]) -> int:
    """The first of the folder names that the path has."""
    folders = path.split("/")[:-1]
    return next((i for i, name in enumerate(prefer) if name in folders), len(prefer))


def near(root: Path, *patterns: str) -> list[Path]:
    """Files of these names in the root or a folder of it, not deeper."""
    return sorted(path for pattern in patterns for depth in ("", "*/") for path in root.glob(depth + pattern))


def only(root: Path, *patterns: str) -> Path:
    """The one file of these names. Raises UserError where there is none or another."""
    paths = near(root, *patterns)
    if len(paths) != 1:
        raise UserError(
            f"{root} has {'no' if not paths else 'several'} {' or '.join(patterns)}"
            + (
                f": {', '.join(path.relative_to(root).as_posix() for path in paths)}; keep one"
                if paths
                else f"; {README}"
            )
        )
    return paths[0]


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises UserError where it's broken."""
    try:
        return json.loads("\n".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


@dataclass(frozen=True)
class Kinetics:
    """Kinetics-400, -600, -700: CSVs with `label,youtube_id,time_start,time_end`, in any of the usual layouts.

    A video is ID_000010_000020.mp4; a copy under CVDF's folder of replacements for corrupted files goes first.
    Classes are in alphabetical order, as everywhere.
    """

    def recognises(self, root: Path) -> bool:
        return any(_is_kinetics(path) for path in near(root, "*train*.csv"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a CSV that is missing, and for columns that lack."""
        rows = {"train": self._rows(root, "train"), "val": self._rows(root, "val")}
        classes = sorted({row["label"] for row in rows["train"]})
        if not classes:
            raise UserError(f"{root}: the training CSV lists no video; {README}")
        numbers = {name: i for i, name in enumerate(classes)}
        if unknown := sorted({row["label"] for row in rows["val"]} - set(classes)):
            raise UserError(
                f"{root}: the validation CSV has classes that the training CSV lacks: {', '.join(unknown[:5])}"
            )
        files = Files(root)
        folders = {name for paths in files.by_stem.values() for path in paths for name in path.split("/")[:-1]}
        corrected = sorted(name for name in folders if name.startswith("replacement"))
        lists: dict[str, list[Video]] = {}
        for split, listed in rows.items():
            lists[split] = []
            for row in listed:
                try:
                    start, end = (int(float(row[key])) for key in ("time_start", "time_end"))
                except (TypeError, ValueError) as error:
                    raise UserError(f"{root}: a row of the {split} CSV has no times: {row}; {README}") from error
                stem = f"{row['youtube_id']}_{start:06d}_{end:06d}"
                path = files.find(stem, f"{split}/{stem}.mp4", [*corrected, split])
                lists[split].append(Video(path, numbers[row["label"]]))
        return Lists(lists["train"], lists["val"], classes)

    def _rows(self, root: Path, split: str) -> list[dict[str, str]]:
        paths = [path for path in near(root, f"*{split}*.csv") if _is_kinetics(path)]
        if len(paths) != 1:
            names = ", ".join(path.relative_to(root).as_posix() for path in paths)
            raise UserError(
                f"{root} has several CSVs for {split}: {names}; keep one" if paths
                else f"{root} has no CSV for {split}, such as annotations/{split}.csv; {README}"
            )  # fmt: skip
        return list(csv.DictReader(read_lines(paths[0])))


def _is_kinetics(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return {"label", "youtube_id", "time_start", "time_end"} <= set(
            file.readline().strip().replace('"', "").split(",")
        )


@dataclass(frozen=True)
class SomethingSomething:
    """Something-Something v2: labels, train and validation JSON; a template without its brackets is a label."""

    def recognises(self, root: Path) -> bool:
        return bool(near(root, *self._names("labels"))) and bool(near(root, *self._names("validation")))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a JSON that is missing, and for a template that is no label."""
        labels = read_json(only(root, *self._names("labels")))
        if not isinstance(labels, dict):
            raise UserError(f"{root}: the labels are a {type(labels).__name__}, not template: number; {README}")
        numbers = {name: int(number) for name, number in labels.items()}
        classes = sorted(numbers, key=lambda name: numbers[name])
        files = Files(root)
        lists: dict[str, list[Video]] = {}
        for split in ("train", "validation"):
            path = only(root, *self._names(split))
            lists[split] = []
            for entry in read_json(path):
                label = entry["template"].replace("[", "").replace("]", "")
                if label not in numbers:
                    raise UserError(f"{path}: the template {entry['template']!r} is not among the labels")
                usual = f"20bn-something-something-v2/{entry['id']}.webm"
                lists[split].append(Video(files.find(str(entry["id"]), usual), classes.index(label)))
        return Lists(lists["train"], lists["validation"], classes)

    def _names(self, part: str) -> tuple[str, str]:
        return f"something-something-v2-{part}.json", f"{part}.json"


@dataclass(frozen=True)
class Diving48:
    """Diving-48 v2: Diving48_V2_train.json, Diving48_V2_test.json, Diving48_vocab.json, and rgb/*.mp4."""

    def recognises(self, root: Path) -> bool:
        return bool(near(root, "Diving48_*train.json"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a JSON that is missing; the labels of the first version are wrong."""
        paths = [only(root, f"Diving48_V2_{split}.json") for split in ("train", "test")]
        classes = [" ".join(parts) for parts in read_json(only(root, "Diving48_vocab.json"))]
        files = Files(root)
        lists = [
            [
                Video(
                    files.find(entry["vid_name"], f"rgb/{entry['vid_name']}.mp4"), _below(entry["label"], classes, path)
                )
                for entry in read_json(path)
            ]
            for path in paths
        ]
        return Lists(lists[0], lists[1], classes)


@dataclass(frozen=True)
class UCF101:
    """UCF-101: trainlist01.txt, testlist01.txt, classInd.txt, and CLASS/*.avi."""

    split: int  # 1 to 3

    def recognises(self, root: Path) -> bool:
        return bool(near(root, "classInd.txt"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a file that is missing, and a class that classInd.txt lacks."""
        _check_split(self.split)
        index = only(root, "classInd.txt")
        classes = [line.split()[1] for line in read_lines(index) if line.strip()]
        files = Files(root)
        lists = []
        for part in ("train", "test"):
            path = only(root, f"{part}list{self.split:02d}.txt")
            names = [line.split()[0] for line in read_lines(path) if line.strip()]
            if unknown := {name.split("/")[0] for name in names} - set(classes):
                raise UserError(f"{path}: {min(unknown)} is not among the classes of {index}")
            lists.append([_in_folder(files, name.split("/")[0], Path(name), classes) for name in names])
        return Lists(lists[0], lists[1], classes)


@dataclass(frozen=True)
class HMDB51:
    """HMDB-51: CLASS_test_split1.txt, in which 1 is training, 2 is test and 0 is neither, and CLASS/*.avi."""

    split: int  # 1 to 3

    def recognises(self, root: Path) -> bool:
        return bool(near(root, "*_test_split1.txt"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError where there is no list of this split."""
        _check_split(self.split)
        ending = f"_test_split{self.split}.txt"
        paths = {path.name.removesuffix(ending): path for path in near(root, f"*{ending}")}
        if not paths:
            raise UserError(f"{root} has no *{ending}; {README}")
        classes = sorted(paths)
        files = Files(root)
        lists: dict[str, list[Video]] = {"1": [], "2": [], "0": []}
        for name in classes:
            for line in read_lines(paths[name]):
                video, _, part = line.strip().rpartition(" ")
                if part not in lists:
                    raise UserError(f"{paths[name]}: {line.strip()!r} is not a name and 0, 1 or 2")
                lists[part].append(_in_folder(files, name, Path(video.strip()), classes))
        return Lists(lists["1"], lists["2"], classes)


@dataclass(frozen=True)
class MMAction2:
    """mmaction2's list files, such as kinetics400_train_list_videos.txt: `path label`, or `path frames label`.

    Class names are those of label_map*.txt or classes.txt; without these, of the folders where each holds one class,
    else numbers.
    """

    def recognises(self, root: Path) -> bool:
        return bool(self._lists(root, "train"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a list that is missing, and for a line without a label."""
        files = Files(root)
        listed = {split: self._read(root, split, files) for split in ("train", "val")}
        stems = Counter(Path(name).stem for pairs in listed.values() for name, _ in pairs)
        train, val = (
            [
                Video(files.find_listed(name, [f"videos_{split}", split], alone=stems[Path(name).stem] == 1), label)
                for name, label in pairs
            ]
            for split, pairs in listed.items()
        )
        num_classes = 1 + max(video.label for video in (*train, *val))
        names = near(root, "label_map*.txt", "classes.txt")
        if names:
            classes = [line.strip() for line in read_lines(names[0]) if line.strip()]
            for video in (*train, *val):
                _below(video.label, classes, names[0])
        else:
            classes = _folder_names([*train, *val], num_classes)
        return Lists(train, val, classes)

    def _lists(self, root: Path, split: str) -> list[Path]:
        return [path for path in near(root, "*.txt") if re.search(rf"[_-]{split}[_-].*list|list[_-]{split}", path.stem)]

    def _read(self, root: Path, split: str, files: Files) -> list[tuple[str, int]]:
        paths = self._lists(root, split)
        if len(paths) != 1:
            names = ", ".join(path.relative_to(root).as_posix() for path in paths)
            raise UserError(
                f"{root} has {f'several lists for {split}: {names}; keep one' if paths else f'no {split} list'}"
            )
        videos = []
        for number, line in enumerate(read_lines(paths[0]), 1):
            name, _, label = line.strip().rpartition(" ")
            if not line.strip():
                continue
            if not name or not label.isdecimal():
                raise UserError(f"{paths[0]}:{number}: {line.strip()!r} has no label")
            if Path(name).stem not in files.by_stem:
                name = re.sub(r" \d+$", "", name)  # the number of frames
            videos.append((name, int(label)))
        return videos


@dataclass(frozen=True)
class Folders(ClassFolders):
    """A folder per class: train/CLASS/* and val/CLASS/*, or CLASS/*, split by a hash of the path."""

    def recognises(self, root: Path) -> bool:
        return any(path.is_dir() and not path.name.startswith(".") for path in root.iterdir())

    def __call__(self, root: Path) -> Lists:
        """Raises UserError where there are no classes, or a class has no training video."""
        require_folder(root)
        return self.scan(root)


@dataclass(frozen=True)
class Ready(ListFiles):
    """List files of ours: train.txt, val.txt and classes.txt."""

    def recognises(self, root: Path) -> bool:
        return all((root / name).is_file() for name in (self.train, self.val, self.classes))


NAMES: dict[type, str] = {
    Kinetics: "kinetics",
    SomethingSomething: "ssv2",
    Diving48: "diving48",
    UCF101: "ucf101",
    HMDB51: "hmdb51",
    MMAction2: "mmaction2",
    Folders: "folders",
    Ready: "ready",
}  # the files of configs/format


@dataclass(frozen=True)
class Auto:
    """Whichever of the formats the root holds; annotations go before list files of ours, these before folders.

    Lists that `aim.prepare` has made of the folders are made anew, as there may be other videos by now.
    """

    split: int  # of UCF-101 and HMDB-51
    val_share: float  # of class folders

    def recognises(self, root: Path) -> bool:
        return bool(self.found(root))

    def found(self, root: Path) -> list[Format]:
        """The formats that the root's files look like."""
        require_folder(root)
        published: list[Format] = [
            Kinetics(), SomethingSomething(), Diving48(), UCF101(self.split), HMDB51(self.split), MMAction2(),
        ]  # fmt: skip
        other: list[Format] = [Ready("train.txt", "val.txt", "classes.txt"), Folders(self.val_share)]
        if _made_of_folders(root):
            del other[0]
        found = [form for form in published if form.recognises(root)]
        return found or [form for form in other if form.recognises(root)][:1]

    def __call__(self, root: Path) -> Lists:
        """See `of`."""
        return self.of(root)(root)

    def of(self, root: Path) -> Format:
        """The root's format. Raises UserError where it holds no known one, or several."""
        found = self.found(root)
        if len(found) != 1:
            names = ", ".join(NAMES[type(form)] for form in found)
            raise UserError(
                f"data.root={root} holds {f'several formats ({names})' if found else 'no annotations that are known'}; "
                f"say which with format=NAME; {README}"
            )
        return found[0]


def last_report(folder: Path) -> dict[str, Any]:
    """What `prepare.json` of an earlier run holds, or nothing."""
    try:
        found: dict[str, Any] = json.loads((folder / "prepare.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{folder / 'prepare.json'} is not what aim.prepare wrote ({error}); delete it") from error
    return found


def _made_of_folders(root: Path) -> bool:
    """Whether the root's list files are what `aim.prepare` made of its folders."""
    settings = last_report(root).get("settings", {})
    return settings.get("format") == "folders" and settings.get("transcode") is None


def _check_split(split: int) -> None:
    if split not in (1, 2, 3):
        raise UserError(f"format.split={split} must be 1, 2 or 3")


def _below(label: int, classes: Sequence[str], path: Path) -> int:
    if not 0 <= label < len(classes):
        raise UserError(f"{path}: label {label} is not among the {len(classes)} classes")
    return label


def _in_folder(files: Files, folder: str, name: Path, classes: Sequence[str]) -> Video:
    """The video of this name under its class's folder."""
    others = set(classes) - {folder}
    return Video(files.find(name.stem, f"{folder}/{name.name}", [folder], others), classes.index(folder))


def _folder_names(videos: Iterable[Video], num_classes: int) -> list[str]:
    """Each class's folder where videos of a class lie in one folder and those of others elsewhere, else numbers."""
    folders: dict[int, set[str]] = {}
    for video in videos:
        folders.setdefault(video.label, set()).add(Path(video.path).parent.name)
    names = [next(iter(folders.get(label, {""}))) for label in range(num_classes)]
    plain = all(len(folder) == 1 for folder in folders.values()) and len(set(names)) == num_classes and all(names)
    return names if plain else [str(label) for label in range(num_classes)]
