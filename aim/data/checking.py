"""Checks video files one by one: finds those without a decodable frame, and the reasons."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from aim.data.loading.pool import Pool
from aim.data.readers.interface import BadVideo, each_read
from aim.data.readers.packets import Clock, duration
from aim.data.readers.pyav import opened

VERSION = 1  # of the checks: raise it when they find more, so that files are checked again


@dataclass(frozen=True)
class Look:
    """The task of a process of the pool: decode a file's first frame with PyAV, which reads all that any reader can."""

    root: Path

    def __call__(self, name: str) -> None:
        """Raises BadVideo with the reason alone."""
        path, reason = self.root / name, ""
        try:
            with opened(path) as (container, stream):
                reason = "no frame can be decoded"
                if any(not frame.is_corrupt for frame in container.decode(stream)):
                    return
        except BadVideo as error:
            reason = reason or str(error).removeprefix(f"{path}: ")
        raise BadVideo(reason)


def ends_early(path: Path, end: float) -> float | None:
    """The seconds that a video lasts, where these are more than a frame fewer than `end`; None also where unknown.

    By its header, and where that says so by its packets. Nothing is decoded.
    """
    with opened(path) as (container, stream):
        if (container.duration or 0) / 1e6 + Clock(stream).usual >= end:
            return None
        lasts = duration(container, stream)
        return lasts if lasts is not None and lasts + Clock(stream).usual < end else None


def bad_files(root: Path, names: Sequence[str], *, workers: int, timeout: float) -> Iterator[tuple[str, str | None]]:
    """Check files under `root`, in any order: their names, each with the reason why it is bad, or None.

    Like a loader it does so in a pool of so many processes, or without `workers` in this one.
    """
    look = Look(root)
    if not workers:
        yield from each_read(look, names)
        return
    with closing(Pool[str](look, min(workers, len(names)), timeout)) as pool:
        for name, outcome in pool.through((name, name) for name in names):
            if outcome.kind == "bug":
                raise RuntimeError(f"a process failed on {root / name}:\n{outcome.text}")
            hung = f"not read after data.timeout={timeout:g} seconds"
            text = hung if outcome.kind == "hung" else outcome.text
            yield name, None if outcome.kind == "done" else text
