"""List files that tests write."""

from collections.abc import Iterable
from pathlib import Path

from aim.data.lists import Video, format_line


def write_list(path: Path, videos: Iterable[Video]) -> None:
    """A list file, as `aim.prepare` writes it."""
    path.write_text("".join(f"{format_line(video)}\n" for video in videos), encoding="utf-8")
