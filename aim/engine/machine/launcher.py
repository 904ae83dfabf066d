"""Starts the ranks of a run on this machine, with torchrun's own agent, and starts them again when one is lost."""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

from aim.engine.machine.distributed import num_cores
from aim.engine.machine.peers import BROKEN, LOST
from aim.ground.clock import seconds_since_start
from aim.ground.console import without_logs
from aim.ground.errors import UserError, say
from aim.ground.signals import (
    INTERRUPTED,
    NOTHING_LOST,
    SIGKILL,
    SIGNALS,
    Interrupted,
    as_parent,
    forwarded,
    suspended_with,
)

MONITOR_SECONDS = 0.1  # between looks at the ranks
DEAF_SECONDS = 25  # torch kills a rank 30 seconds after the SIGTERM that ends it
DEAF = -256 - SIGKILL  # as an exit code: of a rank that torch had to kill


def launch(command: Sequence[str], ranks: int, restarts: int) -> int:
    """Run a command as `ranks` processes on this machine; return the exit code.

    A signal is passed on to the ranks, once, and they may take their time. When one fails, the others are ended: they
    would wait for it for ever. Those that a signal ends before they can answer have lost nothing: INTERRUPTED.

    Where a rank was killed all are started again, `restarts` times at most. torch's agent could do that, but it would
    also repeat a user error, and a run that was asked to stop.
    """
    if not hasattr(signal, "SIGTSTP"):
        raise UserError(f"gpus={ranks}: a run of several processes needs Linux or macOS; use gpus=1")
    if restarts < 0:
        raise UserError(f"restarts={restarts} is not a number of times; use 0 or more")
    began = time.time() - seconds_since_start()
    for left in range(restarts, -1, -1):
        codes, asked = run_ranks(command, ranks, began)
        again = left > 0 and not asked
        code = verdict(codes, asked=asked, then=f"starting again, {left - 1} restarts left" if again else None)
        if not (again and code == 1 and killed(codes)):
            break
        began = time.time()  # the time before is in the checkpoint
    return code


def run_ranks(command: Sequence[str], ranks: int, began: float) -> tuple[dict[int, int], bool]:
    """Run a command as several ranks: the exit codes of failed ones, the first one first; whether a signal came.

    They count their time from when it `began`, as Unix time.

    This is the inside of torch's `elastic_launch`, which forgets the exit codes after a signal.
    """
    # The rendezvous below shares this server's port, which nobody can take between a look for a free one and its use.
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, multi_tenant=True)  # type: ignore[attr-defined]
    parameters = RendezvousParameters(
        backend="static", endpoint=f"127.0.0.1:{server.port}", run_id="aim", min_nodes=1, max_nodes=1, rank=0
    )
    environment: dict[str, Any] = {**as_parent(), "AIM_STARTED": began}
    if "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = max(1, num_cores() // ranks)
    if "TORCH_CPP_LOG_LEVEL" not in os.environ:
        environment["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # a store that is gone, with its launcher, is pages of warnings
    arguments = [*(f"{key}={value}" for key, value in environment.items()), *command]
    spec = WorkerSpec(
        role="rank",
        local_world_size=ranks,
        entrypoint="env",
        args=tuple(argument.replace("$", "$$") for argument in arguments),  # torch fills in templates
        rdzv_handler=get_rendezvous_handler(parameters),
        max_restarts=0,
        monitor_interval=MONITOR_SECONDS,
    )
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"
    agent = LocalElasticAgent(spec, DefaultLogsSpecs(log_dir=os.devnull))

    def pids() -> list[int]:
        return [int(worker.id) for worker in agent.get_worker_group().workers if worker.id is not None]

    def started() -> list[int]:
        found = pids()
        if not found:
            raise Interrupted(NOTHING_LOST)
        return found

    # Without the logs of torch: the ranks have given the reason.
    with forwarded(started) as stop, suspended_with(pids), without_logs():
        result = agent.run()
    first = min((failure.timestamp for failure in result.failures.values()), default=0)
    codes = {
        rank: DEAF if failure.exitcode == -SIGKILL and failure.timestamp - first > DEAF_SECONDS else failure.exitcode
        for rank, failure in result.failures.items()
    }
    return codes, bool(stop)


def verdict(codes: Mapping[int, int], *, asked: bool, then: str | None = None) -> int:
    """The joint exit code of failed ranks, the first one first. Names a killed rank."""
    first = next(iter(codes.values()), 0)
    stopped = {INTERRUPTED, *(-number for number in SIGNALS)} if asked or first == INTERRUPTED else set()
    if asked and any(-code in SIGNALS for code in codes.values()):
        stopped.update((-SIGKILL, DEAF))  # torch's, of a rank that waited for the one that the signal has ended
    if codes and stopped.issuperset(codes.values()):
        if INTERRUPTED not in codes.values():
            say(NOTHING_LOST)
        return INTERRUPTED
    if 2 in codes.values():
        return 2
    if found := killed(codes):
        rank, code = found
        hint = ", as the kernel does when memory runs out" if code == -SIGKILL else ""
        if code == BROKEN:
            how = "has lost its GPU"
        else:
            how = "hung and was ended" if code == DEAF else f"was killed by {signal.Signals(-code).name}{hint}"
        text = f"rank {rank} {how}"
        say(f"{text}; {then}" if then else f"error: {text}; the same command continues")
        return 1
    failed = (code for code in codes.values() if code != INTERRUPTED and code >= 0)
    return next((1 if code == LOST else code for code in failed), 0)


def killed(codes: Mapping[int, int]) -> tuple[int, int] | None:
    """The rank that was killed or whose GPU failed, and its exit code.

    When another rank has failed, torch ends a rank with SIGTERM, and NCCL one that it finds torn off with SIGABRT.
    """
    first = next(iter(codes.values()), 0)
    follows = {-signal.SIGTERM} - {first}
    if {1, 2} & {*codes.values()}:
        follows.add(-signal.SIGABRT)
    deaths = ((rank, code) for rank, code in codes.items() if code == BROKEN or (code < 0 and code not in follows))
    return next(deaths, None)
