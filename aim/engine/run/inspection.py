"""A check of all files of a small data set before training, so that all bad ones are named at once.

Of somebody's own videos (data=folder), that is, up to MOST of them. Published data sets are checked by `aim.prepare`,
and with hundreds of thousands of files a run doesn't wait for that: it skips what it can't read, up to `data.max_bad`.
Files that were found good aren't decoded again as long as they stay the same (aim.data.stamp).
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from aim.data import cropping
from aim.data.checking import VERSION, bad_files, ends_early
from aim.data.lists import Lists, Video
from aim.data.readers.frames import Frames
from aim.data.readers.interface import BadVideo
from aim.data.repeats import repeats
from aim.data.scanning import some
from aim.data.stamp import stamps_of
from aim.engine.machine import distributed
from aim.engine.run.settings import Run
from aim.engine.telling import bad_videos
from aim.ground import files
from aim.ground.console import Display
from aim.ground.errors import UserError, say
from aim.ground.paths import cache_folder

MOST = 5000  # files
NAMED = 20  # files, a line each
FEW = 5  # training videos of a class


def inspected(run: Run, lists: Lists) -> Lists:
    """The lists with their bad files known, on every rank; rank 0 looks at them, and names them.

    Raises UserError, on all ranks, where the run is not to go on without them.
    """
    if distributed.rank() == 0:
        tell(run.data.folder, lists)
        cropping.say_once(run.data.folder, lists.test, run.clip, run.views)
    videos = lists.videos
    paths = sorted({video.path for video in videos})
    in_shards = any(video.stored for video in videos)
    if run.data.num_classes is not None or len(paths) > MOST or in_shards or isinstance(run.reader, Frames):
        return lists
    found = _found(run, paths) if distributed.rank() == 0 else None
    if found is not None:
        name_late(run.data.folder, [video for video in videos if video.path not in found])
    distributed.meet()  # a slow disk takes longer than a collective waits
    bad = distributed.share(found) or {}
    if bad:
        judge(run, lists, bad)
    return replace(lists, bad=bad)


def tell(root: Path, lists: Lists) -> None:
    """Say which videos were left out, which are listed more than once, and which class has nothing to learn from."""
    parts = dict(zip(("training", "validation", "test"), lists.parts.values(), strict=False))
    few = sum(map(len, parts.values())) <= MOST
    listed = repeats(root, parts, lists.classes, compare=few)
    learnt = Counter(label for video in lists.train for label in video.labels)
    without = [name for label, name in enumerate(lists.classes) if not learnt[label]]
    if without:
        listed.append(f"no training video is of class {some(without)}")
    if rare := sorted((number, label) for label, number in learnt.items() if number < FEW):
        names = some([f"{lists.classes[label]} {number}" for number, label in rare])
        listed.append(f"{len(rare)} of {len(lists.classes)} classes have fewer than {FEW} training videos: {names}")
    for text in (*lists.notes, *(f"warning: {text}" for text in listed)):
        say(text)


def _found(run: Run, paths: Sequence[str]) -> dict[str, str]:
    """Path -> reason, of bad files; said on stderr, together with folders that hold no video."""
    root = run.data.folder
    memory = memory_of(root)
    remembered = recall(memory) if memory else {}
    stamps = {path: stamp for path, stamp in zip(paths, stamps_of(root / path for path in paths), strict=True) if stamp}
    unknown = [path for path in paths if path not in stamps or remembered.get(path) != stamps[path]]
    bad = look_at(run, unknown)
    good = {path: stamps[path] for path in unknown if path in stamps and path not in bad}
    if good and memory:
        with suppress(UserError):  # then they are looked at again
            files.write_json(memory, remembered | good)
    lines = [f"{root / path}: {reason}" for path, reason in sorted(bad.items())]
    if len(lines) > NAMED:
        bad_videos.name(run.directory(), bad)
        lines[NAMED:] = [f"and {len(lines) - NAMED} more: {run.directory() / 'bad_videos.txt'}"]
    for line in lines:
        say(line)
    return bad


def look_at(run: Run, paths: Sequence[str]) -> dict[str, str]:
    """Path -> reason, of the files that are bad."""
    bad = {}
    if paths:
        with Display("checking videos", len(paths), visible=True) as display:
            found = bad_files(run.data.folder, paths, workers=run.data.workers, timeout=run.data.timeout)
            for done, (path, reason) in enumerate(found, 1):
                if reason is not None:
                    bad[path] = reason
                display.update(done, f"{len(bad)} bad")
    return bad


def name_late(root: Path, videos: Sequence[Video]) -> None:
    """Say which segments end after their video does: there is less in them than their list says, or nothing."""
    ends = dict[str, float]()
    for video in videos:
        if video.end is not None:
            ends[video.path] = max(video.end, ends.get(video.path, 0.0))
    late = dict[str, float]()
    for path, end in ends.items():
        with suppress(BadVideo):  # which the loader judges
            if (early := ends_early(root / path, end)) is not None:
                late[path] = early
    lines = []
    for video in videos:
        if video.start is not None and video.end is not None and video.end > (lasts := late.get(video.path, math.inf)):
            where = "is after" if video.start >= lasts else "ends after"
            segment = f"a segment from {video.start:g} to {video.end:g} s"
            lines.append(f"{root / video.path}: {segment} {where} the video's end at {lasts:.2f} s")
    if len(lines) > NAMED:
        lines[NAMED:] = [f"and {len(lines) - NAMED} more segments"]
    for line in lines:
        say(f"warning: {line}")


def judge(run: Run, lists: Lists, bad: dict[str, str]) -> None:
    """Raise UserError, with the command that continues, if bad files are not to be skipped, or are too many."""
    parts: list[tuple[str, list[Video], str, str]] = [
        ("training", lists.train, "data.on_error", run.data.on_error),
        ("validation", lists.val, "data.eval_on_error", run.data.eval_on_error),
        ("test", lists.third or [], "data.eval_on_error", run.data.eval_on_error),
    ]
    counts, settings, share = list[str](), list[str](), 0.0
    for name, videos, setting, policy in parts:
        count = sum(video.path in bad for video in videos)
        if videos and count == len(videos):
            raise UserError(f"none of the {count} {name} videos can be read; is data.root={run.data.root} right?")
        if count:
            counts.append(f"{count} of {len(videos)} {name} videos")
            share = max(share, count / len(videos))
            settings += [f"{setting}=skip"] if policy == "raise" and f"{setting}=skip" not in settings else []
    if share > run.data.max_bad:
        settings.append(f"data.max_bad={math.ceil(1000 * share) / 1000}")
    if settings:
        raise UserError(
            f"{' and '.join(counts)} can't be read, see above; fix or remove them, or continue without them: the same "
            f"command with {' '.join(settings)}"
        )
    learnt = {label for video in lists.train for label in video.labels}
    readable = {label for video in lists.train if video.path not in bad for label in video.labels}
    say(f"continues without {' and '.join(counts)}")
    for name in sorted(lists.classes[label] for label in learnt - readable):
        say(f"no training video is left of class {name}")


def memory_of(root: Path) -> Path | None:
    """Where it's remembered which files of a folder were good: not in the folder, which is the user's.

    None where nothing can be remembered, which is said.
    """
    try:
        cache = cache_folder()
    except UserError as error:
        say(f"all videos are checked each time: {error}")
        return None
    name = hashlib.sha256(f"{VERSION} {root.resolve()}".encode()).hexdigest()[:16]
    return cache / "checked" / f"{name}.json"


def recall(memory: Path) -> dict[str, str]:
    """Path -> stamp of files that were good; nothing where it is not what we wrote."""
    try:
        found: Any = json.loads(memory.read_text(encoding="utf-8"))
        return {path: stamp for path, stamp in found.items() if isinstance(stamp, str)}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
