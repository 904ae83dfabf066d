"""Durations of a study's cells: by finished ones, or by their operations and this machine's rate."""

import statistics
import timeit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import torch

from aim.engine.loop.optim import adamw
from aim.engine.loop.training import train_step
from aim.engine.machine.hardware import Device, resolve_precision, synchronize
from aim.engine.run.step import make_batch
from aim.ground.clock import clock
from aim.study.cells.planning import Planned

BRIEF = 2e10  # operations of a step for measuring a rate: about a second of a core
SIDE = 1024  # of the matrices whose product measures the rate if a single clip takes longer than that
START_SECONDS = 8.0  # of a cell before its first step and after its last: imports, lists, the trunk
MEASURED, FLOPS = "measured", "FLOPs"


@dataclass(frozen=True)
class Seconds:
    """The duration of a cell, and its source."""

    value: float
    source: str


def seconds(members: Sequence[Planned], threads: int) -> dict[str, Seconds]:
    """The duration of each cell, by name: measured, from its other seeds, or from the rate of finished cells.

    Without a finished cell that rate is measured here, with a few steps of each trunk.
    """
    done = [member for member in members if member.seconds is not None]
    trunks = list(dict.fromkeys(member.cell.trunk for member in members))
    if done:
        overall, source = rate(done), "finished cells"
        own = {trunk: [member for member in done if member.cell.trunk == trunk] for trunk in trunks}
        rates = {trunk: rate(found) if found else overall for trunk, found in own.items()}
    else:
        source = FLOPS
        costliest = [max((m for m in members if m.cell.trunk == trunk), key=lambda m: m.flops) for trunk in trunks]
        with on_threads(threads):
            rates = {member.cell.trunk: measured_rate(member) for member in costliest}
    found = {}
    for member in members:
        like = [other.seconds for other in done if other.kind == member.kind and other.seconds is not None]
        if member.seconds is not None:
            found[member.cell.name] = Seconds(member.seconds, MEASURED)
        elif like:
            found[member.cell.name] = Seconds(statistics.mean(like), "other seeds")
        else:
            operations = member.flops + member.test_flops
            found[member.cell.name] = Seconds(START_SECONDS + operations / rates[member.cell.trunk], source)
    return found


def rate(done: Sequence[Planned]) -> float:
    """Operations a second of finished cells, without their start-up times."""
    taken = [member.seconds or 0.0 for member in done]
    working = sum(max(value - START_SECONDS, value / 10) for value in taken)
    return sum(member.flops + member.test_flops for member in done) / max(working, 1e-3)


def measured_rate(member: Planned) -> float:
    """Operations a second of a short training step, or of a matrix product if a single clip would take long."""
    run, cost = member.run, member.cost
    device = torch.device(run.device)
    precision = resolve_precision(run.precision, run.device)
    if run.device == "cpu" and cost.train_flops > BRIEF:
        return product_rate(run.device, torch.bfloat16 if precision == "bf16" else torch.float32)
    train = replace(run.train, mixup=0.0, cutmix=0.0)  # which need two clips
    run = replace(run, precision=precision, train=train, backbone=replace(run.backbone, weights="random"))
    most = train.clips_at_once(1)
    clips = most if run.device == "cuda" else max(1, min(most, int(BRIEF / cost.train_flops)))
    model = run.model(member.classes).to(device).train()
    batch = make_batch(model, clips, device, several=run.task.several)
    optimizer = adamw(model, run.optim)

    def step() -> None:
        train_step(model, optimizer, [batch], train, precision, device, task=run.task, stop=False)
        synchronize(device)

    _, *taken = timeit.repeat(step, number=1, repeat=3)  # the first one warms up
    return clips * cost.train_flops / min(taken)


@cache
def product_rate(device: Device, dtype: torch.dtype) -> float:
    """Operations a second of the product of two square matrices."""
    matrix = torch.ones(SIDE, SIDE, dtype=dtype, device=device)
    return 2 * SIDE**3 / min(timeit.repeat(lambda: matrix @ matrix, number=1, repeat=3))


@contextmanager
def on_threads(number: int) -> Iterator[None]:
    """Let torch compute with a number of threads inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def show(members: Sequence[Planned], times: Mapping[str, Seconds], at_once: int) -> None:
    """Print the cells with their costs, a line each, and the time of the unfinished ones."""
    width = max(len(member.cell.name) for member in members)
    print(
        f"{'cell':{width}}  {'state':6}  {'videos':>7}  {'epochs':>6}  {'training FLOPs':>14}  {'parameters':>11}  "
        f"{'tuned':>10}  {'seconds':>8}  by"
    )
    for member in members:
        found = times[member.cell.name]
        state, cost = "done" if member.done else "to run", member.cost
        print(
            f"{member.cell.name:{width}}  {state:6}  {member.videos:7}  {member.run.train.epochs:6}  "
            f"{member.flops:14.3g}  {cost.parameters:11,}  {cost.tuned:10,}  {found.value:8.0f}  {found.source}"
        )
    print(total(members, times, at_once), flush=True)


def total(members: Sequence[Planned], times: Mapping[str, Seconds], at_once: int) -> str:
    """The number of cells, and the time of the remaining ones."""
    left = [member for member in members if not member.done]
    done = f"{len(members)} cells, {len(members) - len(left)} done"
    if not left:
        return f"{done}, {clock(sum(each.value for each in times.values()))} of computing in all"
    rest = sum(times[member.cell.name].value for member in left)
    sources = {times[member.cell.name].source for member in left}
    alone = "; beside each other they may take half as long again" if at_once > 1 and FLOPS in sources else ""
    return (
        f"{done}; the other {len(left)} take about {clock(rest / at_once)}, {at_once} at once "
        f"(an estimate, by {', '.join(sorted(sources))}{alone})"
    )
