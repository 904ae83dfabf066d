"""Check a data set, write its list files, and re-encode its videos for fast loading.

    python -m aim.prepare +experiment=k400 data.root=RAW                  # lists, beside the videos
    python -m aim.prepare +experiment=k400 data.root=RAW verify=true      # and every video decoded once
    python -m aim.prepare +experiment=k400 data.root=RAW out=DIR          # lists and small videos in DIR
    python -m aim.prepare +experiment=k400 data.root=RAW out=DIR shards=true   # small videos in tar files of a gigabyte
    python -m aim.prepare data=folder format=ucf101 data.root=RAW out=DIR

The same command continues a stopped one. Writes `train.txt`, `val.txt` and `classes.txt`, and `test.txt` where
there is a third list, without the videos that are missing or can't be read, those in `bad_videos.txt`, and
`prepare.json`: the counts, the settings, the lists' hash.
Exit codes: 0 done, 2 an error to fix, 75 interrupted.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig

from aim.data.dataset import Data
from aim.data.folds import in_folds
from aim.data.labels import worded
from aim.data.lists import Lists, data_hash, format_line, quoted
from aim.data.sources.annotations import Format
from aim.data.sources.detected import Auto, last_report
from aim.data.sources.webdataset import WebDataset
from aim.data.stored import shards
from aim.engine.scores.tasks import Task
from aim.ground import config, files, lease
from aim.ground.console import plain_console, plain_table
from aim.ground.errors import UserError, printable, say
from aim.ground.kinds import name_of
from aim.ground.marks import Mark
from aim.ground.paths import path_of
from aim.ground.portion import Portion
from aim.ground.shared_work import FOLDER, Sharing, claim, claimed, home, merged, working
from aim.ground.signals import interruptible
from aim.prepare.notes import Notes, settings_of
from aim.prepare.packing import index_shard
from aim.prepare.preparing import Report, Way, prepare

SHOWN = 20  # rows of the table of bad videos


@dataclass(frozen=True)
class Settings(Sharing, Way):
    """The own keys of configs/prepare.yaml, and the data set."""

    data: Data
    task: Task
    format: Format
    out: Annotated[str | None, Mark.PATH]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.is_shared or self.merge:
            if self.out is None:
                raise UserError("shard=I/N divides the writing of videos; add out=DIR")
            if self.shards:
                raise UserError(
                    "shards=true packs tar files in one process: leave it out here, and pack the jobs' output "
                    "with data=folder data.root=DIR out=NEW shards=true transcode=null"
                )


def write(folder: Path, report: Report, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write the list files and the report; return the content of `prepare.json`.

    An existing file with other content is kept as NAME.bak, or NAME.bak2 if that exists.
    """
    listed = {video.path for video in report.listed.videos}
    known = listed.difference(report.changed, report.unnoted)  # of an earlier version, without it in its notes
    earlier = {path: why for path, why in last_report(folder).get("shorter", {}).items() if path in known}
    for split, videos in report.kept.parts.items():
        put(folder / f"{split}.txt", [format_line(video) for video in videos])
    put(folder / "classes.txt", map(quoted, report.kept.classes))
    bad = dict.fromkeys(report.missing, "missing") | report.unreadable
    put(folder / "bad_videos.txt", [f"{quoted(path)}\t{why}" for path, why in sorted(bad.items())])
    summary = {
        **report.counts(),
        "num_classes": len(report.kept.classes),
        "data_hash": data_hash(report.kept.test, report.kept.classes),
        "shorter": earlier | report.shorter,
        "settings": dict(settings),
    }
    files.write_json(folder / "prepare.json", summary)
    return summary


def put(path: Path, lines: Iterable[str]) -> None:
    """Write a text file atomically, unless it has that text; an earlier one stays as NAME.bak, or .bak2."""
    text = "".join(f"{line}\n" for line in lines)
    if path.exists():
        if path.read_bytes() == text.encode():
            return
        if path.stat().st_size:
            kept = (path.with_name(f"{path.name}.bak{number}") for number in chain([""], count(2)))
            free = next(other for other in kept if not other.exists())
            files.write_atomically(free, partial(shutil.copyfile, path))
    files.write_text(path, text)


def show(report: Report, summary: Mapping[str, Any], folder: Path) -> None:
    """Print the counts, and the first bad videos."""
    console = plain_console()
    counts = report.counts()
    rows = [[split, *map(str, numbers.values())] for split, numbers in counts.items()]
    console.print(plain_table(rows, ["", *counts["train"]]))
    reasons = {"their sources have changed": report.changed, "their sources weren't noted": report.unnoted}
    for why, paths in reasons.items():
        if paths:
            console.print(f"made again: {len(paths)} videos, as {why}, such as {paths[0]}")
    if report.shorter:
        path, why = next(iter(report.shorter.items()))
        console.print(
            f"kept: {len(report.shorter)} videos with fewer frames than their packets, such as {path} ({why})"
        )
    unreadable = list(report.unreadable.items())
    if unreadable:
        console.print(plain_table(unreadable[:SHOWN], ["video", "reason"]))
    if len(unreadable) > SHOWN or report.missing:
        console.print(f"All bad videos: {folder / 'bad_videos.txt'}")
    console.print(f"{len(report.kept.classes)} classes; hash of the test's list: {summary['data_hash']}")
    console.print(f"Lists are in {folder}; train with data.root={folder}")


