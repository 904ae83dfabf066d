"""The start of a training or a test: one order of checks, launches, locks and agreements, for every rank."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from aim.data.lists import Lists
from aim.engine.machine import distributed, hardware
from aim.engine.machine.distributed import World
from aim.engine.machine.hardware import Precision
from aim.engine.machine.launcher import launch
from aim.engine.run import identity
from aim.engine.run.settings import Run
from aim.engine.trained.checkpoint import Checkpoint
from aim.ground import lease
from aim.ground.marks import AUTO
from aim.ground.signals import interruptible
from aim.shell import command

R = TypeVar("R", bound=Run)
R_co = TypeVar("R_co", bound=Run, covariant=True)


@dataclass(frozen=True)
class Checked(Generic[R_co]):
    """A command without an error that could be found before it starts."""

    run: R_co
    settings: Mapping[str, Any]  # as config.yaml has them, with numbers where the command says auto
    lists: Lists
    ranks: int
    content: Mapping[str, str]  # hashes of the data and of the checkpoint, which all ranks must share
    run_dir: Path
    start: Checkpoint | None  # whose weights are tested, or trained on


@dataclass(frozen=True)
class Earlier:
    """The part of an earlier start in the run directory that this one keeps to; by default there is none."""

    finished: bool = False  # its result is there, and has been shown
    precision: Precision | None = None
    clips: int | None = None  # that no rank may exceed at once
    accumulate: int | None = None  # the parts of a step's batch by which none does


@dataclass(frozen=True)
class Job(Checked[R_co]):
    """A command on its ranks, ready to build the model: its run with the precision, reader and division that apply."""

    world: World
    clips: int  # that a rank may work through at once, wherever the run goes on


@contextmanager
def started(
    module: str,
    asked: Mapping[str, Any],
    check: Callable[[Mapping[str, Any]], Checked[R]],
    look: Callable[[Checked[R]], Earlier],
) -> Iterator[Job[R] | None]:
    """The job of a verb's `asked` settings; None where its result is there, or other processes have done the work.

    1. A process that a launcher has started meets its ranks. SLURM tasks that don't know of each other are refused.
    2. `check` finds the errors of settings, data and weights, and raises them as one UserError. Nothing is written yet.
    3. A command for several ranks has a `look` at the run directory, which may hold the result; if it doesn't, the
       command starts the ranks, each of which begins at 1, and exits with their code.
    4. The ranks agree on settings, data and weights.
    5. Rank 0 takes the lease of the run directory, until all is over.
    6. Rank 0 has a `look` at the run directory: another run is refused, a result is shown, a run that goes on keeps its
       precision and its division of a batch.
    7. Precision and reader are settled by rank 0, for all; blocks are compiled if all ranks can.
    """
    distributed.refuse_bare_slurm(module)
    with interruptible(), ExitStack() as after_all, ExitStack() as stack:  # the lease outlives the ranks
        workers = asked["data"]["workers"]
        start = distributed.start(hardware.resolve_device(asked["device"]), 0 if workers == AUTO else workers)
        world = stack.enter_context(start) if distributed.is_rank() else None
        checked = check(asked)
        if world is None:
            if checked.ranks > 1:
                if not look(checked).finished:
                    sys.exit(launch(command.again(module), checked.ranks, checked.run.restarts))
                yield None
                return
            world = stack.enter_context(start)
        distributed.agree({**checked.content, "settings": identity.config_hash(checked.settings)})
        if world.is_main:
            after_all.enter_context(lease.held(checked.run_dir))
        earlier = distributed.share(look(checked) if world.is_main else Earlier())
        if earlier.finished:
            yield None
            return
        run = checked.run
        run = replace(
            run,
            precision=hardware.settle(checked.settings, run.device, earlier.precision),
            reader=run.settled_reader(),
            train=replace(
                run.train,
                accumulate=earlier.accumulate or run.train.accumulate,
                compile=hardware.settle_compile(run.train.compile, run.device),
            ),
        )
        clips = earlier.clips or run.train.clips_at_once(world.size)
        yield Job(**(vars(checked) | {"run": run}), world=world, clips=clips)
