"""Readers that misbehave, in a module that workers can import."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aim.data.loading.pool import Pool
from aim.data.readers.interface import BadVideo, Pick


@dataclass(frozen=True)
class Fake:
    """Frames whose pixels tell the file's number and the frame's index; some files misbehave."""

    hang: tuple[int, ...] = ()
    die: tuple[int, ...] = ()
    die_once: tuple[int, ...] = ()
    bad: tuple[int, ...] = ()
    bug: tuple[int, ...] = ()
    scratch: str = ""  # where `die_once` remembers

    def __call__(self, path: str | Path, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        number = int(Path(path).stem)
        if number in self.hang:
            time.sleep(3600)
        note = Path(self.scratch, f"died{number}")
        if number in self.die or (number in self.die_once and not note.exists()):
            note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.bad:
            raise BadVideo(f"{path}: it is bad")
        if number in self.bug:
            raise ZeroDivisionError("a bug")
        frames = torch.as_tensor(pick(40)).to(torch.uint8)
        video = torch.stack([torch.full_like(frames, number), frames, frames], 1)[..., None, None]
        return video.expand(-1, 3, 8, 8).clone()


def pids(pool: Pool[Any]) -> list[int]:
    """The current processes of a pool."""
    return [worker.process.pid for worker in pool._workers if worker.process and worker.process.pid]
