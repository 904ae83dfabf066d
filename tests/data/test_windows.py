from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.readers.decord import Decord
from aim.data.readers.interface import BadVideo, Reader
from aim.data.readers.pyav import PyAV
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.data.windows import MispromisedError, Span, Windows, batches, cut, placed, read
from tests.messages import refused

VIEWS = Views(temporal=2, spatial=3, resize=40)
WHOLE = Windows(1000, 1000)


def of_dataset(path: Path, clip: Clip, span: Span | None, reader: Reader) -> torch.Tensor:
    """A validation's frames of these seconds of the file."""
    video = Video(str(path), 0, *(span or (None, None)))
    return VideoDataset(Path(), [video], reader, clip, VIEWS, 0).read(0, 0)


@pytest.mark.parametrize(
    ("file", "sampling"),
    [
        ("short_32_frames.mp4", "dense"),
        ("short_32_frames.mp4", "uniform"),
        ("mpeg4_test.avi", "uniform"),
        ("rotation_90.mov", "dense"),
        ("discard_first_keyframe.mp4", "uniform"),
    ],
)
def test_a_window_is_what_a_validation_sees_of_it(
    shared: Path, file: str, sampling: Literal["dense", "uniform"]
) -> None:
    path = shared / "videos" / file
    clip = Clip(4, 3, 32, sampling)
    ((_, whole),) = read(cut(path, WHOLE, trust=True), clip, VIEWS)
    for reader in (PyAV(), Decord()):
        assert torch.equal(whole, of_dataset(path, clip, None, reader))
    windows = Windows(0.5, 0.2)
    parts = cut(path, windows, trust=True)
    found = list(read(parts, clip, VIEWS))
    assert [place for place, _ in found] == list(range(len(parts.spans)))
    for place, clips in (found[0], found[len(found) // 2], found[-1]):
        assert torch.equal(clips, of_dataset(path, clip, parts.spans[place], PyAV()))
    if len(found) > 1:
        assert not torch.equal(found[0][1], found[-1][1])


def test_windows_cover_a_video_to_its_end() -> None:
    assert Windows(2, 1).over(4) == [(0, 2), (1, 3), (2, 4)]
    assert Windows(2, 2).over(5) == [(0, 2), (2, 4), (3, 5)]
    assert Windows(2, 3).over(6) == [(0, 2), (3, 5), (4, 6)]
    assert Windows(5, 1).over(5) == Windows(9, 1).over(5) == [(0, 5)]
    tenths = np.array(Windows(0.1, 0.1).over(0.3))
    assert tenths == pytest.approx(np.array([(0, 0.1), (0.1, 0.2), (0.2, 0.3)]))
    # On the grid of a localiser, whose row i begins at i * stride.
    assert Windows(2, 2, on_grid=True).over(5) == [(0, 2), (2, 4), (4, 5)]
    assert Windows(2, 1, on_grid=True).over(4.5) == [(0, 2), (1, 3), (2, 4), (3, 4.5)]
    assert Windows(2, 1, on_grid=True).over(4) == [(0, 2), (1, 3), (2, 4)]
    assert Windows(2, 3, on_grid=True).over(6.5) == [(0, 2), (3, 5), (6, 6.5)]
    assert Windows(2, 3, on_grid=True).over(5.5) == [(0, 2), (3, 5)]
    assert Windows(2, 2, on_grid=True).over(1) == [(0, 1)]
    for wrong in (0, -1, float("nan"), float("inf")):
        with refused("window=", "0"):
            Windows(wrong, 1)
        with refused("stride=", "0"):
            Windows(1, wrong)
    with refused("stride=1e-05", "0.001"):
        Windows(1, 1e-5)


def test_windows_in_a_pause_have_their_places_and_no_clips(shared: Path) -> None:
    parts = cut(shared / "cases/inputs/gap.mp4", Windows(1, 1, on_grid=True), trust=True)
    assert parts.spans == [(i, i + 1) for i in range(64)]
    found = list(batches(parts, Clip(2, 1, 32, "uniform"), VIEWS, 12))
    assert [batch.index.tolist() for batch in found] == [[0, 1], [62, 63]]
    rows = placed(parts, [(batch.index, batch.index[:, None].float()) for batch in found])[:, 0]
    assert rows[[0, 1, 62, 63]].tolist() == [0, 1, 62, 63]
    assert rows[2:62].isnan().all()


def test_packets_that_promise_other_frames_are_found_out(shared: Path) -> None:
    path = shared / "videos" / "k400_test.mp4"
    right = cut(path, WHOLE, trust=True)
    assert right.listed
    seconds = cut(path, WHOLE, trust=False).seconds
    assert np.abs(right.seconds - seconds).max() < 1e-9
    clip = Clip(4, 3, 32, "uniform")
    with pytest.raises(MispromisedError):
        list(read(replace(right, seconds=right.seconds + 0.01 * np.arange(right.seconds.size)), clip, VIEWS))


def test_a_broken_file_is_named(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for path in (shared / "videos" / "corrupted.mp4", tmp_path / "a.mp4", tmp_path / "nowhere.mp4"):
        with refused(str(path), error=BadVideo):
            list(read(cut(path, WHOLE, trust=True), Clip(4, 3, 32, "uniform"), VIEWS))
