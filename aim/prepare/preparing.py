"""One pass over the videos of a data set, on all cores: checks, re-encodes and packs them."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from aim.data.lists import Lists, Video
from aim.data.loading.pool import Pool
from aim.data.readers.interface import Source, file_of
from aim.data.scanning import ENDINGS, ending
from aim.data.stamp import stamps_of
from aim.data.stored.shards import source_of
from aim.engine.machine import distributed
from aim.ground import files
from aim.ground.console import Display
from aim.ground.errors import UserError
from aim.ground.signals import Interrupted, stop_signals
from aim.prepare.notes import Notes
from aim.prepare.packing import Packer
from aim.prepare.transcode import REPLACED, WRITER, Made, Transcode, Work

UNPACKED = ".unpacked"  # videos that are not in a shard yet, in a folder of shards


@dataclass
class Findings:
    """The findings of the processes; paths are those of the annotations."""

    unreadable: dict[str, str] = field(default_factory=dict)  # path -> why
    shorter: dict[str, str] = field(default_factory=dict)  # path -> the decodable part; these are kept
    changed: list[str] = field(default_factory=list)  # made again, as their sources have changed
    unnoted: list[str] = field(default_factory=list)  # made again, as their sources weren't noted


@dataclass(kw_only=True)
class Report(Findings):
    """The listed videos by their state on the disk."""

    listed: Lists
    kept: Lists  # without the bad ones, with the paths of the new videos
    missing: list[str]

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of videos of each list, by outcome."""
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


@dataclass(frozen=True)
class Way:
    """The treatment of the videos of a data set."""

    verify: bool
    transcode: Transcode | None  # null: as they are, for shards
    shards: bool
    processes: int | None
    timeout: float  # seconds for one video


def prepare(root: Path, listed: Lists, way: Way, *, out: Path | None, noted: Path | None = None) -> Report:
    """Look for the listed videos under `root`; re-encode them into `out`, or decode them if the way is to `verify`.

    Without `transcode` they go into `out` unchanged, for shards only. Videos of an earlier call stay if their sources
    are the same, by the notes `noted` in `out`, or in a separate folder for a job's portion. Nothing else is written:
    see `aim.prepare`. Raises UserError if a whole data set has no readable video; Interrupted after a signal.
    """
    videos = {video.path: video for video in listed.videos}
    sources = {path: source_of(root, videos[path]) for path in sorted(videos)}
    # os.path is twice as fast.
    sources = {path: source for path, source in sources.items() if os.path.exists(file_of(source))}  # noqa: PTH110
    if not sources and noted is None:
        raise UserError(
            f"none of the {len(videos)} listed videos is under {root}, such as {min(videos)}; is data.root right?"
        )
    names = {path: path for path in sources}
    found = Findings()
    if out is not None:
        names = new_names(sources, again=way.transcode is not None)

    def renamed(videos: Iterable[Video]) -> list[Video]:
        left = (video for video in videos if video.path in names and video.path not in found.unreadable)
        return [video._replace(path=names[video.path]) for video in left]

    def lists() -> Lists:
        return listed.mapped(renamed)

    if out is not None:
        notes = Notes(noted or out, {"transcode": way.transcode and asdict(way.transcode), "shards": way.shards})
        todo = Todo(way, sources, names, noted_stamps(notes, sources, names), notes)
        if way.shards:
            found = pack(todo, lists(), out)
        else:
            targets = {path: out / name for path, name in names.items()}
            tasks = {path: (sources[path], to) for path, to in targets.items() if not todo.is_done(path, to)}
            found = todo.written(tasks, lambda path: None)
        found.shorter = {path: notes.shorter[name] for path, name in names.items() if name in notes.shorter}
    elif way.verify:
        tasks = {path: (source, root / path) for path, source in sources.items()}
        found = work_through(Work(None), tasks, way, "verify")
    if len(found.unreadable) == len(sources) and noted is None:
        path, why = min(found.unreadable.items())
        raise UserError(f"none of the {len(sources)} videos under {root} can be used, such as {path}: {why}")
    missing = [path for path in sorted(videos) if path not in sources]
    return Report(listed=listed, kept=lists(), missing=missing, **vars(found))


@dataclass(frozen=True)
class Todo:
    """The videos of a re-encoding call, by their paths in the lists."""

    way: Way
    sources: Mapping[str, Source]
    names: Mapping[str, str]  # the new paths
    stamps: Mapping[str, str | None]  # of the sources with noted videos
    notes: Notes

    def is_done(self, path: str, target: Path) -> bool:
        """Whether an earlier call has made `target` from this source."""
        return self.notes.has(self.names[path], self.stamps.get(path), size_of(target))

    def written(self, tasks: Mapping[str, tuple[Source, Path]], packed: Callable[[str], None]) -> Findings:
        """Re-encode videos, and note each; then `packed` is called."""

        def note(path: str, made: Made) -> None:
            assert made.stamp is not None
            self.notes.add(self.names[path], made.stamp, tasks[path][1].stat().st_size, made.frames.shortage)
            packed(path)

        known = [path for path, (_, target) in tasks.items() if size_of(target) is not None]
        found = work_through(Work(self.way.transcode), tasks, self.way, "transcode", note)
        for path in [path for path in known if path not in found.unreadable]:
            (found.changed if path in self.stamps else found.unnoted).append(path)
        return found


