"""A folder per class."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import ClassFolders, Lists, require_folder


@dataclass(frozen=True)
class Folders(ClassFolders):
    """A folder per class: train/CLASS/* and val/CLASS/*, or CLASS/*, split by a hash of the path."""

    def recognises(self, root: Path) -> bool:
        return any(path.is_dir() and not path.name.startswith(".") for path in root.iterdir())

    def __call__(self, root: Path) -> Lists:
        """Raises UserError where there are no classes, or a class has no training video."""
        require_folder(root)
        return self.scan(root)
