"""Exports of CVAT for video 1.1: an annotations.xml for each video."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from aim.data.columns import Row
from aim.data.lists import README, Lists
from aim.data.sources.annotations import Files, near
from aim.data.sources.frame_times import FrameTimes, runs
from aim.data.sources.table import Table
from aim.ground.errors import UserError
from aim.ground.foreign import reading

BEGIN = 1000  # bytes that hold the first element


@dataclass(frozen=True)
class CVAT:
    """Exports in the format "CVAT for video 1.1", unpacked beside the videos; a hash of the path holds out a share.

    A track is a part of its video, from its first frame to the one from which on it's outside, with its label or with
    the values of an attribute.
    """

    val_share: float
    attribute: str | None  # the attribute with the labels; None: the tracks' own labels

    def recognises(self, root: Path) -> bool:
        return bool(exports(root))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError if there is no such file, and for a video that is missing, whose frames have no times."""
        if not (found := exports(root)):
            raise UserError(f"{root} has no XML that CVAT exported as 'CVAT for video 1.1'; {README}")
        files = Files(root)
        return Table(self.val_share).of_rows(root, {path: self._rows(path, files) for path in found}, [])

    def _rows(self, path: Path, files: Files) -> list[Row]:
        with reading(path, "an export of CVAT for video 1.1", README):
            tree = ElementTree.parse(path).getroot()
            source = tree.findtext("meta/task/source") or tree.findtext("meta/job/source")
            found = [(each.get("id"), label, first, after) for each in tree.iter("track")
                    for label, first, after in self._runs(each)]  # fmt: skip
        if source is None:
            raise UserError(f"{path} names no video as meta/task/source; export each task alone, as CVAT for video 1.1")
        times = FrameTimes.of(files, source, path)
        return [
            Row(times.path, label, *times.span(first, after), place=f"{path}: track {track}")
            for track, label, first, after in found
        ]  # fmt: skip

    def _runs(self, track: ElementTree.Element) -> Iterator[tuple[str, int, int]]:
        """Label, first frame, and the frame after the last."""
        shapes = {int(frame): shape for shape in track if (frame := shape.get("frame")) is not None}
        outside = [frame for frame, shape in shapes.items() if shape.get("outside") == "1"]
        labels = {frame: None if frame in outside else self._label(track, shapes[frame]) for frame in sorted(shapes)}
        yield from runs(labels.items())

    def _label(self, track: ElementTree.Element, shape: ElementTree.Element) -> str | None:
        if self.attribute is None:
            return track.attrib["label"]
        return next((each.text for each in (*shape, *track) if each.get("name") == self.attribute and each.text), None)


def exports(root: Path) -> list[Path]:
    """The XML files of CVAT."""
    return [path for path in near(root, "*.xml") if b"<annotations>" in path.read_bytes()[:BEGIN]]
