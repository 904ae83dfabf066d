"""The folds of a cross-validation, as settings name them: one is K/N, or K of a folder of lists; all are a sweep."""

import re
from collections.abc import Sequence
from pathlib import Path

from aim.ground.errors import UserError
from aim.ground.paths import path_of

ENDINGS = (".txt", ".csv", ".tsv")
NAMED = re.compile(r"(?:fold|split)[ _-]*(\d+)", re.IGNORECASE)


def parsed(fold: str | int, folds: str | None) -> tuple[int, int]:
    """The number of a fold, from 1, and how many there are; 0 where a folder says it. Raises UserError for none."""
    text = str(fold)
    number, slash, count = text.partition("/")
    if text.startswith("all"):
        raise UserError(f"data.fold={text} is a sweep, not a value of the setting; use data.fold=1{slash}{count}")
    if folds is not None:
        if not text.isdecimal():
            raise UserError(f"data.fold={text} of data.folds={folds}, which says how many there are; use data.fold=1")
        return int(text), 0
    if not (number.isdecimal() and count.isdecimal()):
        raise UserError(
            f"data.fold={text} is none; use data.fold=1/10, the first of ten, or data.folds=DIR data.fold=1"
        )
    if int(count) < 2 or not 1 <= int(number) <= int(count):
        most = max(2, int(count))
        raise UserError(f"data.fold={text} is none; use data.fold=1/{most} to data.fold={most}/{most}, or all/{most}")
    return int(number), int(count)


def name_of(fold: str | int) -> str:
    """The name of a fold's folder."""
    return f"fold{str(fold).replace('/', 'of')}"


def is_fold(folder: Path) -> bool:
    """Whether a folder has the name of a fold's."""
    return re.fullmatch(r"fold\d+(of\d+)?", folder.name) is not None


def inside(root: Path | None, folder: str) -> Path:
    """A folder of lists: inside the data set's root, or else wherever it leads."""
    path = path_of(folder)
    return root / path if root is not None and (root / path).is_dir() else path


def files_in(folder: Path) -> dict[int, list[Path]]:
    """The lists of a folder by the number of their fold, which is in their name or in that of a folder around them.

    Raises UserError if there are none.
    """
    found: dict[int, list[Path]] = {}
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        name = path.relative_to(folder).as_posix()
        numbers = NAMED.findall(name) or re.findall(r"\d+", name)
        if path.suffix.lower() in ENDINGS and path.is_file() and numbers:
            found.setdefault(int(numbers[-1]), []).append(path)
    if not found:
        raise UserError(
            f"data.folds={folder} has no lists of folds; name them fold1_train.txt and fold1_val.txt, and so on"
        )
    return dict(sorted(found.items()))


def expanded(words: Sequence[str]) -> list[str]:
    """The words of a command, with paths in quotes; those that name all folds become a sweep over them.

    `data.fold=all/10` does, and data.folds=DIR without data.fold, or with data.fold=all. Raises UserError if it
    isn't known how many there are.
    """
    pairs = (word.partition("=") for word in words)
    given = {key: value.strip("'\"").replace(r"\'", "'") for key, equals, value in pairs if equals}
    fold, folder = given.get("data.fold"), given.get("data.folds", "null")
    if folder != "null" and fold in (None, "all"):
        root = given.get("data.root")
        every = [str(number) for number in files_in(inside(path_of(root) if root else None, folder))]
    elif fold is not None and fold.startswith("all"):
        count = fold.removeprefix("all").removeprefix("/")
        if not count.isdecimal() or int(count) < 2 or folder != "null":
            raise UserError(f"data.fold={fold} is none; use data.fold=all/10 for ten folds, or data.folds=DIR")
        every = [f"{number}/{count}" for number in range(1, int(count) + 1)]
    else:
        return [*words]
    others = [word for word in words if not word.startswith("data.fold=")]
    return [*(["-m"] if not {"-m", "--multirun"} & {*words} else []), *others, f"data.fold={','.join(every)}"]
