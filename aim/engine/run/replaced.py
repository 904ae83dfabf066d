"""The stamps of a run's videos at its start, in its `videos.json`: a run reports replaced videos."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import Video, spread
from aim.data.stamp import differs_in_time_alone, stamps_of
from aim.data.stored.shards import source_of
from aim.ground import files

NAME = "videos.json"
MOST = 5000  # videos; of more so many, evenly spread over the list


@dataclass(frozen=True)
class Changes:
    """The videos that aren't as they were: others, by size, beginning or end; or touched, which have another time."""

    others: Sequence[str] = ()
    touched: Sequence[str] = ()
    known: bool = True  # whether the run has noted how its videos were

    def __str__(self) -> str:
        if not self.known:
            return "whether its videos were replaced isn't known: an earlier version didn't note how they were"
        parts = {"were replaced": self.others, "were touched (another time, the same size and ends)": self.touched}
        found = [f"{len(paths)} of its videos {what}, such as {paths[0]}" for what, paths in parts.items() if paths]
        return f"since then {' and '.join(found)}" if found else ""


def note(run_dir: Path, root: Path, videos: Sequence[Video]) -> None:
    """Write how the videos are now."""
    files.write_json(run_dir / NAME, {"root": _place(root, videos), "stamps": _stamps(root, videos)})


def changes(run_dir: Path, root: Path, videos: Sequence[Video]) -> Changes:
    """How the videos differ from the noted ones. In another place, such as in shards, their times don't count."""
    try:
        noted = json.loads((run_dir / NAME).read_text(encoding="utf-8"))
        place, before = noted["root"], {path: str(stamp) for path, stamp in noted["stamps"].items()}
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return Changes(known=False)
    now = _stamps(root, videos)
    differ = [path for path in now if before.get(path) not in (now[path], None)]
    touched = [path for path in differ if differs_in_time_alone(before[path], now[path])]
    others = sorted({*differ} - {*touched})
    return Changes(others, touched if place == _place(root, videos) else ())


def _place(root: Path, videos: Sequence[Video]) -> str:
    """Where the videos lie."""
    return f"{root.resolve()}{' (shards)' if videos[0].stored else ''}"


def _stamps(root: Path, videos: Sequence[Video]) -> dict[str, str]:
    """The stamp of each video that is there."""
    looked_at = spread(videos, MOST)
    found = zip(looked_at, stamps_of(source_of(root, video) for video in looked_at), strict=True)
    return {video.path: stamp for video, stamp in found if stamp}