def noted_stamps(notes: Notes, sources: Mapping[str, Source], names: Mapping[str, str]) -> dict[str, str | None]:
    """The present stamps of the sources with noted videos; the others' don't matter."""
    noted = [path for path in sources if names[path] in notes.made]
    with Display("compare", len(noted), visible=len(noted) > 0) as display:
        found = dict[str, str | None]()
        for path, stamp in zip(noted, stamps_of(sources[path] for path in noted), strict=True):
            found[path] = stamp
            display.update(len(found), "")
    return found


def pack(todo: Todo, lists: Lists, out: Path) -> Findings:
    """Pack the videos that are in no shard of `out` yet, each as soon as it's done."""
    made, names = out / UNPACKED, todo.names

    def forget(source: Source) -> None:
        if todo.way.transcode:
            file_of(source).unlink()

    packer = Packer(out, lists, todo.notes, forget)
    packer.check({names[path]: todo.stamps.get(path) for path in todo.sources})

    def add(path: str) -> None:
        packer.add(names[path], made / names[path], todo.notes.made[names[path]][0])

    plain = dict[str, Source]()
    tasks = {}
    # In hash order: others read shards from their beginning.
    for path in sorted(todo.sources, key=lambda path: hashlib.sha256(os.fsencode(path)).digest()):
        source, target = todo.sources[path], made / names[path]
        if packer.has(names[path]):
            target.unlink(missing_ok=True)  # the program was killed after its shard was written
        elif todo.way.transcode is None:
            plain[path] = source
        elif todo.is_done(path, target):
            add(path)
        else:
            tasks[path] = (source, target)
    for (path, source), stamp in zip(plain.items(), stamps_of(plain.values()), strict=True):
        if stamp is not None:
            packer.add(names[path], source, stamp)
        else:
            packer.replaced.add(names[path])

    found = todo.written(tasks, add)
    packer.close()
    found.unreadable |= {path: REPLACED for path in todo.sources if names[path] in packer.replaced}
    shutil.rmtree(made, ignore_errors=True)
    return found


def new_names(paths: Iterable[str], *, again: bool) -> dict[str, str]:
    """The path of each video's new file, relative to the new root: the source's unless it is written `again`.

    Then `.mp4` follows the whole name of any other video, and of an MP4 whose name would equal another's: a name
    depends only on its source's, and no two are equal. Raises UserError for a path outside of the root.
    """
    names: dict[str, str] = {}
    for path in paths:
        if path.startswith("/") or ".." in path.split("/"):
            raise UserError(f"{path} is not a path below data.root; only such videos can be written to out=DIR")
        pure = PurePosixPath(path)
        is_own = pure.suffix == ".mp4" and ending(pure.stem) not in ENDINGS
        name = pure.name if is_own or not again else files.fitting(f"{pure.name}.mp4")
        names[path] = pure.with_name(name).as_posix()
    if len(set(names.values())) < len(names):
        first = {name: path for path, name in reversed(names.items())}
        path = next(path for path, name in names.items() if first[name] != path)
        raise UserError(f"{first[names[path]]} and {path} would both be {names[path]}; rename one")
    return names


def size_of(path: Path) -> int | None:
    """The size of a file; None if it's missing."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def work_through(
    work: Work,
    tasks: Mapping[str, tuple[Source, Path]],
    way: Way,
    title: str,
    finished: Callable[[str, Made], None] = lambda path, made: None,
) -> Findings:
    """Do the work in one process a core, under a progress bar; report each success."""
    found = Findings()
    if not tasks:
        return found
    size = min(len(tasks), way.processes or distributed.num_cores())
    with (
        stop_signals() as stop,
        closing(Pool[str](work, size, way.timeout)) as pool,
        Display(title, len(tasks), visible=True) as display,
    ):
        done = 0
        for done, (path, outcome) in enumerate(pool.through(tasks.items(), stop), 1):
            source, target = tasks[path]
            if outcome.kind != "done":
                # An unexpected error gives the traceback's last line, and ends no other video.
                found.unreadable[path] = outcome.text.strip().splitlines()[-1].removeprefix(f"{source}: ")
                files.temporary_of(target, WRITER).unlink(missing_ok=True)
            else:
                if shortage := outcome.value.frames.shortage:
                    found.shorter[path] = shortage
                finished(path, outcome.value)
            display.update(done, f"{len(found.unreadable)} bad")
        if done < len(tasks):
            raise Interrupted(f"stopped by a signal after {done} of {len(tasks)} videos")
    return found
