"""The list files of mmaction2."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import FOLLOWED, Lists, Video, entries, labels_in, nfc, read_lines
from aim.data.sources.annotations import Files, checked_label, near, one
from aim.ground.errors import UserError


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
        if not train:
            raise UserError(f"{self._lists(root, 'train')[0]} names no video")
        num_classes = 1 + max(video.label for video in (*train, *val))
        names = near(root, "label_map*.txt", "classes.txt")
        if names:
            classes = [line.strip() for line in read_lines(names[0]) if line.strip()]
            for video in (*train, *val):
                checked_label(video.label, classes, names[0])
        else:
            classes = _folder_names([*train, *val], num_classes)
        return Lists(train, val, classes)

    def _lists(self, root: Path, split: str) -> list[Path]:
        return [path for path in near(root, "*.txt") if re.search(rf"[_-]{split}[_-].*list|list[_-]{split}", path.stem)]

    def _read(self, root: Path, split: str, files: Files) -> list[tuple[str, int]]:
        path = one(root, self._lists(root, split), f"{split} list, such as NAME_{split}_list_videos.txt")
        videos = []
        for number, line in entries(read_lines(path)):
            text = line.strip()
            name, _, label = text.rpartition(" ")
            if several := _several(text, files):
                raise UserError(
                    f"{path}:{number}: {text!r} has {len(several)} labels, {' and '.join(several)}; a video has "
                    "one: keep that, and no number of frames beside the name of a file"
                )
            if not name or not label.isdecimal():
                raise UserError(f"{path}:{number}: {text!r} has no label")
            if not _is_there(name, files):
                name = re.sub(r" \d+$", "", name)  # the number of frames
            videos.append((name, int(label)))
        return videos


def _is_there(name: str, files: Files) -> bool:
    return nfc(Path(name).stem) in files.by_stem


def _several(text: str, files: Files) -> list[str]:
    """The labels of a line that has more than one, as far as that can be told from a name with a number of frames."""
    if follows := FOLLOWED.fullmatch(text):
        return labels_in(follows[2], {})
    numbers = re.fullmatch(r"(.+?)((?: \d+){3,})", text)
    return numbers[2].split() if numbers and _is_there(numbers[1], files) else []


def _folder_names(videos: Iterable[Video], num_classes: int) -> list[str]:
    """Each class's folder where videos of a class lie in one folder and those of others elsewhere, else numbers."""
    folders: dict[int, set[str]] = {}
    for video in videos:
        folders.setdefault(video.label, set()).add(Path(video.path).parent.name)
    names = [next(iter(folders.get(label, {""}))) for label in range(num_classes)]
    plain = all(len(folder) == 1 for folder in folders.values()) and len(set(names)) == num_classes and all(names)
    return names if plain else [str(label) for label in range(num_classes)]
