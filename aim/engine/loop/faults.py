"""Errors within a step, in words: memory that runs out, and the step at which ranks lost each other."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from aim.engine.machine.distributed import World
from aim.engine.run.recipe import Training
from aim.engine.run.settings import Run
from aim.ground.errors import UserError

GIB = 2**30
LEANER = {"fast": "lean", "lean": "smallest"}
OTHERS = 0.05  # of a GPU, whose mention helps
NO_HOST_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "MPS backend out of memory",  # of Apple's GPU, whose memory is the machine's
)


@contextmanager
def explained(where: Callable[[], str], training: Training, world: World) -> Iterator[None]:
    """Make memory that runs out in the block a UserError with the way out, and note `where` it was with other errors.

    The message has measured numbers: the bytes before a step, which are weights, and the peak.
    """
    resting = torch.cuda.memory_allocated(world.device) if world.device.type == "cuda" else 0
    if world.peers:
        world.peers.where = where
    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = torch.cuda.mem_get_info(world.device)
        peak = torch.cuda.max_memory_allocated(world.device)
        others = total - free - torch.cuda.memory_reserved(world.device)
        raise UserError(no_gpu_memory(where(), training, world, resting, peak, total, others)) from error
    except RuntimeError as error:
        if any(text in str(error) for text in NO_HOST_MEMORY):
            raise UserError(f"the machine's memory ran out at {where()}; {way_out(training, world)}") from error
        error.add_note(f"at {where()}")
        raise
    finally:
        if world.peers:
            world.peers.where = None


@contextmanager
def explained_test(run: Run, world: World) -> Iterator[None]:
    """Make a GPU's memory that runs out in a test a UserError with the way out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        views, clips = run.views.temporal * run.views.spatial, run.train.clips_at_once(world.size)
        videos = run.views.at_once(run.clips_of_test(world.size))
        if (fewer := run.train.fitting(world.size, clips // 2)) and videos > 1:
            parts = run.train.batch_size // (world.size * fewer)
            way = f"the same command with train.accumulate={parts} takes fewer videos"
        else:
            way = "use fewer of them (views.temporal, views.spatial: that is another test), or another GPU"
        raise UserError(f"GPU memory ran out in the test, at {videos} x {views} views at once; {way}") from error


def no_gpu_memory(
    where: str, training: Training, world: World, resting: int, peak: int, total: int, others: int
) -> str:
    """A line on bytes of a GPU: those that were held before the steps and at their peak, and those of `others`."""
    clips = training.clips_at_once(world.size)
    fewer = training.fitting(world.size, clips // 2)
    least = resting + (peak - resting) * (fewer or 0) / clips
    more = f", and {others / GIB:.1f} GiB are of other programs" if others > OTHERS * total else ""
    return (
        f"GPU memory ran out at {where}: {clips} clips at once took {peak / GIB:.1f} GiB and more, "
        f"{resting / GIB:.1f} of them for weights, of the {total / GIB:.1f} GiB there{more}; "
        + way_out(training, world, f", {least / GIB:.1f} GiB and more")
    )


def way_out(training: Training, world: World, needs: str = "") -> str:
    """Settings that need less memory in the same run; `needs` says how much half as many clips take, if known."""
    clips = training.clips_at_once(world.size)
    fewer = training.fitting(world.size, clips // 2)
    if fewer is None:
        return "use more GPUs, or a smaller train.batch_size, clip.size or backbone (that is another run)"
    parts = training.batch_size // (world.size * fewer)
    lean = "" if training.memory == "smallest" else "; train.memory=" + LEANER[training.memory] + " keeps less, too"
    same = f"the same command with train.accumulate={parts} continues from the last save"
    return f"{same} ({fewer} clips at once{needs}){lean}"
