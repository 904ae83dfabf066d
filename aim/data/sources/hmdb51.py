"""HMDB-51."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import README, Lists, Video, entries, read_lines
from aim.data.sources.annotations import Files, Split, in_folder, near
from aim.ground.errors import UserError


@dataclass(frozen=True)
class HMDB51:
    """HMDB-51: CLASS_test_split1.txt, in which 1 is training, 2 is test and 0 is neither, and CLASS/*.avi."""

    split: Split

    def recognises(self, root: Path) -> bool:
        return bool(near(root, "*_test_split1.txt"))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError if there is no list of this split."""
        ending = f"_test_split{self.split}.txt"
        paths = {path.name.removesuffix(ending): path for path in near(root, f"*{ending}")}
        if not paths:
            raise UserError(f"{root} has no *{ending}; {README}")
        classes = sorted(paths)
        files = Files(root)
        lists: dict[str, list[Video]] = {"1": [], "2": [], "0": []}
        for name in classes:
            for _, line in entries(read_lines(paths[name])):
                video, _, part = line.strip().rpartition(" ")
                if part not in lists:
                    raise UserError(f"{paths[name]}: {line.strip()!r} is not a name and 0, 1 or 2")
                lists[part].append(in_folder(files, name, Path(video.strip()), classes))
        return Lists(lists["1"], lists["2"], classes)
