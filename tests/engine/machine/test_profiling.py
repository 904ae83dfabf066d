import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from aim.engine.machine import profiling
from tests.messages import named
from tests.toy import journal, run, weights


def test_overlapping_intervals_count_once() -> None:
    assert profiling.covered([]) == 0
    assert profiling.covered([(5e6, 6e6), (0, 2e6), (1e6, 3e6), (1e6, 2e6)]) == 4


def event(name: str, start: float, end: float, *, gpu: bool = False, annotation: bool = False) -> Any:
    span = SimpleNamespace(start=start * 1e6, end=end * 1e6)
    device = DeviceType.CUDA if gpu else DeviceType.CPU
    return SimpleNamespace(name=name, time_range=span, device_type=device, is_user_annotation=annotation)


HOST = [
    event("waiting for data", 0, 1),
    event("forward", 1, 3),
    event("aten::mm", 1, 2),
    event("backward", 3, 6),
    event("communication", 6, 7),
    event("optimizer", 7, 8),
]


def steps(count: int, seconds: float) -> list[Any]:
    """As torch notes them."""
    each = seconds / count
    return [event("ProfilerStep*", i * each, (i + 1) * each) for i in range(count)]


def test_on_a_cpu_the_model_s_parts_count() -> None:
    text, summary = profiling.table([*HOST, *steps(2, 10.0)], on_gpu=False)
    named(summary, "2", "5000.0", "30.0%")  # communication, and two seconds outside of all parts
    assert text.startswith(f"{summary}\n")
    rows = {line[:26].strip(): line[26:].split() for line in text.splitlines()[2:]}
    assert rows["backward"] == ["1500.00", "30.0%"]
    assert rows["rest"] == ["1000.00", "20.0%"]
    assert "aten::mm" not in rows


def test_on_a_gpu_its_kernels_count() -> None:
    """The process has begun everything after 8 of 20 seconds; the GPU works from the 2nd to the 18th, waiting once."""
    device = [
        event("forward", 2, 20, gpu=True, annotation=True),
        event("Memcpy HtoD (Pinned -> Device)", 0, 20, gpu=True),
        event("gemm", 2, 9, gpu=True),
        event("other stream", 3, 5, gpu=True),
        event("ncclDevKernel_AllReduce", 8, 11, gpu=True),
        event("adam", 11, 18, gpu=True),
    ]
    text, summary = profiling.table([*HOST, *device, *steps(1, 20.0)], on_gpu=True)
    named(summary, "1", "25.0%")  # before the kernels but for the data, 1; the sum's rest, 2; the end, 2
    assert "(the GPU computes)" in text
    assert "14000.00" in text


@pytest.mark.usefixtures("toy_cache")
def test_a_profiled_run_leaves_its_profile_and_learns_the_same(
    tmp_path: Path, unbroken: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, "train.profile=true")
    out, said = capfd.readouterr()
    named(out.replace("\n", ""), str(tmp_path / "profile"))
    named((tmp_path / "profile" / "profile.txt").read_text().splitlines()[0], "2")  # the last two of the second epoch
    assert "ERROR" not in said  # of the profiler's own
    names = {event["name"] for event in json.loads((tmp_path / "profile" / "trace.json").read_text())["traceEvents"]}
    parts = set(profiling.PARTS) - {"copying to the device"}  # of a GPU
    assert parts <= names
    text = (tmp_path / "profile" / "profile.txt").read_text()
    assert all(f"\n{part} " in text for part in parts)
    assert journal(tmp_path) == journal(unbroken)
    expected = weights(unbroken)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path).items())


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([0] * 30, [(4, 13)]),  # of a long epoch the ten after the first three
        ([0, 0, 1] * 5, [(5, 6)]),  # not across an epoch's end, where a validation is
        ([0, 0, 0, 0, 1, 0, 0], [(4, 5)]),
        ([1] * 9, []),
    ],
)
def test_which_steps_are_watched(tmp_path: Path, ends: list[int], expected: list[tuple[int, int]]) -> None:
    profile = profiling.Profile(tmp_path, torch.device("cpu"))
    said = []
    for step, end in enumerate(ends, 1):
        if text := profile.tick(ends_epoch=bool(end)):
            said.append((step - int(re.search(r"(\d+) steps", text)[1]) + 1, step))
    profile.close()
    assert said == expected
