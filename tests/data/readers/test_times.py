"""The times of frames are measured, or NaN, and continue where a new recording begins."""

import math
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.readers.frames import Frames
from aim.data.readers.interface import BadVideo, Reader, Timed
from aim.data.readers.packets import duration
from aim.data.readers.pyav import PyAV, decoded, opened
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.data.windows import Windows, cut
from aim.prepare.transcode import Transcode
from tests.data.readers.oddities import ODD, write
from tests.data.readers.test_readers import READERS, REFUSED, make
from tests.messages import refused

MEASURED = [
    "videos/discard_first_keyframe.mp4", "videos/h265.mp4", "videos/non_zero_start.mp4", "videos/rotation_90.mov",
    "videos/unordered_4_frames.mov", "videos/short_32_frames.mp4", "videos/mpeg4_test.avi", "videos/vp9.webm",
    "cases/inputs/vfr.mkv", "cases/inputs/gap.mp4", "cases/inputs/trimmed.mp4",
]  # fmt: skip


def times(reader: Reader, path: Path, span: tuple[float, float] | None = None) -> np.ndarray:
    timed = Timed(lambda _: [0])
    reader(path, timed, span=span)
    return timed.seconds


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", MEASURED)
def test_times_are_those_of_a_full_decode(shared: Path, name: str, reader: str) -> None:
    with av.open(str(shared / name)) as container:
        truth = np.sort([float(frame.pts * frame.time_base) for frame in container.decode(video=0)])
    truth -= truth[0]
    try:
        assert times(make(reader), shared / name) == pytest.approx(truth, abs=1e-6)
        assert times(make(reader), shared / name, (float(truth[1]), 100.0)) == pytest.approx(truth[1:], abs=1e-6)
    except BadVideo:
        assert reader in REFUSED


def test_a_test_view_has_the_same_seconds_in_any_container(shared: Path, tmp_path: Path) -> None:
    """An average rate would give other times."""
    path, other = shared / "cases/inputs/vfr.mkv", tmp_path / "same.mp4"
    with av.open(str(path)) as given, av.open(str(other), "w") as output:
        stream = output.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    for file in (path, other):
        data = VideoDataset(Path(), [Video(str(file), 0)], PyAV(), Clip(2, 1, 32, "uniform"), Views(1, 1, 32), 0)
        _, ends = data.read_video(data.videos[0], 0, 0)
        assert ends is not None
        assert ends.tolist() == [[1.0, 5.5]]  # of frames 8 and 23: the rate is 2 frames a second from frame 16 on


def test_a_file_without_time_stamps_has_no_seconds(tmp_path: Path) -> None:
    path = ODD["raw.h264"](tmp_path / "raw.h264")
    assert np.isnan(times(PyAV(), path)).all()
    for ask in (lambda: times(PyAV(), path, (0, 1)), lambda: cut(path, Windows(1, 1), trust=True)):
        with refused("raw.h264", "ffmpeg", error=BadVideo):
            ask()
    Transcode()(path, tmp_path / "a.mp4")  # at its header's rate
    assert times(PyAV(), tmp_path / "a.mp4") == pytest.approx(np.arange(40) / 25)


def joined(path: Path, *sources: Path) -> Path:
    path.write_bytes(b"".join(source.read_bytes() for source in sources))
    return path


def test_a_recording_that_was_joined_to_another_continues_it(shared: Path, tmp_path: Path) -> None:
    """The second one's clock starts again, and its frames come after those of the first."""
    for name in ("b_frames.ts", "mpeg2.mpg"):
        ODD[name](tmp_path / name)
    short = joined(tmp_path / "short.ts", *[tmp_path / "b_frames.ts"] * 3)
    for path, count, rate in ((shared / "cases/inputs/joined.ts", 48, 8), (short, 120, 25)):
        expected = np.arange(count) / rate
        assert times(make("decord"), path) == pytest.approx(expected, abs=1e-6)
        found = np.array([time for time, _ in decoded(path)])
        assert found - found[0] == pytest.approx(expected, abs=1e-6)
        parts = cut(path, Windows(1, 1), trust=True)
        assert parts.duration == pytest.approx(count / rate)
        assert len(parts.frames_in(parts.spans[-1])) == rate
        with opened(path) as (container, stream):
            assert duration(container, stream) == pytest.approx(count / rate)
        Transcode()(path, tmp_path / "a.mp4")
        assert times(PyAV(), tmp_path / "a.mp4") == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("name", ["jump.mp4", "jump.mkv", "jump.ts", "vp9.mkv"])
def test_a_clock_that_jumps_ahead_by_hours_goes_on_and_a_pause_stays(name: str, tmp_path: Path) -> None:
    codec = "libvpx-vp9" if name.startswith("vp9") else "libx264"
    for seconds, expected in ((7200, np.arange(40) / 25), (60, np.arange(40) / 25 + 60 * (np.arange(40) >= 20))):
        path = write(tmp_path / f"{seconds}{name}", codec, times=lambda i: i + (i >= 20) * 25 * seconds)  # noqa: B023
        for reader in READERS:
            try:
                found = times(make(reader), path)
            except BadVideo:
                assert reader in REFUSED
            else:
                assert found == pytest.approx(expected, abs=2e-3)
        parts = cut(path, Windows(1, 1, on_grid=True), trust=True)
        assert parts.seconds == pytest.approx(expected, abs=2e-3)
        assert len(parts.spans) == math.ceil(expected[-1] + 0.04)


def test_frames_are_not_sorted_into_an_earlier_recording(tmp_path: Path) -> None:
    """Matroska whose second half begins between the first two frames: torchcodec would mix both."""
    path = write(tmp_path / "joined.mkv", "libvpx-vp9", options={"cluster_time_limit": "400"})
    data, at, earlier = bytearray(path.read_bytes()), 0, 0
    while (at := data.find(b"\x1f\x43\xb6\x75", at + 1)) > 0:  # a cluster and, after its size, its time in ms
        at = data.index(b"\xe7", at)
        value, end = at + 2, at + 2 + (data[at + 1] & 0x7F)
        if (time := int.from_bytes(data[value:end], "big")) >= 780:
            earlier = earlier or time - 20
            data[value:end] = (time - earlier).to_bytes(end - value, "big")
    path.write_bytes(data)
    with av.open(str(path)) as container:
        raw = [frame.time for frame in container.decode(video=0)]
    (fall,) = np.flatnonzero(np.diff(raw) < 0)
    assert raw[0] < raw[fall + 1] < raw[1]
    for name in READERS:
        try:
            found = times(make(name), path)
        except BadVideo:
            assert name in REFUSED
        else:
            assert found == pytest.approx(np.arange(40) / 25, abs=1e-3)


def test_frames_that_are_all_at_once_are_not_spread(tmp_path: Path) -> None:
    path = tmp_path / "zero.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=16)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuvj420p"
        for _ in range(8):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")):
                packet.pts = packet.dts = 0
                container.mux(packet)
    assert times(PyAV(), path).tolist() == [0] * 8


def test_folders_of_images_have_times_where_their_rate_is_known(tmp_path: Path) -> None:
    for i in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.jpg")
    (tmp_path / "._4.jpg").touch()
    assert times(Frames(fps=2.0), tmp_path).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert times(Frames(fps=2.0), tmp_path, (1.0, 9.0)).tolist() == [1.0, 1.5, 2.0]
    assert np.isnan(times(Frames(), tmp_path)).all()