def main(cfg: DictConfig) -> None:
    """Prepare the data set of the config."""
    node = config.resolve(cfg)
    parts = {key: node[key] for key in Settings.__dataclass_fields__}
    settings = config.build(parts, Settings)
    root, out = settings.data.folder, None if settings.out is None else path_of(settings.out)
    check_folders(root, out, settings)
    form = settings.data.named_lists() or (
        settings.format.of(root) if isinstance(settings.format, Auto) else settings.format
    )
    if out is None and (isinstance(form, WebDataset) or written(root, out, settings)["shards"]):
        with interruptible(), lease.held(root):
            for shard in shards.find(root):
                index_shard(shard)
    listed = worded(shards.located(root, form(root)), many=settings.task.several)
    listed = in_folds(listed, None, settings.data.groups)
    for note in listed.notes:
        say(note)
    if settings.data.num_classes not in (None, len(listed.classes)):
        raise UserError(
            f"{root} has {len(listed.classes)} classes, data.num_classes={settings.data.num_classes}; "
            "for other classes, use data=folder"
        )
    folder = out or root
    call = partial(prepare, root, way=settings, out=out)
    name = name_of("format", form) or "ready"
    work = {"format": name, "transcode": settings.transcode and asdict(settings.transcode)}
    if portion := settings.portion:
        assert out is not None
        with interruptible():
            sys.exit(part(call, listed, out, portion, work))
    with interruptible(), lease.held(folder):
        if settings.merge:
            collect(listed, folder, work)
        report = call(listed)
        made = {"root": str(root), "format": name, **written(root, out, settings)}
        print(f"format: {name}{f' ({listed.split})' if listed.split else ''}")
        show(report, write(folder, report, made), folder)
        for note in listed.notes:
            print(printable(note))
        learnt = {label for video in report.kept.train for label in video.labels}
        for label in sorted(set(range(len(listed.classes))) - learnt):
            print(printable(f"No training video is left of class {listed.classes[label]}"))


def part(call: Callable[..., Report], listed: Lists, out: Path, portion: Portion, work: Mapping[str, Any]) -> int:
    """Re-encode this job's portion of the videos: the exit code."""
    claim(out / FOLDER, portion.count, work)
    place = home(out / FOLDER, portion)
    mine = listed.mapped(lambda videos: [video for video in videos if portion.has(video.path)])
    names = sorted({video.path for video in mine.videos})
    with working(out / FOLDER, portion, {}, names) as job:
        report = call(mine, noted=place)
        bad = dict.fromkeys(report.missing, "missing") | report.unreadable
        for name in names:
            job.note(name, report.shorter.get(name, ""), bad.get(name))
    for name, why in bad.items():
        say(f"error: {name}: {why}")
    say(f"shard={portion}: {len(names) - len(bad)} of {len(names)} videos are in {out}; at the end, merge=true")
    return 1 if bad else 0


def collect(listed: Lists, out: Path, work: Mapping[str, Any]) -> None:
    """Merge the notes of all jobs. Exits if any is missing."""
    count = claimed(out / FOLDER, work)
    found = merged(out / FOLDER, count, sorted({video.path for video in listed.videos}))
    if found.missing:
        found.tell()
        sys.exit(found.code)
    notes = Notes(out, {"transcode": work["transcode"], "shards": False})
    notes.take(home(out / FOLDER, Portion(index, count)) for index in range(count))


def written(root: Path, out: Path | None, settings: Settings) -> dict[str, Any]:
    """The settings of the videos' encoding: of unchanged ones those of the run that wrote them, if any."""
    before = last_report(root).get("settings", {})
    transcode = asdict(settings.transcode) if out and settings.transcode else before.get("transcode")
    return {"transcode": transcode, "shards": settings.shards if out else before.get("shards", False)}


def check_folders(root: Path, out: Path | None, settings: Settings) -> None:
    """Raise UserError if the lists or videos can't be written, or would do harm in their place."""
    if out is None:
        if not os.access(root, os.W_OK) and root.is_dir():
            raise UserError(f"the lists can't be written into data.root={root}; copy or link it, or give out=DIR")
        if settings.shards:
            raise UserError("shards=true writes shards into a new folder; give out=DIR")
        if settings.data.named_lists():
            raise UserError("lists with other names would replace train.txt and val.txt; give out=DIR")
        return
    if blocking := next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None):
        raise UserError(f"out={out}: {blocking} is a file; name a folder")
    if settings.verify:
        raise UserError("verify=true writes no videos; remove out=DIR, or verify=true")
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"out={out} is in data.root={root}, and would count as more videos; name another")
    if settings.transcode is None and not settings.shards:
        raise UserError("transcode=null writes unchanged videos, only for shards; add shards=true")
    transcode = asdict(settings.transcode) if settings.transcode else None
    before, now = settings_of(out), {"transcode": transcode, "shards": settings.shards}
    if before is None:  # an earlier version's, if anything
        found, now = last_report(out).get("settings", {}), written(root, out, settings)
        before = {"transcode": found.get("transcode"), "shards": found.get("shards", False)}
    if any(before.values()) and before != now:
        raise UserError(f"out={out} has videos with other settings ({before}); name another folder")
