"""The notes of a prepared folder, `sources.jsonl`: the encoding of its videos, and the source of each.

A video's line is added as soon as it is complete, so a killed job's work counts. A video without a line, of an earlier
version, is made again.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aim.ground import files
from aim.ground.foreign import read_lines, reading

NAME, ELSEWHERE = "sources.jsonl", "name another folder for out"


class Notes:
    """By path the stamp (aim.data.stamp) of each source, the video's own size, and the decodable part, `shorter`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Continue the notes of a folder, or begin them with the `settings`. Raises UserError for another file."""
        self.path = folder / NAME
        found = _read(self.path)
        self.made = dict[str, tuple[str, int]]()
        self.shorter = dict[str, str]()
        for line in found[1:]:
            self._keep(line)
        files.write_lines(self.path, map(json.dumps, found or [{"settings": dict(settings)}]))  # without a torn end

    def has(self, path: str, stamp: str | None, size: int | None) -> bool:
        """Whether the video of this path and size was made of the source with this stamp."""
        return None not in (stamp, size) and self.made.get(path) == (stamp, size)

    def add(self, path: str, stamp: str, size: int, shorter: str | None = None) -> None:
        """Note a complete video; `shorter`: the decodable part of its source, if incomplete."""
        line = {"file": path, "source": stamp, "bytes": size} | ({"shorter": shorter} if shorter else {})
        self._keep(line)
        files.add_line(self.path, json.dumps(line))

    def take(self, folders: Iterable[Path]) -> None:
        """Add the notes of other folders."""
        for folder in folders:
            for line in _read(folder / NAME)[1:]:
                if self.made.get(line["file"]) != (line["source"], line["bytes"]):
                    self.add(line["file"], line["source"], line["bytes"], line.get("shorter"))

    def _keep(self, line: Mapping[str, Any]) -> None:
        self.made[line["file"]] = line["source"], line["bytes"]
        self.shorter.pop(line["file"], None)
        if shorter := line.get("shorter"):
            self.shorter[line["file"]] = shorter


def settings_of(folder: Path) -> dict[str, Any] | None:
    """The encoding of a folder's videos; None without notes."""
    found = _read(folder / NAME)
    return found[0]["settings"] if found else None


def _read(path: Path) -> list[dict[str, Any]]:
    """The lines, without a last one that a killed job hasn't finished. Raises UserError for another's file."""
    found: list[dict[str, Any]] = read_lines(path, "the notes of aim.prepare", ELSEWHERE)
    with reading(path, "the notes of aim.prepare", ELSEWHERE):
        for line in found[1:]:
            hash(line["file"]), line["source"], line["bytes"]
        if path.exists() and not isinstance(found[0]["settings"], dict):
            raise TypeError("no settings")
    return found
