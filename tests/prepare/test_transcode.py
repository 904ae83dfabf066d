from pathlib import Path

import av
import numpy as np
import pytest
from torchvision.transforms.v2.functional import resize

from aim.data.readers.decord import Decord
from aim.data.readers.interface import BadVideo
from aim.data.readers.pyav import PyAV
from aim.data.readers.torchcodec import TorchCodec
from aim.ground.errors import UserError
from aim.prepare.transcode import Frames, Transcode, count_frames
from tests.conftest import shared_folder
from tests.data.readers.oddities import ODD
from tests.messages import refused

BROKEN = {"corrupted.mp4", "README.md", "cut_off.mp4"}
DITHERED = {"picture.gif"}
NAMES = sorted({*ODD, *(path.name for path in shared_folder().glob("videos/*.*"))} - BROKEN - DITHERED)
EXACT = Transcode(crf=10, preset="ultrafast")


def every(num_frames: int) -> np.ndarray:
    return np.arange(num_frames)


@pytest.mark.parametrize("name", NAMES)
def test_each_frame_is_the_sources_upright_and_in_its_place(name: str, shared: Path, tmp_path: Path) -> None:
    path = ODD[name](tmp_path / name) if name in ODD else shared / "videos" / name
    source = resize(PyAV()(path, every), [64], antialias=True).float()
    assert EXACT(path, tmp_path / "a.mp4").count == len(source)
    target = resize(PyAV()(tmp_path / "a.mp4", every), [64], antialias=True).float()
    height, width = (min(n) for n in zip(source.shape[-2:], target.shape[-2:], strict=True))  # odd sizes become even
    ours, theirs = target[..., :height, :width], source[..., :height, :width]
    assert (ours - theirs).abs().mean() < 6  # 4:2:0 blurs the colours of a test card
    for i in range(0, len(source), 7):
        gap = (theirs - ours[i]).abs().mean(dim=(1, 2, 3))
        assert gap[i] <= gap.min() + 0.05, f"frame {i} is nearer to frame {int(gap.argmin())}"


def test_the_new_file_is_small_and_quick_to_read(shared: Path, tmp_path: Path) -> None:
    Transcode(short_side=128, key_every=3)(shared / "videos" / "k400_test.mp4", tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.codec_context.name) == (170, 128, "h264")
        assert stream.codec_context.reorder_depth == 0
        assert [packet.is_keyframe for packet in container.demux(stream) if packet.size] == [True, False, False] * 100
        assert len(container.streams) == 1


def test_a_segment_is_the_same_seconds_of_the_new_file(shared: Path, tmp_path: Path) -> None:
    path = shared / "videos" / "non_zero_start.mp4"
    EXACT(path, tmp_path / "a.mp4")
    counts = []
    for file in (path, tmp_path / "a.mp4"):
        PyAV()(file, lambda n: counts.append(n) or [0], span=(0.1, 0.3))
    assert counts[0] == counts[1] > 0


def test_a_small_video_keeps_its_size(shared: Path, tmp_path: Path) -> None:
    EXACT(shared / "videos" / "discard_first_keyframe.mp4", tmp_path / "a.mp4")
    assert PyAV()(tmp_path / "a.mp4", lambda n: [0]).shape == (1, 3, 64, 64)


def test_missing_frames_are_told_and_too_many_are_an_error(shared: Path, tmp_path: Path) -> None:
    videos = shared / "videos"
    assert count_frames(videos / "k400_test.mp4") == Frames(300, 300)
    assert count_frames(videos / "discard_first_keyframe.mp4") == Frames(25, 25)  # an edit list hides five of 30
    trimmed = shared / "cases/inputs/trimmed.mp4"  # a fifth of its frames is shown
    assert count_frames(trimmed) == Transcode(preset="ultrafast")(trimmed, tmp_path / "trimmed.mp4") == Frames(50, 50)
    whole = tmp_path / "whole.mp4"  # its index goes first, so a broken download can be read
    Transcode()(videos / "k400_test.mp4", whole)
    for share in (0.8, 0.4):
        part = tmp_path / f"{share}.mp4"
        part.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    assert 200 < count_frames(tmp_path / "0.8.mp4").count < 280
    with refused("0.4.mp4", "300", error=BadVideo):
        count_frames(tmp_path / "0.4.mp4")


