"""A folder per class."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.class_folders import ClassFolders
from aim.data.lists import Lists, require_folder
from aim.data.scanning import folders_in


@dataclass(frozen=True)
class Folders(ClassFolders):
    """A folder per class: train/CLASS/* and val/CLASS/*, or CLASS/*, split by a hash of the path."""

    def recognises(self, root: Path) -> bool:
        return bool(folders_in(root))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError if there are no classes, or half of a split is missing."""
        require_folder(root)
        return self.scan(root)
