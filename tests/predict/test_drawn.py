import itertools
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from aim.data.readers.pyav import PyAV, decoded
from aim.data.windows import Span
from aim.engine.trained.answer import Answer, Asking
from aim.engine.trained.timeline import Timeline
from aim.predict import drawn
from tests.messages import refused
from tests.toy import file_size_limit

CLASSES = ["walk", "run"]


def frames(path: Path) -> np.ndarray:
    return PyAV()(path, range).numpy().astype(int)


def test_labels_are_drawn_where_they_hold_and_nothing_else_changes(shared: Path, tmp_path: Path) -> None:
    source = shared / "videos" / "short_32_frames.mp4"
    times = [time for time, _ in decoded(source)]
    middle = times[16] - times[0]
    half = Timeline(source, 2 * middle, [Span(0, middle), Span(middle, 2 * middle)], torch.tensor([[1.0, 0], [0, 1.0]]))
    drawn.write(tmp_path / "a.mp4", source, half, Asking(CLASSES, 1, None))
    before, after = frames(source), frames(tmp_path / "a.mp4")
    assert before.shape == after.shape
    new = [time for time, _ in decoded(tmp_path / "a.mp4")]
    assert new == pytest.approx([time - times[0] for time in times], abs=1e-4)
    apart = np.abs(before - after).mean((0, 1))  # "h w"
    height = apart.shape[0]
    assert apart[: height // 2].mean() < 4  # what a lossy codec does
    assert apart[int(0.85 * height) : height - 10, 12:80].mean() > 20  # the box
    # The order of the two labels changes with the window of the moment.
    boxes = after[:, :, int(0.8 * height) :, :100]
    change = [np.abs(b - a).mean() for a, b in itertools.pairwise(boxes)]
    assert int(np.argmax(change)) + 1 in (16, 17)  # halfway between the middles


def test_a_whole_video_has_one_caption_and_a_small_one_is_enlarged(shared: Path, tmp_path: Path) -> None:
    source = shared / "videos" / "unordered_4_frames.mov"
    drawn.write(tmp_path / "a.mp4", source, torch.tensor([0.3, 0.7]), Asking(CLASSES, 1, 0.9))
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert (file.streams.video[0].width, file.streams.video[0].height) == (250, 250)
        assert not file.streams.audio
    assert len(frames(tmp_path / "a.mp4")) == len(frames(source))


def test_turned_videos_are_upright_and_odd_sides_even(shared: Path, tmp_path: Path) -> None:
    for name in ("rotation_90.mov", "odd_size_vp9.mp4"):
        source = shared / "videos" / name
        drawn.write(tmp_path / "a.mp4", source, torch.tensor([0.3, 0.7]), Asking(CLASSES, 1, None))
        (height, width), found = frames(source).shape[2:], frames(tmp_path / "a.mp4")
        assert found.shape[2:] == (height // 2 * 2, width // 2 * 2)
        assert np.abs(found - frames(source)[:, :, : height // 2 * 2, : width // 2 * 2])[:, :, : height // 2].mean() < 5


def test_sound_is_kept_as_it_is(shared: Path, tmp_path: Path) -> None:
    source = tmp_path / "sound.mp4"
    command = ["ffmpeg", "-v", "error", "-i", str(shared / "videos" / "short_32_frames.mp4"), "-f", "lavfi", "-i"]
    subprocess.run([*command, "sine=duration=1", "-c:v", "copy", "-c:a", "aac", str(source)], check=True)
    drawn.write(tmp_path / "a.mp4", source, torch.tensor([0.3, 0.7]), Asking(CLASSES, 1, None))

    def sounds(path: Path) -> list[bytes]:
        with av.open(str(path)) as file:
            return [bytes(packet) for packet in file.demux(audio=0) if packet.size and (packet.pts or 0) >= 0]

    assert len(sounds(source)) > 30
    assert sounds(tmp_path / "a.mp4") == sounds(source)


def test_long_names_are_cut_and_their_numbers_kept(shared: Path, tmp_path: Path) -> None:
    """Also on a video that is higher than wide."""
    name = "pretending to pour something out of something, but something is empty"
    for height, width in ((240, 320), (426, 240)):
        caption = drawn.Caption(Answer("a", [(name, 1.0), ("sit", 0.0)], [name]), height, width)
        assert caption.image.width <= width - 2 * drawn.MARGIN
        end = np.asarray(caption.image)[: caption.image.height // 2, -40:, :3]
        assert end.max() == 255  # the 100 % at the end of the first row
    short = drawn.Caption(Answer("a", [("sit", 1.0)], ["sit"]), 240, 320)
    assert short.image.width < 200


def test_a_video_of_which_not_all_can_be_decoded_is_not_drawn(shared: Path, tmp_path: Path) -> None:
    source = tmp_path / "torn.mp4"
    content = bytearray((shared / "videos" / "k400_test.mp4").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 30000] = bytes(30000)
    source.write_bytes(content)
    with refused("a.mp4", "torn.mp4", "138"):
        drawn.write(tmp_path / "a.mp4", source, torch.tensor([0.3, 0.7]), Asking(CLASSES, 1, None))
    assert list(tmp_path.iterdir()) == [source]


def test_a_video_that_can_not_be_written_leaves_nothing(shared: Path, tmp_path: Path) -> None:
    source = shared / "videos" / "short_32_frames.mp4"
    with file_size_limit(10_000), refused("a.mp4", "ulimit"):
        drawn.write(tmp_path / "a.mp4", source, torch.tensor([0.3, 0.7]), Asking(CLASSES, 1, None))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((48, 32), (384, 256)),
        ((1000, 3), (8000, 24)),
        ((3, 1000), (24, 8000)),
        ((9001, 5), (9000, 4)),
        ((20000, 4), (10000, 2)),
        ((1, 1), (240,) * 2),
    ],
)
def test_enlarging_ends_where_the_long_side_would_be_too_long(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert drawn.enlarged(np.zeros((*shape, 3), np.uint8)).shape[:2] == expected
