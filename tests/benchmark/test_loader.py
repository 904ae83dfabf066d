"""The loader benchmark: each reader's numbers."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from aim.benchmark import loader
from aim.benchmark import verb as benchmark
from aim.data.readers.interface import BadVideo, Pick, Reader
from aim.data.readers.pyav import PyAV
from aim.ground.errors import UserError
from aim.ground.signals import INTERRUPTED, Interrupted
from tests.messages import named, refused
from tests.toy import measure

pytestmark = pytest.mark.usefixtures("toy_cache")
OPEN, DECODE = 0.03, 0.06  # seconds, far more than the toy's own


@dataclass(frozen=True)
class Slow:
    """Is slow before and after it knows the number of frames."""

    def __call__(self, path: str | Path, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        time.sleep(OPEN)

        def slow(num_frames: int) -> Any:
            indices = pick(num_frames)
            time.sleep(DECODE)
            return indices

        return PyAV()(path, slow, span=span)


@dataclass(frozen=True)
class Broken:
    """Reads nothing."""

    def __call__(self, path: str | Path, pick: Pick, *, span: tuple[float, float] | None = None) -> Tensor:
        raise BadVideo(f"{path}: broken")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "LOADER_SECONDS", 0.5)
    monkeypatch.setattr(loader, "STAGE_VIDEOS", 4)
    monkeypatch.setattr(loader, "LOADER_BATCH", 2)


def test_the_stages_of_a_reader_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow_and_broken: dict[str, Reader] = {"slow": Slow(), "broken": Broken()}
    monkeypatch.setattr(loader, "readers", lambda configured: slow_and_broken)
    found = measure(tmp_path, "what=loader")["loader"]
    slow = found["readers"]["slow"]
    assert tuple(slow["stages_ms"]) == loader.STAGES
    assert slow["stages_ms"]["open"] >= 1000 * OPEN
    assert slow["stages_ms"]["decode"] >= 1000 * DECODE
    assert max(slow["stages_ms"][stage] for stage in loader.STAGES[2:5]) < 1000 * OPEN
    assert 0 < slow["clips_per_second_per_core"] <= 1 / (OPEN + DECODE)
    assert 0 < slow["clips_per_second"] <= 1 / (OPEN + DECODE)  # data.workers=0
    named(found["readers"]["broken"]["error"], "PyAV")
    assert found["fastest"] == "slow"
    assert found["cores_needed"]["800"] >= 800 * (OPEN + DECODE)
    named(capsys.readouterr().out.replace("\n", " "), "broken:", "4")


@pytest.mark.parametrize("name", ["a [x]", "a [/x]", "a :car:"])
def test_what_was_measured_shows_names_as_they_are(capsys: pytest.CaptureFixture[str], name: str) -> None:
    good = {
        "stages_ms": dict.fromkeys(loader.STAGES, 1.0), "clips_per_second_per_core": 1.0, "clips_per_second": 1.0
    }  # fmt: skip
    measured = {
        "readers": {f"good {name}": good, "bad": {"error": "x"}}, "workers": 1, "fastest": f"fast {name}",
        "cores_needed": {"50": 2},
    }  # fmt: skip
    found = {"name": f"run {name}", "device": "cpu", "cores": 1, "precision": "fp32", "loader": measured}
    benchmark.show(found, Path(f"runs/{name}/benchmark.json"))
    shown = capsys.readouterr().out
    for text in (f"good {name}", f"fast {name}", f"runs/{name}/benchmark"):
        assert text in shown


def test_clips_of_one_decoding_share_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow: dict[str, Reader] = {"slow": Slow()}
    monkeypatch.setattr(loader, "readers", lambda configured: slow)
    found = measure(tmp_path, "what=loader", "train.clips_per_video=4")["loader"]
    stages = found["readers"]["slow"]["stages_ms"]
    assert 1000 * OPEN / 4 <= stages["open"] < 1000 * OPEN


def test_nothing_readable_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken: dict[str, Reader] = {"broken": Broken()}
    monkeypatch.setattr(loader, "readers", lambda configured: broken)
    with refused("broken", "4", "00001.mp4"):
        measure(tmp_path, "what=loader")


def test_every_reader_that_is_there_is_measured(tmp_path: Path) -> None:
    found = measure(tmp_path, "what=loader", "data.workers=1")["loader"]["readers"]
    assert {"decord", "pyav", "torchcodec"} >= set(found) >= {"pyav"}
    assert found["pyav"]["clips_per_second"] > 0


@pytest.mark.parametrize("end", [Interrupted("stopped"), UserError("no more")])
def test_what_is_measured_is_said_at_once_and_kept_where_it_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: BaseException
) -> None:
    told = list[str]()

    def part_by_part(run: Any, num_classes: int, world: Any, found: dict[str, Any]) -> Iterator[str]:
        found["gmacs_per_view"] = 1.5
        yield "first [x]"
        told.append(capsys.readouterr().out)
        raise end

    monkeypatch.setattr(benchmark, "measure_model", part_by_part)
    with pytest.raises(SystemExit if isinstance(end, Interrupted) else UserError) as caught:
        measure(tmp_path, "what=model")
    assert isinstance(caught.value, UserError) or caught.value.code == INTERRUPTED
    assert "first [x]" in told[0]
    (file,) = tmp_path.rglob("benchmark.json")
    left = json.loads(file.read_text())
    assert left["interrupted"] is True
    assert left["model"] == {"gmacs_per_view": 1.5}
    assert str(file) in capsys.readouterr().err


def test_readers_that_are_done_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readers: dict[str, Reader] = {"pyav": PyAV(), "slow": Slow()}
    monkeypatch.setattr(loader, "readers", lambda configured: readers)
    before = loader.measure_in_all

    def stopped(run: Any, lists: Any, world: Any, title: str) -> float:
        if title == "slow":
            raise Interrupted("stopped")
        return before(run, lists, world, title)

    monkeypatch.setattr(loader, "measure_in_all", stopped)
    with pytest.raises(SystemExit):
        measure(tmp_path, "what=loader")
    (file,) = tmp_path.rglob("benchmark.json")
    assert set(json.loads(file.read_text())["loader"]["readers"]) == {"pyav"}
