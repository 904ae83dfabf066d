"""The lines of `bad_videos.txt`: a path as a list writes it, a tab, why the video can't be read."""

from collections.abc import Mapping
from pathlib import Path

from aim.data.lists import quoted, read_lines, unquoted
from aim.ground import files

NAME = "bad_videos.txt"


def read(run_dir: Path) -> dict[str, str]:
    """The videos that a run has named, and the reasons."""
    file, found = run_dir / NAME, dict[str, str]()
    for line in read_lines(file) if file.exists() else ():
        path, rest = unquoted(line)
        start, tab, reason = rest.partition("\t")
        if tab:
            found[start if path is None else path] = reason
    return found


def write(run_dir: Path, bad: Mapping[str, str]) -> None:
    """Write path -> reason, sorted."""
    files.write_lines(run_dir / NAME, (f"{quoted(path)}\t{reason}" for path, reason in sorted(bad.items())))
