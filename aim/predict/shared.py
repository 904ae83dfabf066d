"""The answers of one of many jobs, stored as they come, and those of all jobs in one file."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from aim.data.named import Input
from aim.data.stamp import same_content, stamps_of
from aim.data.windows import Span
from aim.engine.trained.answer import Answer
from aim.ground import files
from aim.ground.errors import say
from aim.ground.foreign import read_lines, reading
from aim.ground.portion import Portion
from aim.ground.shared_work import AGAIN, Merged, claim, claimed, home, merged, working
from aim.ground.signals import Interrupted, stop_signals
from aim.predict.answers import write

KEPT = "answers.jsonl"
Ask = Callable[[Sequence[Input]], Iterator[tuple[Input, list[Answer]]]]


class Said(NamedTuple):
    """The answers for a video with this stamp."""

    stamp: str | None
    answers: list[Answer]

    @property
    def problem(self) -> str | None:
        """Why it couldn't be read."""
        first = self.answers[0]
        return first.error if first.span is None else None

    def as_line(self, name: str) -> str:
        """Its stored form, for the video of that name."""
        found = {"name": name, "stamp": self.stamp, "answers": [asdict(answer) for answer in self.answers]}
        return json.dumps(found)


def folder_of(out: Path) -> Path:
    """The folder of the jobs' answers, beside the file of all."""
    return out.with_name(files.fitting(f"{out.name}.shards"))


def part(out: Path, portion: Portion, work: Mapping[str, Any], items: Mapping[str, Input], ask: Ask) -> int:
    """Answer this job's portion of the videos, `items` by their names; return the number of unreadable ones.

    An answer is stored immediately, and is valid while its video has the same stamp. Raises UserError if the work is
    shared differently, Interrupted after a signal, when the current video is done.
    """
    folder = folder_of(out)
    claim(folder, portion.count, work)
    mine = {name: item for name, item in items.items() if portion.has(name)}
    stamps = dict(zip(mine, stamps_of([item.path for item in mine.values()]), strict=True))
    kept = home(folder, portion) / KEPT
    before = {
        name: said
        for name, said in _read(kept).items()
        if name in mine and said.problem is None and said.stamp == stamps[name] is not None
    }
    todo = {item.name: name for name, item in mine.items() if name not in before}
    if before:
        say(f"{len(before)} of {len(mine)} are in {kept} already")
    with working(folder, portion, dict.fromkeys(before, KEPT), todo.values()) as job, stop_signals() as stop:
        files.write_lines(kept, (said.as_line(name) for name, said in before.items()))
        for item, answers in ask([mine[name] for name in todo.values()]):
            name = todo[item.name]
            said = Said(stamps[name], answers)
            files.add_line(kept, said.as_line(name))
            job.note(name, KEPT, said.problem)
            if stop:
                raise Interrupted(f"stopped by a signal after {len(job.manifest.done)} of {len(mine)} videos")
    failed = len(job.manifest.failed)
    say(f"shard={portion}: answers about {len(mine) - failed} of {len(mine)} videos are in {kept}")
    return failed


def merge(out: Path, work: Mapping[str, Any], items: Mapping[str, Input], classes: Sequence[str]) -> Merged:
    """Write the file of all stored and noted answers of the jobs, in the order of the videos.

    Answers about replaced videos are missing.
    """
    count = claimed(folder_of(out), work)
    kept = dict[str, Said]()
    for index in range(count):
        kept |= _read(home(folder_of(out), Portion(index, count)) / KEPT)
    stamps = dict(zip(items, stamps_of([item.path for item in items.values()]), strict=True))
    current = {
        name: kept[name]
        for name, stamp in stamps.items()
        if name in kept and (kept[name].problem is not None or same_content(kept[name].stamp, stamp))
    }
    found = merged(folder_of(out), count, items, items.keys() - current.keys())
    noted = [said for name, said in current.items() if name in found.done or name in found.failed]
    write(out, [answer for said in noted for answer in said.answers], classes)
    return found


def _read(path: Path) -> dict[str, Said]:
    """A job's stored answers; a last line truncated by a kill is ignored."""
    lines = read_lines(path, "the answers of a shard", AGAIN)
    with reading(path, "the answers of a shard", AGAIN):
        return {line["name"]: Said(line["stamp"], [*map(_answer, line["answers"])]) for line in lines}


def _answer(found: Mapping[str, Any]) -> Answer:
    best = [(label, probability) for label, probability in found["best"]]
    return Answer(**{**found, "best": best, "span": found["span"] and Span(*found["span"])})
