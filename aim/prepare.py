"""Check a data set, write its list files, and write its videos again for fast loading.

    python -m aim.prepare +experiment=k400 data.root=RAW                  # lists, beside the videos
    python -m aim.prepare +experiment=k400 data.root=RAW verify=true      # and every video decoded once
    python -m aim.prepare +experiment=k400 data.root=RAW out=DIR          # lists and small videos in DIR
    python -m aim.prepare data=folder format=ucf101 data.root=RAW out=DIR

The same command continues after it was stopped. Leaves `train.txt`, `val.txt` and `classes.txt` without the videos that
are missing or can't be read, those in `bad_videos.txt`, and `prepare.json`: the counts, the settings, the lists' hash.
Exit codes: 0 done, 2 something to mend, 75 interrupted.
"""

from aim import command

if __name__ == "__main__":  # before the imports that take seconds: --help and a misspelt setting need none of them
    command.entrypoint("aim.prepare", "prepare")

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import DictConfig

from aim import config
from aim.data.dataset import Data
from aim.data.lists import Lists, Video, data_hash, format_line
from aim.data.pool import Pool
from aim.data.sources.auto import NAMES, Auto, last_report
from aim.data.sources.interface import Format
from aim.data.sources.transcode import Transcode, Work, part_of
from aim.engine import distributed, files, lease
from aim.engine.console import Display, plain_console, plain_table
from aim.errors import UserError
from aim.signals import Interrupted, interruptible, stop_signals

SAME_TIME = 2.5  # seconds; some file systems round
SHOWN = 20  # rows of the table of bad videos
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Settings:
    """The keys of configs/prepare.yaml that are its own, and the data set."""

    data: Data
    format: Format
    out: str | None
    verify: bool
    processes: int | None
    timeout: float
    transcode: Transcode


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
        for split in SPLITS:
            listed = getattr(self.listed, split)
            found[split] = {
                "listed": len(listed),
                "present": sum(video.path not in missing for video in listed),
                "missing": sum(video.path in missing for video in listed),
                "unreadable": sum(video.path in self.unreadable for video in listed),
                "kept": len(getattr(self.kept, split)),
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
    transcode: Transcode,
    processes: int | None = None,
    timeout: float = 600.0,
) -> Report:
    """Look for the listed videos under `root`; write them again into `out`, or decode them if `verify`.

    Videos that `out` holds since an earlier call are left alone. Nothing else is written: see `write`. Raises UserError
    where no video is there, Interrupted after a signal.
    """
    paths = sorted({video.path for split in SPLITS for video in getattr(listed, split)})
    present = [path for path in paths if os.path.exists(root / path)]  # noqa: PTH110 - twice as fast
    if not present:
        raise UserError(
            f"none of the {len(paths)} listed videos is under {root}, such as {paths[0]}; is data.root right?"
        )
    names = {path: path for path in present}
    found = Findings()
    if out is not None:
        names = new_names(present)
        tasks = {path: (root / path, out / names[path]) for path in present}
        tasks = {path: task for path, task in tasks.items() if not is_done(*task)}
        found = work_through(Work(transcode), tasks, processes, timeout, "transcode")
    elif verify:
        tasks = {path: (root / path, root / path) for path in present}
        found = work_through(Work(None), tasks, processes, timeout, "verify")

    def keep(videos: Iterable[Video]) -> list[Video]:
        left = (video for video in videos if video.path in names and video.path not in found.unreadable)
        return [video._replace(path=names[video.path]) for video in left]

    kept = Lists(keep(listed.train), keep(listed.val), listed.classes)
    missing = [path for path in paths if path not in names]
    return Report(listed, kept, missing, found.unreadable, found.shorter)


def new_names(paths: Iterable[str]) -> dict[str, str]:
    """The path of each video's new file, relative to the new root. Raises UserError for one outside of the root."""
    names: dict[str, str] = {}
    taken = set[str]()
    for path in paths:
        if path.startswith("/") or ".." in path.split("/"):
            raise UserError(f"{path} is not a path below data.root; only such videos can be written to out=DIR")
        name = PurePosixPath(path).with_suffix(".mp4").as_posix()
        names[path] = f"{path}.mp4" if name in taken else name
        taken.add(names[path])
    return names


def is_done(source: Path, target: Path) -> bool:
    """Whether an earlier run has written `target` from this very source, whose time it then has."""
    try:
        return abs(target.stat().st_mtime - source.stat().st_mtime) < SAME_TIME
    except FileNotFoundError:
        return False


