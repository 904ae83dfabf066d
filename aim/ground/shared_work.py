"""Work shared by jobs that know nothing of each other: each does its portion, and again where it was lost.

Each notes finished, failed and missing work in its own folder; at the end `merge=true` reads all of them.
"""

import json
import os
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from aim.ground import files, jobs, lease
from aim.ground.errors import UserError, check_least, say
from aim.ground.foreign import read_json, read_lines, reading
from aim.ground.portion import Portion, place_of, portion_of
from aim.ground.signals import INTERRUPTED

INCOMPLETE = 3  # exit code: something that was asked for is not done yet
FOLDER, MANIFEST, NOTES = "shards", "manifest.json", "notes.jsonl"
NAMED = 10  # of those that are missing
AGAIN = "delete it, and its shard does its part again"


@dataclass(frozen=True)
class Sharing:
    """How a verb's work is shared: its settings `shard` and `merge`."""

    shard: str | None
    merge: bool

    def __post_init__(self) -> None:
        if self.merge and self.is_shared:
            raise UserError("merge=true puts the work of all shards together; leave out shard and gpus")

    @cached_property
    def portion(self) -> Portion | None:
        """This job's; None where it does all."""
        return None if self.shard is None else portion_of(self.shard)

    @property
    def is_shared(self) -> bool:
        """Whether this is one of many jobs."""
        return self.portion is not None


@dataclass(frozen=True)
class Spreading(Sharing):
    """Work that the GPUs of a machine share, too: the setting `gpus`."""

    gpus: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, 1, "gpus")

    @property
    def is_shared(self) -> bool:
        """Whether this is one of many jobs, or starts some."""
        return super().is_shared or self.gpus is not None

    def spread(self, command: Sequence[str]) -> NoReturn:
        """Do this job's portion in `gpus` processes of the same command, each with a GPU of its own, and exit."""
        assert self.gpus is not None
        mine = self.portion or Portion(0, 1)
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        devices = visible[: self.gpus] + [str(number) for number in range(len(visible), self.gpus)]
        parts = [Portion(mine.index * self.gpus + i, mine.count * self.gpus) for i in range(self.gpus)]
        # `env` becomes the program, which follows its parent.
        codes, stopped = jobs.run(
            [
                ["env", f"CUDA_VISIBLE_DEVICES={device}", *command, "gpus=null", f"shard={part}"]
                for device, part in zip(devices, parts, strict=True)
            ],
            at_once=self.gpus,
        )
        sys.exit(INTERRUPTED if stopped or INTERRUPTED in codes.values() else jobs.verdict(codes.values()))


@dataclass
class Manifest:
    """The outcome of a portion: by the names of its items their results, or the errors."""

    done: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # not done yet

    @staticmethod
    def of(place: Path) -> "Manifest":
        """That of the job with this folder, as far as it has come or was killed; empty where it hasn't begun.

        Raises UserError for another file.
        """
        path = place / MANIFEST
        notes = read_lines(place / NOTES, "the notes of a shard", AGAIN)  # first: they go into the manifest at the end
        if not path.exists():
            return Manifest()
        found = read_json(path, dict, "the manifest of a shard", AGAIN)
        with reading(path, "the manifest of a shard", AGAIN):
            manifest = Manifest(dict(found["done"]), dict(found["failed"]), list(found["missing"]))
        with reading(place / NOTES, "the notes of a shard", AGAIN):
            for name, made, problem in notes:
                manifest.note(name, made, problem)
        return manifest

    def note(self, name: str, made: str, problem: str | None) -> None:
        """Note what was made of an item, or the problem with it."""
        (self.failed if problem is None else self.done).pop(name, None)
        if problem is None:
            self.done[name] = made
        else:
            self.failed[name] = problem


def claim(folder: Path, count: int, work: Mapping[str, Any]) -> None:
    """Note how many jobs share which work below `folder`, or compare with what the first of them has noted.

    Raises UserError if it's shared otherwise, or other work.
    """
    files.make_folder(folder)
    file, mine = folder / "claim.json", {"shards": count, "work": work}
    if files.write_first(file, mine):
        return
    if (shards := claimed(folder, work)) != count:
        raise UserError(
            f"{folder} has {shards} shards, not {count}; continue with shard=I/{shards}, or name another out"
        )


