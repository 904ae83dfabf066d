"""The items of one of many jobs that know nothing of each other, by a hash; and which job this one is.

A scheduler starts them: a SLURM array, a Kubernetes Indexed Job, SkyPilot, torchrun, a loop of a shell.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from aim.ground.errors import UserError


@dataclass(frozen=True)
class Portion:
    """The items of one of `count` jobs, by a hash of their names: the same on every machine."""

    index: int  # from 0
    count: int

    def has(self, name: str) -> bool:
        """Whether an item is this job's."""
        return place_of(name, self.count) == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def place_of(name: str, count: int) -> int:
    """Which of `count` jobs has an item."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8]) % count


@dataclass(frozen=True)
class Variables:
    """The environment variables by which a scheduler tells a job its place."""

    index: str
    count: str = ""
    first: str = ""
    step: str = ""


SCHEDULERS = {  # the innermost last: a job of an array may start ranks of its own only where it asks for these
    "a SLURM array": Variables(
        "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"
    ),
    "a Kubernetes Indexed Job": Variables("JOB_COMPLETION_INDEX"),
    "SkyPilot's jobs": Variables("SKYPILOT_JOB_RANK", "SKYPILOT_NUM_JOBS"),
    "SkyPilot's nodes": Variables("SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"),
    "torchrun": Variables("RANK", "WORLD_SIZE"),
}


def portion_of(text: str, environment: Mapping[str, str] = os.environ) -> Portion:
    """The portion that `I/N`, `auto` or `auto/N` means. Raises UserError."""
    if not (found := re.fullmatch(r"(?:(\d+)|auto)/0*([1-9]\d*)|auto", text)):
        raise UserError(f"shard={text} must be I/N, the job I of N counted from 0, or auto, or auto/N")
    given = int(found[2]) if found[2] else None
    portion = Portion(int(found[1]), int(found[2])) if found[1] else _told(text, given, environment)
    if portion.index >= portion.count:
        repeated = "; for some jobs of an array use shard=auto/N" if text == "auto" else ""
        raise UserError(
            f"shard={portion} is out of range: of N={portion.count} jobs I goes from 0 to {portion.count - 1}{repeated}"
        )
    return portion


def _told(text: str, given: int | None, environment: Mapping[str, str]) -> Portion:
    """The portion by the first scheduler whose variables are there; with N `given`, its index is as it stands there."""
    for scheduler, names in SCHEDULERS.items():
        if names.index not in environment:
            continue
        if given is None and names.count not in environment:
            raise UserError(f"shard={text}: {scheduler} doesn't tell how many jobs there are; use shard=auto/N")
        try:
            index = int(environment[names.index])
            if given is not None:
                return Portion(index, given)
            first, step = (int(environment.get(name, default)) for name, default in ((names.first, 0), (names.step, 1)))
            return Portion((index - first) // step, int(environment[names.count]))
        except (ValueError, ZeroDivisionError) as error:
            raise UserError(f"shard={text}: the variables of {scheduler} aren't numbers; use shard=I/N") from error
    raise UserError(f"shard={text} is for {', '.join(SCHEDULERS)}, and no variables of these are set; use shard=I/N")
