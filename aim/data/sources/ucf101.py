"""UCF-101."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import README, Lists, entries, read_lines
from aim.data.sources.annotations import Files, Split, in_folder, near, only
from aim.ground.errors import UserError
from aim.ground.foreign import reading


@dataclass(frozen=True)
class UCF101:
    """UCF-101: trainlist01.txt, testlist01.txt, classInd.txt, and CLASS/*.avi."""

    split: Split

    def recognises(self, root: Path) -> bool:
        return bool(near(root, "classInd.txt"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a file that is missing, and a class that classInd.txt lacks."""
        index = only(root, "classInd.txt")
        with reading(index, "lines of a number and a class", README):
            classes = [line.split()[1] for line in read_lines(index) if line.strip()]
        files = Files(root)
        lists = []
        for part in ("train", "test"):
            path = only(root, f"{part}list{self.split:02d}.txt")
            words = [line.split() for _, line in entries(read_lines(path))]
            if several := next((line for line in words if len(line) > 2), None):
                raise UserError(f"{path}: {' '.join(several)!r} has more than a name and one label")
            names = [name for name, *_ in words]
            if unknown := {name.split("/")[0] for name in names} - set(classes):
                raise UserError(f"{path}: {min(unknown)} is not among the classes of {index}")
            lists.append([in_folder(files, name.split("/")[0], Path(name), classes) for name in names])
        return Lists(lists[0], lists[1], classes)
