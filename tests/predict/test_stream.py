"""Streams as FFmpeg serves them, that stall or break off."""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from torch import Tensor

from aim.data.demo.moving_shapes import FPS, encode
from aim.data.readers.drawing import Drawing
from aim.data.readers.pyav import decoded
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.data.windows import Span, Windows, crops_of, cut, read
from aim.engine.trained.recogniser import load
from aim.engine.trained.timeline import timeline
from aim.ground import config
from aim.ground.errors import UserError
from aim.predict import stream
from aim.predict import verb as predict
from tests.messages import named, refused

CLIP, VIEWS = Clip(4, 2, 32, "dense"), Views(2, 3, 32)
LENGTH = 40  # frames


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each frame is another."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    encode(path, np.random.default_rng(0).integers(0, 256, (LENGTH, 32, 48, 3), np.uint8))
    return path


def flat(value: int) -> Tensor:
    return torch.full((1, 1, 3, 2, 2), value, dtype=torch.uint8)


@pytest.mark.parametrize("windows", [Windows(0.5, 0.5), Windows(0.6, 0.25), Windows(0.3, 0.7)], ids=str)
def test_windows_of_a_stream_are_those_of_a_file(film: Path, windows: Windows) -> None:
    asked = cut(film, windows, trust=True)
    expected = [(asked.spans[place], clips) for place, clips in read(asked, CLIP, VIEWS)]
    ring, draw, found = stream.Ring(windows, CLIP, VIEWS), Drawing(), list[tuple[Span, Tensor]]()
    for i, (seconds, frame) in enumerate(decoded(film)):
        if not i:
            draw.begin(frame)
        found += filter(None, [ring.add(seconds, crops_of(draw, frame, VIEWS, CLIP.size))])
        assert len(ring.frames) <= windows.length * FPS + 1
    whole = [each for each in expected if each[0].end < LENGTH / FPS]  # a stream has no end
    assert len(found) >= len(whole) - 1 >= 2
    for (span, clips), (its, expectation) in zip(found, whole, strict=False):
        assert span == pytest.approx(its)
        assert torch.equal(clips, expectation)


def test_of_windows_that_are_over_at_once_the_newest_with_frames_counts() -> None:
    ring = stream.Ring(Windows(1, 0.5), Clip(1, 1, 2, "uniform"), Views(1, 1, 2))
    assert ring.add(0.0, flat(0)) is None
    assert ring.add(0.6, flat(1)) is None
    found = ring.add(1.7, flat(2))
    assert found is not None
    assert found[0] == Span(0.5, 1.5)
    assert found[1].unique().tolist() == [1]
    ring.begin(7.0)
    assert ring.add(7.9, flat(3)) is None
    assert ring.span == Span(7.0, 8.0)


def test_a_window_that_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST", 100)
    ring = stream.Ring(Windows(60, 60), CLIP, VIEWS)
    with refused("window=60"):
        for i in range(99):
            ring.add(i / 25, flat(0))


class EndOfScriptError(Exception):
    """There are no more streams."""


def played(monkeypatch: pytest.MonkeyPatch, *script: list[float | Exception | None]) -> list[tuple[float, bool]]:
    """The results of streams with frames at these times, one after another, each until it ends or fails."""
    streams = iter([*script, [EndOfScriptError()]])

    def connect(name: str) -> Iterator[VideoFrame]:
        for time in next(streams):
            if isinstance(time, Exception):
                raise time
            frame = VideoFrame(48, 32, "rgb24")
            if time is not None:
                frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            yield frame

    monkeypatch.setattr(stream, "_decoded", connect)
    monkeypatch.setattr(stream.time, "sleep", lambda _: None)
    ring, found = stream.Ring(Windows(1, 1), CLIP, VIEWS), list[tuple[float, bool]]()
    with suppress(EndOfScriptError):
        for seconds, crops, begins in stream._frames("rtsp://me:secret@cam/1", ring):
            assert crops.shape == (3, 1, 3, 32, 32)
            found.append((round(seconds, 3), begins))
    return found


def test_a_stream_is_taken_up_again_by_a_clock_that_never_goes_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = ConnectionResetError(104, "Connection reset by peer")
    found = played(monkeypatch, [5.0, 5.5, 6.0, gone], [gone], [gone], [90.0, 90.5])
    assert found == [(0.0, True), (0.5, False), (1.0, False), (1.0, True), (1.5, False)]
    lines = capsys.readouterr().err.splitlines()
    named(lines[0], "rtsp://cam/1", "Connection")
    assert len(lines) == 3  # lost, found, and the end lost again
    assert "secret" not in "".join(lines)


def test_times_that_jump_begin_a_window_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    found = played(monkeypatch, [0.0, 0.5, 0.2, 0.7, 99.0, 99.5])
    assert [begins for _, begins in found] == [True, False, True, False, True, False]
    assert [seconds for seconds, _ in found] == [0.0, 0.5, 0.5, 1.0, 1.0, 1.5]


def test_times_of_reordered_frames_begin_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    found = played(monkeypatch, [0.0, 0.1, 0.3, 0.2, 0.4])  # as FFmpeg gives those of an AVI with B-frames
    assert found == [(0.0, True), *((pytest.approx(seconds), False) for seconds in (0.1, 0.3, 0.3, 0.4))]


def test_frames_without_times_come_when_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(stream.time, "monotonic", lambda: next(clock) / 4)
    found = played(monkeypatch, [None, None, None])
    assert found == [(0.0, True), (0.25, False), (0.5, False)]


