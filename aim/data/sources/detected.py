"""The detected format of a root."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aim.data.lists import README, Lists, require_folder
from aim.data.sources.annotations import Format, Split
from aim.data.sources.charades import Charades
from aim.data.sources.cvat import CVAT
from aim.data.sources.diving48 import Diving48
from aim.data.sources.epic_kitchens import EpicKitchens
from aim.data.sources.feral import FERAL
from aim.data.sources.folders import Folders
from aim.data.sources.hmdb51 import HMDB51
from aim.data.sources.kinetics import Kinetics
from aim.data.sources.label_studio import LabelStudio
from aim.data.sources.mmaction2 import MMAction2
from aim.data.sources.ready import Ready
from aim.data.sources.something_something import SomethingSomething
from aim.data.sources.table import Table
from aim.data.sources.ucf101 import UCF101
from aim.data.sources.via import VIA
from aim.data.sources.webdataset import WebDataset
from aim.ground.errors import UserError
from aim.ground.foreign import read_json
from aim.ground.kinds import name_of

WAY_OUT = "delete it, or give it another name"


@dataclass(frozen=True)
class Auto:
    """Whichever of the formats the root holds: annotations before our list files, these before tables, shards, folders.

    Lists that `aim.prepare` made from tables, folders or shards in place are made again: the videos may have changed.
    """

    split: Split
    val_share: float  # of class folders

    def recognises(self, root: Path) -> bool:
        return bool(self.found(root))

    def found(self, root: Path) -> list[Format]:
        """The formats that the root's files look like."""
        require_folder(root)
        published: list[Format] = [
            Kinetics(), SomethingSomething(), Diving48(), UCF101(self.split), HMDB51(self.split), MMAction2(),
            Charades(parts=False), EpicKitchens("verb"),
        ]  # fmt: skip
        share = self.val_share
        of_tools: list[Format] = [VIA(share, None), CVAT(share, None), LabelStudio(share, 24.0), FERAL(share)]
        other: list[Format] = [*of_tools, Table(share), WebDataset(share), Folders(share)]
        if not _made_here(root):
            other.insert(0, Ready("train.txt", "val.txt", "classes.txt"))
        found = [form for form in published if form.recognises(root)]
        return found or [form for form in other if form.recognises(root)][:1]

    def __call__(self, root: Path) -> Lists:
        """See `of`."""
        return self.of(root)(root)

    def of(self, root: Path) -> Format:
        """The root's format. Raises UserError if it holds no known one, or several."""
        found = self.found(root)
        if len(found) != 1:
            names = ", ".join(name_of("format", form) for form in found)
            raise UserError(
                f"data.root={root} holds {f'several formats ({names})' if found else 'no annotations that are known'}; "
                f"say which with format=NAME; {README}"
            )
        return found[0]


def last_report(folder: Path) -> dict[str, Any]:
    """The contents of an earlier run's `prepare.json`, or nothing."""
    file = folder / "prepare.json"
    if not file.exists():
        return {}
    found: dict[str, Any] = read_json(file, dict, "what aim.prepare wrote", WAY_OUT)
    for key in ("settings", "shorter"):
        if not isinstance(found.get(key, {}), dict):
            raise UserError(f"{file} can't be read as what aim.prepare wrote ({key} is no object); {WAY_OUT}")
    return found


def _made_here(root: Path) -> bool:
    """Whether the root's list files are from an `aim.prepare` that wrote no videos."""
    settings = last_report(root).get("settings", {})
    written = settings.get("transcode") or settings.get("shards")
    return (
        settings.get("format") in ("folders", "webdataset", "csv", "via", "cvat", "label_studio", "feral")
        and not written
    )
