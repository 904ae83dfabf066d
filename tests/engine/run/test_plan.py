"""The plan of aim.benchmark what=plan, and of aim.train before its first step."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from aim.benchmark import plan_table
from aim.benchmark import verb as benchmark
from aim.engine.machine.distributed import World
from aim.engine.machine.hardware import Gpu
from aim.engine.run import plan
from aim.engine.run.gpus import GPUS, Sheet
from aim.engine.run.settings import Run
from aim.engine.run.step import Cost, cost_of_step, peak_of_step
from aim.ground import config
from aim.train import verb as train
from tests.conftest import ROOT
from tests.messages import named, refused, unnamed
from tests.toy import TOY, measure

COST = Cost(
    clips=10, params_total=3, params_tuned=1, weight_bytes=50 * 10**9, gradient_bytes=4, optimizer_bytes=8,
    kept_bytes=10**10, clip_bytes=2 * 10**10, peak_bytes=3 * 10**11, flops=4 * 10**13,
)  # fmt: skip
SHEET = Sheet(memory_gib=16, bf16_tflops=100, fp32_tflops=10, bandwidth_gb=1000)


@pytest.fixture(autouse=True)
def _rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are easy to check by this share of a GPU's rate."""
    monkeypatch.setattr(plan, "UTILISATION", 0.4)


OWN = ["data=folder", "data.directional=true", "data.num_classes=5"]


def toy(*overrides: str) -> Run:
    return config.build(config.compose([*TOY, *overrides]), Run)


def test_without_data_or_the_gpu_everything_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIM_CACHE", str(tmp_path / "cache"))
    found = measure(tmp_path / "run", "what=plan", "gpu=h200", "gpus=2", "precision=auto")
    assert not (tmp_path / "cache").exists()  # the demo's data would be generated there
    assert (found["gpu"], found["gpus"], found["precision"], found["clips_at_once"]) == ("h200", 2, "bf16", 4)
    assert (found["videos"], found["videos_from"], found["paper"]) == (24, "generated", "not published")
    fast, lean, smallest = (found["memory"][name] for name in ("fast", "lean", "smallest"))
    assert fast["kept_bytes"] > lean["kept_bytes"] > smallest["kept_bytes"] > 0
    assert fast["flops"] < lean["flops"] < smallest["flops"]
    assert fast["fits"]
    assert fast["most_clips"] > 4
    assert min(fast[key] for key in ("params_tuned", "weight_bytes", "hours")) > 0
    shown = capsys.readouterr().out
    for text in ("2 x h200, bf16", "memory (estimate)", "largest batch a GPU", "cores to decode", "24 videos"):
        assert text in shown


def test_small_data_is_planned_with_the_batches_that_it_is_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(20):
            (tmp_path / name / f"{i}.mp4").touch()
    planned = list[Run]()
    monkeypatch.setattr(benchmark, "plan", lambda run, gpu: planned.append(run) or {})
    monkeypatch.setattr(benchmark, "show", lambda *_: None)
    own = [*OWN[:2], f"data.root={tmp_path}", "train.batch_size=auto", "train.epochs=auto"]
    measure(tmp_path / "run", "what=plan", "gpu=t4", *own)
    assert [(run.train.batch_size, run.train.epochs) for run in planned] == [(8, 100)]