def claimed(folder: Path, work: Mapping[str, Any]) -> int:
    """How many jobs share the work. Raises UserError if none did, or other work."""
    file = folder / "claim.json"
    if not file.exists():
        raise UserError(f"merge=true, and no shard has worked for {folder.parent}; run shard=0/N to shard=N-1/N first")
    found = read_json(file, dict, "the claim of a folder's shards", "name another folder")
    with reading(file, "the claim of a folder's shards", "name another folder"):
        count, before = int(found["shards"]), dict(found["work"])
    if other := [name for name in {**before, **work} if before.get(name) != work.get(name)]:
        raise UserError(f"{file} is of another {', '.join(other)}; continue with the same, or name another out")
    return count


def home(folder: Path, portion: Portion) -> Path:
    """The folder of one job."""
    return folder / f"{portion.index:05d}-of-{portion.count:05d}"


class Work:
    """The work of one job, of which each item is noted in its folder at once; the only job has none."""

    def __init__(self, place: Path | None, manifest: Manifest, todo: Iterable[str]) -> None:
        self.place = place
        self.manifest = manifest
        self._todo = dict.fromkeys(todo)

    def note(self, name: str, made: str, problem: str | None) -> None:
        """Note what was made of an item, or the problem with it."""
        self._todo.pop(name, None)
        self.manifest.note(name, made, problem)
        if self.place:
            files.add_line(self.place / NOTES, json.dumps([name, made, problem]))

    def write(self) -> None:
        """Leave the manifest, with the items that are left, in the place of the notes."""
        assert self.place is not None
        self.manifest.missing = list(self._todo)
        files.write_json(self.place / MANIFEST, vars(self.manifest))
        (self.place / NOTES).unlink(missing_ok=True)


@contextmanager
def working(folder: Path, portion: Portion | None, done: Mapping[str, str], todo: Iterable[str]) -> Iterator[Work]:
    """Hold the folder of a job while it works, and leave its manifest there, at the beginning and at the end.

    The only job, which has no portion, leaves none.
    """
    work = Work(home(folder, portion) if portion else None, Manifest(dict(done)), todo)
    if work.place is None:
        yield work
        return
    with lease.held(work.place):
        work.write()
        try:
            yield work
        finally:
            work.write()


class Merged(NamedTuple):
    """The results of all jobs for the items that were asked for, in their order."""

    done: dict[str, str]
    failed: dict[str, str]
    missing: list[str]
    idle: list[Portion]  # the jobs that have them

    @property
    def code(self) -> int:
        """The exit code: INCOMPLETE, 1 where something failed, or 0."""
        return INCOMPLETE if self.missing else 1 if self.failed else 0

    def tell(self) -> None:
        """Print the failed and the missing items."""
        for name, why in self.failed.items():
            say(f"error: {name} could not be read: {why}")
        if self.missing:
            more = f" and {len(self.missing) - NAMED} more" if len(self.missing) > NAMED else ""
            shards = ", ".join(map(str, self.idle[:NAMED])) + (", ..." if len(self.idle) > NAMED else "")
            say(
                f"error: {len(self.missing)} are missing: {', '.join(self.missing[:NAMED])}{more}; "
                f"run shard={shards} again, and then merge=true"
            )


def merged(folder: Path, count: int, names: Iterable[str], stale: Container[str] = ()) -> Merged:
    """Look up each item in the manifest of its job; the result of a `stale` one is missing."""
    manifests = [Manifest.of(home(folder, Portion(i, count))) for i in range(count)]
    found = Merged({}, {}, [], [])
    idle = set[int]()
    for name in names:
        index = place_of(name, count)
        made, why = (of.get(name) for of in (manifests[index].done, manifests[index].failed))
        if made is not None and name not in stale:
            found.done[name] = made
        elif why is not None:
            found.failed[name] = why
        else:
            found.missing.append(name)
            idle.add(index)
    found.idle.extend(Portion(i, count) for i in sorted(idle))
    return found