def work_through(
    work: Work, tasks: Mapping[str, tuple[Path, Path]], processes: int | None, timeout: float, title: str
) -> Findings:
    """Do the work in as many processes as there are cores, under a progress bar."""
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
                elif outcome.value.count < outcome.value.promised:
                    found.shorter[path] = f"{outcome.value.count} of {outcome.value.promised} frames"
                done += 1
            if stop:
                raise Interrupted(f"stopped by a signal after {done} of {len(tasks)} videos")
            display.update(done, f"{len(found.unreadable)} bad")
    return found


def write(folder: Path, report: Report, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write the list files and the report; return what `prepare.json` holds.

    A file of other content that was there before is kept as NAME.bak.
    """
    listed = {video.path for split in SPLITS for video in getattr(report.listed, split)}
    earlier = {path: why for path, why in last_report(folder).get("shorter", {}).items() if path in listed}
    for split in SPLITS:
        put(folder / f"{split}.txt", [format_line(video) for video in getattr(report.kept, split)])
    put(folder / "classes.txt", report.kept.classes)
    bad = dict.fromkeys(report.missing, "missing") | report.unreadable
    put(folder / "bad_videos.txt", [f"{path}\t{why}" for path, why in sorted(bad.items())])
    summary = {
        **report.counts(),
        "num_classes": len(report.kept.classes),
        "data_hash": data_hash(report.kept.val, report.kept.classes),
        "shorter": earlier | report.shorter,
        "settings": dict(settings),
    }
    files.write_json(folder / "prepare.json", summary)
    return summary


def put(path: Path, lines: Iterable[str]) -> None:
    """Write a text file atomically, unless it already says so; another one's content moves to NAME.bak."""
    text = "".join(f"{line}\n" for line in lines)
    if path.exists():
        if path.read_bytes() == text.encode():
            return
        if path.stat().st_size:
            path.replace(path.with_name(f"{path.name}.bak"))
    files.write_atomically(path, lambda file: files.write_text(file, text))


def show(report: Report, summary: Mapping[str, Any], folder: Path) -> None:
    """Print what was found, and the first bad videos."""
    console = plain_console()
    counts = report.counts()
    rows = [[split, *map(str, counts[split].values())] for split in SPLITS]
    console.print(plain_table(rows, ["", *counts["train"]]))
    notes = [*report.unreadable.items(), *((path, f"kept, {why}") for path, why in report.shorter.items())]
    if notes:
        console.print(plain_table(notes[:SHOWN], ["video", "what is wrong"]))
    if len(notes) > SHOWN or report.missing:
        console.print(f"All bad videos: {folder / 'bad_videos.txt'}")
    console.print(f"{len(report.kept.classes)} classes; hash of the validation list: {summary['data_hash']}")
    console.print(f"Lists are in {folder}; train with data.root={folder}")


def main(cfg: DictConfig) -> None:
    """Prepare the data set of the config."""
    node = config.resolve(cfg)
    parts = {key: node[key] for key in Settings.__dataclass_fields__}
    settings = config.build(parts, Settings)
    root, out = settings.data.folder, None if settings.out is None else Path(settings.out).expanduser()
    check_folders(root, out, settings)
    form = settings.format.of(root) if isinstance(settings.format, Auto) else settings.format
    listed = form(root)
    if settings.data.num_classes not in (None, len(listed.classes)):
        raise UserError(
            f"{root} has {len(listed.classes)} classes, data.num_classes={settings.data.num_classes}; "
            "for another choice of classes, use data=folder"
        )
    folder = out or root
    with interruptible(), lease.held(folder):
        report = prepare(
            root,
            listed,
            out=out,
            verify=settings.verify,
            transcode=settings.transcode,
            processes=settings.processes,
            timeout=settings.timeout,
        )
        made = {
            "root": str(root),
            "format": NAMES.get(type(form)),
            # Of what an earlier run wrote, checking it or listing it anew makes nothing else.
            "transcode": asdict(settings.transcode) if out else last_report(root).get("settings", {}).get("transcode"),
        }
        show(report, write(folder, report, made), folder)


def check_folders(root: Path, out: Path | None, settings: Settings) -> None:
    """Raise UserError where the lists or videos can't be written, or would be where they do harm."""
    if out is None:
        if not os.access(root, os.W_OK) and root.is_dir():
            raise UserError(f"the lists can't be written into data.root={root}; copy or link it, or give out=DIR")
        return
    if blocking := next((path for path in (out, *out.parents) if path.exists() and not path.is_dir()), None):
        raise UserError(f"out={out}: {blocking} is a file; name a folder")
    if settings.verify:
        raise UserError("verify=true writes no videos; leave out=DIR away, or verify=true")
    if out.resolve().is_relative_to(root.resolve()):
        raise UserError(f"out={out} lies in data.root={root}, where it would be taken for more videos; name another")
    before = last_report(out).get("settings", {}).get("transcode")
    if before not in (None, asdict(settings.transcode)):
        raise UserError(f"out={out} holds videos of other settings ({before}); name another folder")
