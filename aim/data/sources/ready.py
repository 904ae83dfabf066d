"""Our own list files."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.list_files import ListFiles, usual_files
from aim.data.lists import USUAL


@dataclass(frozen=True)
class Ready(ListFiles):
    """Our own list files: train.txt, val.txt and classes.txt."""

    def recognises(self, root: Path) -> bool:
        return bool(usual_files(root).keys() & USUAL.keys())
