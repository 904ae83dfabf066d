"""A plan as text; numbers that depend on assumptions are called estimates."""

from collections.abc import Callable, Mapping
from typing import Any

from aim.engine.run.plan import CORE_DOWNLOADED, CORE_PREPARED, FRAMES_MEASURED, GIB, UTILISATION
from aim.ground.amounts import tuned_of


def plan_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The numbers that don't depend on train.memory."""
    (cost, *_) = found["memory"].values()
    return [
        ("parameters", f"{tuned_of(cost['params_tuned'], cost['params_total'])} tuned"),
        (
            "weights, gradients, optimizer",
            ", ".join(mib(cost[name]) for name in ("weight_bytes", "gradient_bytes", "optimizer_bytes")),
        ),
        ("training", f"{found['epochs']} epochs of {found['videos']:,} videos ({found['videos_from']})"),
        ("at once, a GPU", f"{found['clips_at_once']} clips, of {found['usable_gib']:.1f} GiB"),
        ("the paper needed", found["paper"]),
    ]


def memory_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """The numbers that depend on it, a column for each value."""
    cells: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "kept, a clip": lambda cost: mib(cost["kept_bytes"]),
        "memory (estimate)": lambda cost: (
            f"{cost['peak_bytes'] / GIB:.1f} GiB" + ("" if cost["fits"] else ", too much")
        ),
        "largest batch a GPU": lambda cost: f"{cost['most_clips']} clips",
        "a step (estimate)": lambda cost: f"{1000 * cost['seconds_per_step']:.0f} ms",
        "bound by": lambda cost: cost["bound_by"],
        "a GPU (estimate)": lambda cost: f"{cost['clips_per_second_per_gpu']:.0f} clips/s",
        "training (estimate)": lambda cost: duration(cost["hours"]),
        "cores to decode, a GPU": lambda cost: f"{cost['cores_per_gpu']['downloaded']}",
        "  of prepared files": lambda cost: f"{cost['cores_per_gpu']['prepared']}",
    }
    return [[name, *map(cell, found["memory"].values())] for name, cell in cells.items()]


def duration(hours: float) -> str:
    """Hours as text."""
    return f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def mib(size: float) -> str:
    """Bytes as text."""
    return f"{size / 2**20:,.0f} MiB"


def plan_notes(found: Mapping[str, Any]) -> list[str]:
    """The settings that don't fit, with a way out, and the assumptions of the estimates, line by line."""
    sheet, memory = found["sheet"], found["memory"]
    in_fp8 = found["precision"] == "fp8"
    rate = sheet["bf16_tflops" if in_fp8 else f"{found['precision']}_tflops"]
    faster = f" (in fp8 {sheet['fp8_tflops']:g})" if in_fp8 else ""
    fitting = [name for name, cost in memory.items() if cost["fits"]]
    misfits = [
        f"train.memory={name}: {cost['clips']} clips at once do NOT fit into one {found['gpu']}; "
        + (f"use train.memory={fitting[0]}, or {cost['way_out'].removeprefix('use ')}" if fitting else cost["way_out"])
        for name, cost in memory.items()
        if not cost["fits"]
    ]
    return [
        *misfits,
        f"Counted: parameters and bytes. Estimated: {found['gpu']} computes {UTILISATION:.0%} of the {rate:g} TFLOP/s"
        f"{faster} of its data sheet and moves {sheet['bandwidth_gb']:g} GB/s; validation and test come on top.",
        f"Cores by {CORE_DOWNLOADED:g} and {CORE_PREPARED:g} clips/s a core, measured on Kinetics clips of "
        f"{FRAMES_MEASURED} frames; aim.benchmark what=loader measures yours.",
    ]
