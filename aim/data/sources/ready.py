"""List files of ours."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import ListFiles


@dataclass(frozen=True)
class Ready(ListFiles):
    """List files of ours: train.txt, val.txt and classes.txt."""

    def recognises(self, root: Path) -> bool:
        return all((root / name).is_file() for name in (self.train, self.val, self.classes))