@pytest.mark.parametrize("name", ["corrupted.mp4", "README.md", "nowhere.mp4"])
def test_what_cannot_be_read_leaves_nothing(shared: Path, tmp_path: Path, name: str) -> None:
    with refused(name, error=BadVideo):
        Transcode()(shared / "videos" / name, tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"short_side": 2}, {"key_every": 0}, {"crf": 52}):
        with refused("short_side", "16", "key_every", "crf", "0", "51"):
            Transcode(**wrong)


@pytest.mark.parametrize("again", [False, True])
def test_frames_that_an_edit_list_leaves_out_are_not_missed(shared: Path, tmp_path: Path, again: bool) -> None:
    path = shared / "cases" / "inputs" / "trimmed.mp4"
    assert (EXACT(path, tmp_path / "a.mp4") if again else count_frames(path)) == Frames(50, 50)  # of 250 that it has


def patches() -> np.ndarray:
    """Six colours, "h w c"."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (200, 120, 40), (40, 90, 200)]
    return np.array(colours, np.uint8).reshape(2, 3, 3).repeat(32, 0).repeat(32, 1)


# Pixel format and codec; matrix, range, primaries and transfer (ITU-T H.273) of the file, and of ours.
TAGS = {
    "rgb": ("bgr0", "ffv1", (0, 2, 1, 13), (6, 1, 1, 13)),
    "bgr": ("bgr24", "rawvideo", (2, 0, 2, 2), (6, 1, 2, 2)),
    "rgba": ("rgba", "png", (0, 2, 2, 2), (6, 1, 2, 2)),
    "deep rgb": ("gbrp10le", "ffv1", (0, 2, 2, 2), (6, 1, 2, 2)),
    "untagged": ("yuv420p", "mpeg4", (2, 0, 2, 2), (6, 1, 2, 2)),
    "bt709": ("yuv420p", "libx264", (1, 1, 1, 1), (1, 1, 1, 1)),
    "full bt709": ("yuv420p", "libx264", (1, 2, 1, 1), (1, 2, 1, 1)),
    "bt601": ("yuv444p", "libx264", (6, 1, 6, 6), (6, 1, 6, 6)),
    "hdr": ("yuv420p10le", "libx265", (9, 1, 9, 16), (9, 1, 9, 16)),
    "grey": ("gray", "ffv1", (2, 2, 2, 2), (6, 2, 2, 2)),
    "deep grey": ("gray10le", "ffv1", (2, 2, 2, 2), (6, 2, 2, 2)),
    "alpha": ("yuva444p", "ffv1", (2, 1, 2, 2), (6, 1, 2, 2)),
}


@pytest.mark.parametrize("name", TAGS)
def test_tags_are_those_of_the_pixels_and_every_reader_shows_the_sources_colours(name: str, tmp_path: Path) -> None:
    pixels, codec, tags, expected = TAGS[name]
    source = tmp_path / f"a.{'mov' if codec == 'png' else 'avi' if codec == 'rawvideo' else 'mkv'}"
    target = tmp_path / "a.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"crf": "4"} if codec.startswith("lib") else {})
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        about = stream.codec_context
        about.colorspace, about.color_range, about.color_primaries, about.color_trc = tags
        drawn = av.VideoFrame.from_ndarray(patches(), "rgb24")
        matrix = {1: "ITU709", 9: "BT2020"}.get(tags[0], "ITU601")
        for frame in [drawn.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=tags[1] or 1)] * 2:
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    Transcode(crf=0)(source, target)
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == expected
    middles = (slice(None), slice(None), slice(16, None, 32), slice(16, None, 32))
    theirs = PyAV()(source, lambda n: [0])[middles].float()
    for reader in (PyAV(), TorchCodec(), Decord(fallback=False)):
        try:
            ours = reader(target, lambda n: [0])[middles].float()
        except UserError:
            continue  # isn't installed
        assert (ours - theirs).abs().max() < 4, reader