def test_an_unknown_gpu_is_one_clear_line(tmp_path: Path) -> None:
    with refused("gpu='h1000'", "a100", "h200", "b200", "l40s", "rtx4090", "t4"):
        measure(tmp_path, "what=plan", "gpu=h1000")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["what=plan"], ["what=plan", "GPU", "gpu=NAME", "a100"]),
        (["what=model", "gpu=h100"], ["gpu=h100", "GPU", "what=model", "what=plan"]),
        (["what=plan", "gpu=t4", "precision=bf16"], ["precision=bf16", "gpu=t4", "precision=fp32"]),
        (
            ["what=plan", "gpu=t4", "precision=fp8"],
            ["precision=fp8", "gpu=t4", "h100", "h200", "b200", "precision=auto"],
        ),
        (["what=plan", "gpu=a100", "precision=fp8"], ["precision=fp8", "gpu=a100", "precision=auto"]),
        (["what=plan", "gpu=h100", "precision=fp8", "adapter=full"], ["precision=fp8", "precision=bf16", "frozen"]),
        (["what=plan", "gpu=t4", "gpus=0"], ["gpus=0", "1"]),
        (["what=plan", "gpu=t4", "gpus=3"], ["train.batch_size=8", "3", "train.batch_size=6", "gpus=2"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_not_be_planned_is_one_clear_line(tmp_path: Path, overrides: list[str], expected: list[str]) -> None:
    with refused(*expected):
        measure(tmp_path, *overrides)
    assert not list(tmp_path.iterdir())


def test_every_gpu_that_can_be_named_has_its_numbers() -> None:
    assert set(get_args(Gpu)) == set(GPUS)
    assert GPUS["t4"].precision("auto", "t4") == "fp32"
    assert GPUS["t4"].tflops("fp32") == GPUS["t4"].fp32_tflops
    assert all(sheet.tflops("bf16") > sheet.fp32_tflops for name, sheet in GPUS.items() if name != "t4")


def test_a_step_takes_as_long_as_the_slower_of_computing_and_moving() -> None:
    run = replace(toy(), precision="bf16")
    seconds, bound = plan.step_seconds(COST, run, SHEET)  # 2 x (50 + 10 x 10) GB at 1000 GB/s, 40 of 40 TFLOP/s
    assert (seconds, bound) == (pytest.approx(1.0), "computing")
    seconds, bound = plan.step_seconds(replace(COST, kept_bytes=10**11), run, SHEET)
    assert (seconds, bound) == (pytest.approx(2.1), "memory bandwidth")
    parts = replace(run, train=replace(run.train, accumulate=3))
    assert plan.step_seconds(COST, parts, SHEET)[0] == pytest.approx(3.0)
    assert plan.step_seconds(COST, replace(run, precision="fp32"), SHEET)[0] == pytest.approx(10.0)
    fp8 = replace(SHEET, fp8_tflops=200, bandwidth_gb=1e6), replace(COST, fp8_flops=2 * 10**13)
    assert plan.step_seconds(fp8[1], replace(run, precision="fp8"), fp8[0])[0] == pytest.approx(0.5 + 0.25)


@pytest.mark.slow
def test_a_plan_in_fp8_says_both_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = measure(tmp_path, "what=plan", "gpu=h100", "precision=fp8")
    each = found["memory"]["fast"]
    assert (found["precision"], 0 < each["fp8_flops"] < each["flops"]) == ("fp8", True)
    named(" ".join(capsys.readouterr().out.split()), "989 TFLOP/s", "fp8", "1979")


def test_hours_and_cores_follow_from_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "CORE_DOWNLOADED", 4.0)
    monkeypatch.setattr(plan, "CORE_PREPARED", 6.0)  # of 8 frames
    run = replace(toy("train.epochs=3", "train.batch_size=20", "clip.num_frames=16"), precision="bf16")
    found = plan.on_gpu(COST, run, 2, SHEET, videos=1001)
    assert found["hours"] == pytest.approx(3 * 51 / 3600)  # a last step of one video included
    assert found["clips_per_second_per_gpu"] == pytest.approx(10.0)
    assert found["cores_per_gpu"] == {"downloaded": 3, "prepared": 4}
    again = replace(run, train=replace(run.train, clips_per_video=2))
    assert plan.on_gpu(COST, again, 2, SHEET, videos=1001)["hours"] == pytest.approx(3 * 101 / 3600)


def test_the_largest_batch_is_the_last_that_fits() -> None:
    run = toy()
    usable = peak_of_step(run, 8, 37) + 100
    most = plan.most_clips(cost_of_step(run, 8, 4), usable)
    assert peak_of_step(run, 8, most) <= usable < peak_of_step(run, 8, most + 2)
    assert plan.most_clips(COST, 0) == 0


def test_the_way_out_of_a_cpu_is_no_gpu() -> None:
    here = replace(toy(), device="cpu")
    named(alone := plan.way_out(here, 1, 4, more_gpus=False), "train.accumulate=2", "train.batch_size")
    unnamed(alone, "GPUs")
    named(plan.way_out(here, 1, 4, more_gpus=True), "train.accumulate=2", "GPUs", "train.batch_size")


@pytest.mark.slow
def test_a_plan_that_does_not_fit_says_so_and_its_way_out_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usable = peak_of_step(toy(), 8, 4) + 100
    monkeypatch.setattr(Sheet, "usable_bytes", usable)
    each = measure(tmp_path, "what=plan", "gpu=t4")["memory"]["fast"]
    assert not each["fits"]
    named(capsys.readouterr().out.replace("\n", " "), "train.memory=fast", "8", "t4", each["way_out"].split()[1])
    (parts,) = re.findall(r"train\.accumulate=(\d+)", each["way_out"])
    each = measure(tmp_path, "what=plan", "gpu=t4", f"train.accumulate={parts}")["memory"]["fast"]
    assert each["fits"]
    monkeypatch.setattr(Sheet, "usable_bytes", 1000)
    each = measure(tmp_path, "what=plan", "gpu=t4")["memory"]["fast"]
    named(each["way_out"], "clip.num_frames")


@pytest.mark.parametrize(("device", "free"), [("cuda", "enough"), ("cuda", "too little"), ("cpu", "too little")])
def test_training_says_before_its_first_step_that_it_will_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: Any, free: str
) -> None:
    run = replace(toy(), device=device)
    model = run.model(2)
    need = peak_of_step(run, 2, 8)
    monkeypatch.setattr(train, "free_bytes", lambda device: need if free == "enough" else need - 1)
    train.introduce(run, model, 0.003, 2, World(0, 1, torch.device(device)))
    out, said = capsys.readouterr()
    named(out, "0.003", "0.00", "8", "0.00")
    assert said.count("\n") == (0 if free == "enough" else 1)
    if said:
        named(said, "8", "0.0", "train.memory=lean")
        assert ("GPU memory" in said) == (device == "cuda")