def test_a_stream_that_was_never_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    with refused(f"input={address}", "ffplay"):
        next(stream.watched(address, Windows(1, 1), CLIP, VIEWS))
    monkeypatch.setattr(stream.sys, "platform", "win32")
    with refused("input=0", "win32"):
        next(stream.watched("0", Windows(1, 1), CLIP, VIEWS))


def test_a_camera_is_the_device_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[str, str]]()
    monkeypatch.setattr(av, "open", lambda name, _, *, format, **_lenient: asked.append((name, format)))
    for platform in ("linux", "darwin"):
        monkeypatch.setattr(stream.sys, "platform", platform)
        stream._opened("2")
    assert asked == [("/dev/video2", "v4l2"), ("2", "avfoundation")]


def test_who_is_slow_gets_the_newest_window_and_no_queue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go, all_read = threading.Event(), threading.Event()

    def frames(name: str, ring: stream.Ring) -> Iterator[tuple[float, Tensor, bool]]:
        for i in range(200):
            if i == 20:
                go.wait(10)
            yield i / 10, flat(i), i == 0
        all_read.set()

    monkeypatch.setattr(stream, "_frames", frames)
    windows = stream.watched(stream.PIPE, Windows(1, 1), Clip(1, 1, 2, "uniform"), Views(1, 1, 2))
    assert next(windows).span == Span(0, 1)
    go.set()
    all_read.wait(10)
    assert [round(each.span.end) for each in windows] == [19]
    named(capsys.readouterr().err, "stride=1")


def test_a_file_in_a_pipe_ends_and_its_newest_window_has_the_label_of_the_files(
    film: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    piped = tmp_path / "film.mkv"
    subprocess.run(["ffmpeg", "-v", "error", "-i", film, "-c", "copy", piped], check=True)
    words = [f"checkpoint={unbroken}", f"input={stream.PIPE}", "window=0.5", "precision=fp32"]
    before = os.dup(0)
    try:
        with piped.open("rb") as file:
            os.dup2(file.fileno(), 0)
            predict.main(config.compose(words, "predict"))
        with (tmp_path / "film.mkv").open("rb") as file, refused("input=pipe:", "60"):
            os.dup2(file.fileno(), 0)
            predict.main(config.compose([*words, "window=60"], "predict"))
    finally:
        os.dup2(before, 0)
        os.close(before)
    answer: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    line = timeline(load(unbroken), film, Windows(0.5, 0.5), precision="fp32", batch_size=1)
    place = [round(span.end, 3) for span in line.spans].index(answer["end"])
    assert place == len(line.spans) - 2  # whose last one ends with the file
    assert answer["labels"][0]["probability"] == pytest.approx(float(line.probability[place].max()), abs=1e-4)
    assert timedelta(0) < datetime.now(UTC) - datetime.fromisoformat(answer["time"]) < timedelta(minutes=1)
    assert answer["path"] == stream.PIPE


def test_a_stream_of_ffmpeg_that_stalls_and_breaks_off_is_watched_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stream, "STALL", 0.5)
    monkeypatch.setattr(stream.time, "sleep", lambda _: threading.Event().wait(0.05))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}/live"

    def serve() -> "subprocess.Popen[bytes]":
        """A server of one client."""
        source = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25", "-c:v", "mpeg4", "-g", "5"]
        return subprocess.Popen(["ffmpeg", "-v", "quiet", *source, "-f", "mpegts", "-listen", "1", address])

    found, server = list[stream.Seen](), serve()
    try:
        while not found:
            assert server.poll() is None
            with suppress(UserError):  # it doesn't listen yet
                windows = stream.watched(address, Windows(0.25, 0.25), CLIP, VIEWS)
                found += [next(windows) for _ in range(2)]
        server.send_signal(signal.SIGSTOP)
        while "0.5" not in capsys.readouterr().err:
            assert server.poll() is None
        server.kill()
        server.wait()
        server = serve()
        found += [next(windows) for _ in range(3)]
    finally:
        server.kill()
        server.wait()
    assert all(after.span.start >= before.span.start + 0.25 - 1e-6 for before, after in pairwise(found))
    assert all(each.clips.shape == (6, 4, 3, 32, 32) for each in found)


@pytest.mark.parametrize(
    ("given", "pieces"),
    [
        (["input='rtsp://me:secret@cam/1'"], ["input=rtsp://cam/1", "window=SECONDS"]),
        (["input=['0','a.mp4']", "window=1"], ["input=0", "2"]),
        (["input='0'", "window=1", "out=a.csv"], ["out", "FILE.jsonl"]),
        (["input='pipe:'", "window=1", "shard=0/2", "smooth=1"], ["smooth", "shard"]),
        (["input='pipe:'", "window=1", "reader=frames"], ["window=1", "reader=frames"]),
    ],
)
def test_what_has_no_meaning_for_a_stream_is_refused(given: list[str], pieces: list[str]) -> None:
    with refused(*pieces):
        config.build(config.compose(["checkpoint=a", *given], "predict"), predict.Settings)


def test_a_stream_is_told_from_a_file_and_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    live = ["0", "12", "pipe:", "rtsp://cam//1?x=1", "HTTP://a/b", "udp://239.0.0.1:1234", "srt://a:1"]
    assert [*filter(stream.is_live, [*live, "-", "a.mp4", "s3://a/b.mp4", "file:///a", "pipe:1", "-1", ""])] == live
    (tmp_path / "0").touch()
    assert not stream.is_live("0")
