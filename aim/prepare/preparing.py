"""One pass over the videos of a data set, on all cores: checks them, writes them again, packs them into shards."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from aim.data.lists import Lists, Video
from aim.data.loading.pool import Pool
from aim.data.readers.interface import Source, file_of
from aim.data.stored.shards import source_of
from aim.engine.machine import distributed
from aim.ground.console import Display
from aim.ground.errors import UserError
from aim.ground.signals import Interrupted, stop_signals
from aim.prepare.packing import Packer, is_of
from aim.prepare.transcode import Transcode, Work, part_of

UNPACKED = ".unpacked"  # videos that are not in a shard yet, in a folder of shards


@dataclass(frozen=True)
class Report:
    """What is on the disk of what the annotations list; paths are those of the annotations."""

    listed: Lists
    kept: Lists  # without the bad ones, with the paths of the new videos
    missing: list[str]
    unreadable: dict[str, str]  # path -> why
    shorter: dict[str, str]  # path -> how much of it; these are kept

    def counts(self) -> dict[str, dict[str, int]]:
        """How many videos of each list there are, by what became of them."""
        missing = set(self.missing)
        found = {}
        for (split, listed), kept in zip(self.listed.parts.items(), self.kept.parts.values(), strict=True):
            found[split] = {
                "listed": len(listed),
                "present": sum(video.path not in missing for video in listed),
                "missing": sum(video.path in missing for video in listed),
                "unreadable": sum(video.path in self.unreadable for video in listed),
                "kept": len(kept),
            }
        return found


@dataclass
class Findings:
    """What the processes say of the videos."""

    unreadable: dict[str, str] = field(default_factory=dict)
    shorter: dict[str, str] = field(default_factory=dict)


def prepare(
    root: Path,
    listed: Lists,
    *,
    out: Path | None,
    verify: bool,
    transcode: Transcode | None,
    in_shards: bool = False,
    processes: int | None = None,
    timeout: float = 600.0,
) -> Report:
    """Look for the listed videos under `root`; write them again into `out`, or decode them if `verify`.

    Without `transcode` they go into `out` as they are, which is for shards alone. Videos that `out` holds since an
    earlier call are left alone. Nothing else is written: see `aim.prepare`. Raises UserError where no video is there,
    Interrupted after a signal.
    """
    videos = {video.path: video for part in listed.parts.values() for video in part}
    sources = {path: source_of(root, videos[path]) for path in sorted(videos)}
    # os.path is twice as fast.
    sources = {path: source for path, source in sources.items() if os.path.exists(file_of(source))}  # noqa: PTH110
    if not sources:
        raise UserError(
            f"none of the {len(videos)} listed videos is under {root}, such as {min(videos)}; is data.root right?"
        )
    names = {path: path for path in sources}
    found = Findings()
    if out is not None:
        names = new_names(sources, ".mp4" if transcode else None)
    work = Work(transcode)

    def renamed(videos: Iterable[Video]) -> list[Video]:
        left = (video for video in videos if video.path in names and video.path not in found.unreadable)
        return [video._replace(path=names[video.path]) for video in left]

    def lists() -> Lists:
        return listed.mapped(renamed)

    if out is not None and in_shards:
        found = pack(work, sources, names, lists(), out, processes, timeout)
    elif out is not None:
        tasks = {path: (source, out / names[path]) for path, source in sources.items()}
        tasks = {path: task for path, task in tasks.items() if not is_done(*task)}
        found = work_through(work, tasks, processes, timeout, "transcode")
    elif verify:
        tasks = {path: (source, root / path) for path, source in sources.items()}
        found = work_through(Work(None), tasks, processes, timeout, "verify")
    missing = [path for path in sorted(videos) if path not in sources]
    return Report(listed, lists(), missing, found.unreadable, found.shorter)


def pack(
    work: Work, sources: Mapping[str, Source], names: Mapping[str, str], lists: Lists, out: Path,
    processes: int | None, timeout: float,
) -> Findings:  # fmt: skip
    """Put the videos that no shard in `out` has yet into shards, each as soon as it's done."""
    made = out / UNPACKED

    def forget(source: Source) -> None:
        if work.transcode:
            file_of(source).unlink()

    packer = Packer(out, lists, forget)
    tasks = {}
    # In an order of no meaning, for who reads shards from their beginning.
    for path in sorted(sources, key=lambda path: hashlib.sha256(path.encode()).digest()):
        source, target = sources[path], made / names[path]
        if packer.has(names[path], file_of(source).stat().st_mtime):
            target.unlink(missing_ok=True)  # its shard was written, and then the program killed
        elif work.transcode is None:
            packer.add(names[path], source)
        elif is_done(source, target):
            packer.add(names[path], target)
        else:
            tasks[path] = (source, target)
    found = work_through(
        work, tasks, processes, timeout, "transcode", lambda path: packer.add(names[path], made / names[path])
    )
    packer.close()
    shutil.rmtree(made, ignore_errors=True)
    return found


def new_names(paths: Iterable[str], suffix: str | None) -> dict[str, str]:
    """The path of each video's new file, relative to the new root, with its own suffix or another.

    No two differ in their suffix alone, which would be one sample of a shard. Raises UserError for a path outside of
    the root.
    """
    names: dict[str, str] = {}
    taken = set[str]()
    for path in paths:
        if path.startswith("/") or ".." in path.split("/"):
            raise UserError(f"{path} is not a path below data.root; only such videos can be written to out=DIR")
        stem = PurePosixPath(path).with_suffix("").as_posix()
        stem = path if stem in taken else stem
        names[path] = stem + (PurePosixPath(path).suffix if suffix is None else suffix)
        taken.add(stem)
    return names


def is_done(source: Source, target: Path) -> bool:
    """Whether an earlier run has written `target` from this very source, whose time it then has."""
    try:
        return is_of(target.stat().st_mtime, file_of(source).stat().st_mtime)
    except FileNotFoundError:
        return False


def work_through(
    work: Work,
    tasks: Mapping[str, tuple[Source, Path]],
    processes: int | None,
    timeout: float,
    title: str,
    finished: Callable[[str], None] = lambda path: None,
) -> Findings:
    """Do the work in as many processes as there are cores, under a progress bar; tell of each that went well."""
    found = Findings()
    if not tasks:
        return found
    size = min(len(tasks), processes or distributed.num_cores())
    todo, busy, done = iter(tasks.items()), 0, 0
    with (
        stop_signals() as stop,
        closing(Pool[str](work, size, timeout)) as pool,
        Display(title, len(tasks), visible=True) as display,
    ):
        while done < len(tasks):
            while pool.idle and (task := next(todo, None)):
                pool.give(*task)
                busy += 1
            for path, outcome in pool.wait():
                if outcome.kind == "bug":
                    raise RuntimeError(f"a process failed on {path}:\n{outcome.text}")
                if outcome.kind == "user":
                    raise UserError(outcome.text)
                if outcome.kind != "done":
                    found.unreadable[path] = outcome.text.removeprefix(f"{tasks[path][0]}: ")
                    part_of(tasks[path][1]).unlink(missing_ok=True)
                else:
                    if outcome.value.count < outcome.value.promised:
                        found.shorter[path] = f"{outcome.value.count} of {outcome.value.promised} frames"
                    finished(path)
                done += 1
            if stop:
                raise Interrupted(f"stopped by a signal after {done} of {len(tasks)} videos")
            display.update(done, f"{len(found.unreadable)} bad")
    return found