def test_videos_are_counted_where_there_are_lists_and_else_taken_from_what_was_published(tmp_path: Path) -> None:
    root = f"data.root={tmp_path / 'nowhere'}"
    k400 = config.build(config.compose(["+experiment=k400", root]), Run)
    assert plan.training_videos(k400) == (241_258, "published", 400)
    own = [item for item in TOY if not item.startswith("data.lists")]
    run = config.build(config.compose([*own, *OWN, root]), Run)
    assert plan.training_videos(run) == (10_000, f"no lists in {tmp_path / 'nowhere'}", 5)
    for name in ("train/a/1.mp4", "train/b/2.mp4", "train/b/3.mp4", "val/a/4.mp4", "val/b/5.mp4"):
        path = tmp_path / "here" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run = config.build(config.compose([*own, *OWN[:2], f"data.root={tmp_path / 'here'}"]), Run)
    assert plan.training_videos(run) == (3, "listed", 2)


def test_the_numbers_that_a_plan_rests_on_are_those_of_the_documentation() -> None:
    measured: dict[str, Any] = json.loads((ROOT / "scripts/results/bench_loader.json").read_text(encoding="utf-8"))
    speeds = measured["clips_per_second"]
    assert (speeds["same_pyav"], speeds["prepared"]) == (plan.CORE_DOWNLOADED, plan.CORE_PREPARED)
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for count in plan.PUBLISHED.values():
        assert re.search(rf"^\| .+ \| (some )?{count:,} / ", readme, re.MULTILINE), count


@pytest.mark.parametrize(("hours", "expected"), [(0.05, "3.0 min"), (4.44, "4.4 h"), (1234.5, "1,234.5 h")])
def test_hours_are_shown_as_people_say_them(hours: float, expected: str) -> None:
    assert plan_table.duration(hours) == expected
