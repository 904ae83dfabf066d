"""The fastest reader for a folder's videos."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from aim.data.readers.decord import Decord
from aim.data.readers.interface import Pick, Reader, Source, file_of
from aim.data.readers.pyav import PyAV
from aim.data.sources.detected import last_report


@dataclass(frozen=True)
class Auto:
    """PyAV for files of `aim.prepare`, where it is several times as fast; for other videos Decord, if installed."""

    def of(self, root: Path) -> tuple[Reader, str]:
        """The reader of a data set's videos, and `NAME, as WHY` in words. Raises UserError for a damaged report."""
        if last_report(root).get("settings", {}).get("transcode"):
            return PyAV(), f"pyav, as aim.prepare made data.root={root}"
        if importlib.util.find_spec("decord") is None:
            return PyAV(), "pyav, as decord isn't installed"
        return Decord(), f"decord, as aim.prepare didn't write the videos of data.root={root}"

    def __call__(self, path: Source, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        """See `interface.Reader`; without a given root, it is the folder of the file."""
        reader, _ = self.of(file_of(path).parent)
        return reader(path, pick, span=span)
