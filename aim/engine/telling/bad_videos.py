"""`bad_videos.txt`: unreadable videos and the reasons; of every rank, in training, validation and test."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from aim.data.loading.loader import Loader
from aim.engine.machine import distributed
from aim.engine.telling import bad_list
from aim.ground import files
from aim.ground.errors import UserError


@contextmanager
def named(run_dir: Path, *loaders: Loader) -> Iterator[None]:
    """List the bad videos of all ranks' loaders after the block; of this rank's alone where the block fails."""
    try:
        yield
    except BaseException:
        with suppress(UserError, OSError):  # another node may not see the folder, and the first error matters more
            name(run_dir, _of(loaders))
        raise
    gathered(run_dir, *loaders)


def gathered(run_dir: Path, *loaders: Loader) -> None:
    """List the bad videos of all ranks' loaders. Every rank calls it."""
    bad = {path: reason for rank in distributed.gather(_of(loaders)) for path, reason in rank.items()}
    if distributed.rank() == 0:
        name(run_dir, bad)


def _of(loaders: Sequence[Loader]) -> dict[str, str]:
    return {path: reason for loader in loaders for path, reason in loader.bad.items()}


def name(run_dir: Path, bad: Mapping[str, str]) -> None:
    """Add path -> reason to the lines of the file. Ranks may do it at the same time."""
    if not bad:
        return
    now = {path: " ".join(reason.split()) for path, reason in bad.items()}
    files.make_folder(run_dir)
    with _alone_in(run_dir):
        before = bad_list.read(run_dir)
        if before | now != before:
            bad_list.write(run_dir, before | now)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one rank at a time change the file, where the file system can lock; Windows can't open a folder."""
    with ExitStack() as stack:
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            files.lock(handle)
        yield
