"""Looks at video files one by one: which of them hold no frame that can be decoded, and why, in words."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from aim.data.pool import Pool
from aim.data.readers.interface import BadVideo
from aim.data.readers.pyav import opened
from aim.errors import UserError

VERSION = 1  # of what is looked for: raise it where more is, so that files are looked at again


@dataclass(frozen=True)
class Look:
    """What a process of the pool does: it decodes a file's first frame. PyAV reads what any reader can't."""

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


def bad_files(root: Path, names: Sequence[str], *, workers: int, timeout: float) -> Iterator[tuple[str, str | None]]:
    """Look at files under `root`, in any order: their names, each with what is wrong, or None.

    Like a loader it does so in a pool of so many processes, or without `workers` in this one.
    """
    look = Look(root)
    if not workers:
        for name in names:
            try:
                look(name)
            except BadVideo as error:
                yield name, str(error)
            else:
                yield name, None
        return
    todo = deque(names)
    busy = 0
    with closing(Pool[str](look, min(workers, len(names)), timeout)) as pool:
        while todo or busy:
            while todo and pool.idle:
                name = todo.popleft()
                pool.give(name, name)
                busy += 1
            for name, outcome in pool.wait():
                busy -= 1
                if outcome.kind == "user":
                    raise UserError(outcome.text)
                if outcome.kind == "bug":
                    raise RuntimeError(f"a process failed on {root / name}:\n{outcome.text}")
                hung = f"not read after data.timeout={timeout:g} seconds"
                text = hung if outcome.kind == "hung" else outcome.text
                yield name, None if outcome.kind == "done" else text
