"""Our own list files."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import ListFiles


@dataclass(frozen=True)
class Ready(ListFiles):
    """Our own list files: train.txt, val.txt and classes.txt."""

    def recognises(self, root: Path) -> bool:
        return all((root / name).is_file() for name in (self.train, self.val, self.classes))
