import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from aim.data.loading.pool import Outcome
from aim.data.readers.interface import BadVideo
from aim.data.readers.pyav import PyAV
from aim.data.transforms import Views
from aim.data.windows import Cut, Windows
from aim.engine.trained.recogniser import load
from aim.engine.trained.timeline import timeline
from aim.ground.errors import UserError
from aim.serve.decoding import Cutting
from aim.serve.desk import Desk
from tests.messages import named, refused
from tests.toy import videos

GIVE_UP = 60


@dataclass
class Slow:
    """A stand-in for a recogniser: it notes the batches, and waits for permission before each answer."""

    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    asked: list[list[str]] = field(default_factory=list)
    views: Views = field(default_factory=lambda: Views(temporal=1, spatial=1, resize=32))

    @contextmanager
    def reading(self, *_: Any, **__: Any) -> Iterator[Callable[[Sequence[Path]], Iterator[tuple[Path, Tensor | str]]]]:
        def read(paths: Sequence[Path]) -> Iterator[tuple[Path, Tensor | str]]:
            self.asked += [[path.name for path in paths]] if paths else []
            for path in paths:
                assert self.go.acquire(timeout=GIVE_UP)
                if path.name == "bug":
                    raise ZeroDivisionError(path.name)
                yield path, "not a video" if path.name == "bad" else torch.tensor([len(path.name)])

        yield read


def desk(recogniser: Any, **changed: Any) -> Desk:
    usual = {"batch_size": 4, "workers": 0, "timeout": 30, "max_seconds": 60}
    return Desk(recogniser, PyAV(), "fp32", **usual | changed)


def test_what_comes_while_the_model_is_busy_is_answered_together() -> None:
    slow, told = Slow(), []
    with desk(slow, told=lambda count, _: told.append(count)) as at:
        first = at.video(Path("a"))
        while not slow.asked:
            pass
        others = [at.video(Path(name)) for name in ("bb", "bad", "dddd")]
        slow.go.release(4)
    assert slow.asked == [["a"], ["bb", "bad", "dddd"]]  # and all are answered before the desk closes
    assert [first.result(), *(each.result() for each in others)] == [1, 2, "not a video", 4]
    assert told == [1, 3]


def test_a_bug_over_one_group_ends_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    slow = Slow()
    slow.go.release(9)
    with desk(slow) as at:
        failed = at.video(Path("bug"))
        with pytest.raises(ZeroDivisionError):
            failed.result(GIVE_UP)
        assert at.video(Path("aa")).result(GIVE_UP) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_time_line_is_aim_predicts_and_comes_from_another_process(
    unbroken: Path, toy_cache: Path, tmp_path: Path
) -> None:
    recogniser, path, windows = load(unbroken), videos(toy_cache)[0], Windows(0.2, 0.1)
    expected = timeline(recogniser, path, windows, precision="fp32", batch_size=4)
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    with desk(recogniser, max_seconds=5) as at:
        seen = at.timeline(path, windows).result(GIVE_UP)
        assert torch.equal(seen.line.probability, expected.probability)
        assert seen.line.spans == expected.spans
        assert [place for place, _ in seen.frames] == [*range(len(expected.spans))]
        assert at.timeline(tmp_path / "bad.mp4", windows).result(GIVE_UP) == "not a video"
        at.cutter._workers[0].process.kill()  # as a file may do that breaks FFmpeg
        again = at.timeline(path, windows).result(GIVE_UP)
        assert torch.equal(again.line.probability, expected.probability)


def test_a_time_line_begins_anew_where_the_packets_lied(
    unbroken: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser, path, windows = load(unbroken), videos(toy_cache)[0], Windows(0.2, 0.1)
    expected = timeline(recogniser, path, windows, precision="fp32", batch_size=4)
    cutting = Cutting(recogniser.clip, recogniser.views, 4, max_seconds=100)
    monkeypatch.setattr("aim.data.windows._listed", lambda path: np.arange(99.0))
    told = list[Any]()

    def through(tasks: Sequence[tuple[Path, Any]]) -> Iterator[tuple[Path, Outcome]]:
        for path, task in tasks:
            for part in cutting(task):
                told.append(part)
                yield path, Outcome("part", value=part)

    at = desk(recogniser)
    at.__dict__["cutter"] = SimpleNamespace(abandon=lambda: None, through=through)
    seen = at._timeline(path, windows)
    assert sum(isinstance(part, Cut) for part in told) == 2
    assert torch.equal(seen.line.probability, expected.probability)


def test_a_video_that_is_too_long_is_decoded_by_nobody(
    unbroken: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser, path = load(unbroken), videos(toy_cache)[0]
    with desk(recogniser, max_seconds=0.1) as at:
        named(at.video(path).result(GIVE_UP), "max_seconds=0.1")
    with refused("max_seconds=0.1", error=BadVideo):
        next(Cutting(recogniser.clip, recogniser.views, 4, max_seconds=0.1)((path, Windows(1, 1), True)))
    monkeypatch.setattr("aim.serve.decoding.MAX_WINDOWS", 3)
    with refused("3", error=BadVideo):
        next(Cutting(recogniser.clip, recogniser.views, 4, max_seconds=5)((path, Windows(0.1, 0.1), True)))


def test_a_desk_whose_processes_cant_start_says_why() -> None:
    class Broken(Slow):
        def reading(self, *_: Any, **__: Any) -> Any:
            raise UserError("no shared memory; use --shm-size=8g")

    with refused("--shm-size=8g"), desk(Broken()):
        pass
