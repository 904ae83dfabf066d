"""Every reader turns and mirrors all frames as the file says of its first."""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.bitstream import BitStreamFilterContext
from einops import rearrange

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.readers.auto import Auto
from aim.data.readers.interface import BadVideo, Reader
from aim.data.readers.pyav import PyAV
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.data.windows import Windows, cut, read
from aim.prepare.transcode import Transcode
from tests.data.readers.oddities import FRAMES, HEIGHT, MINUS, UPRIGHT, WIDTH, image, patched, write
from tests.data.readers.test_readers import READERS, REFUSED, make

PARAMS = "keyint=10:bframes=0:scenecut=0"
Turn = Callable[[np.ndarray], np.ndarray]


def with_sei(path: Path, asked: str, packets: Callable[[int], bool] = lambda i: True) -> Path:
    """A file in which some packets' H.264 stream itself turns or mirrors the frames."""
    source = write(path.with_name(f"before_{path.name}"), params=PARAMS)
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        stream = given.streams.video[0]
        other = output.add_stream_from_template(stream)
        turned = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{asked}", stream)
        for i, packet in enumerate(packet for packet in given.demux(stream) if packet.size):
            for each in turned.filter(packet) if packets(i) else [packet]:
                each.stream = other
                output.mux(each)
    return path


def mirrored(path: Path) -> Path:
    return patched(path, UPRIGHT, MINUS + UPRIGHT[4:], params=PARAMS)


# How each file is made, and how its frames are shown. A container's rotation is given anticlockwise.
FILES: dict[str, tuple[Callable[[Path], Path], Turn]] = {
    **{
        f"container_{angle}.{kind}": (
            lambda to, angle=angle, kind=kind: write(
                to, "libvpx-vp9" if kind == "webm" else "libx264", PARAMS, rotation=angle
            ),
            lambda x, angle=angle: np.rot90(x, angle // 90),
        )
        for kind in ("mov", "mkv", "webm")
        for angle in (90, 180, 270)
    },
    **{
        f"sei_{angle}_{flip or 'not'}.{kind}": (
            lambda to, angle=angle, flip=flip: with_sei(to, f"rotate={angle}{flip and ':flip='}{flip}"),
            lambda x, angle=angle, flip=flip: np.rot90(
                x[:: -1 if flip == "vertical" else 1, :: -1 if flip == "horizontal" else 1], angle // 90
            ),
        )
        for kind in ("mov", "mkv")
        for angle, flip in ((90, ""), (180, ""), (270, "horizontal"), (0, "horizontal"), (0, "vertical"))
    },
    "matrix_mirrored.mov": (mirrored, lambda x: x[:, ::-1]),
    "sei_of_later_frames.mp4": (lambda to: with_sei(to, "rotate=90", lambda i: i >= 10), lambda x: x),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("turned")
    return {name: made(folder / name) for name, (made, _) in FILES.items()}


def check(found: torch.Tensor, indices: list[int], turn: Turn) -> None:
    for ours, i in zip(rearrange(found, "t c h w -> t h w c").numpy(), indices, strict=True):
        expected = turn(image(i))
        assert ours.shape == expected.shape
        assert np.abs(ours.astype(np.int16) - expected).mean() < 12  # 4:2:0, and VP9 at a low rate
        others = (np.rot90(expected, 2), expected[::-1], expected[:, ::-1])
        assert all(np.abs(ours.astype(np.int16) - other).mean() > 25 for other in others)


@pytest.mark.parametrize("reader", [*READERS, "auto"])
@pytest.mark.parametrize("name", FILES)
def test_every_reader_turns_every_pick(name: str, reader: str, files: dict[str, Path]) -> None:
    read_frames: Reader = Auto() if reader == "auto" else make(reader)
    for indices in ([0, 5, 39], [5, 39], [10, 12], [39]):
        try:
            found = read_frames(files[name], lambda _, indices=indices: indices)
        except BadVideo:  # then PyAV reads it where videos are listed
            assert reader in REFUSED
            assert not name.startswith("container") or (reader, name[-3:]) != ("torchcodec", "mov")
        else:
            check(found, indices, FILES[name][1])


@pytest.mark.parametrize(
    "name", ["container_90.mkv", "sei_90_not.mov", "sei_0_horizontal.mkv", "sei_of_later_frames.mp4"]
)
def test_windows_data_sets_and_prepared_files_show_the_same(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    path, turn = files[name], FILES[name][1]
    height, width = turn(image(0)).shape[:2]
    clip, views = Clip(2, 1, 48, "dense"), Views(1, 1, 48)
    parts = cut(path, Windows(0.4, 0.4), trust=True)
    for place, clips in read(parts, clip, views):
        video = Video(str(path), 0, *parts.spans[place])
        assert torch.equal(clips, VideoDataset(Path(), [video], make("torchcodec"), clip, views, 0).read(0, 0))
    # A late window has no frame with such a request.
    late = list(read(parts, clip, views))[2][1][0]
    expected = views(PyAV()(path, lambda _: [24, 25]), 48)[0]  # the middle of the third window
    assert (late.float() - expected.float()).abs().mean() < 6
    assert Transcode(crf=4, preset="ultrafast")(path, tmp_path / "a.mp4").count == FRAMES
    prepared = PyAV()(tmp_path / "a.mp4", lambda _: [5, 39])
    assert prepared.shape[-2:] == (height, width)
    check(prepared, [5, 39], turn)


@pytest.mark.parametrize("reader", [*READERS, "auto"])
def test_pixels_are_taken_to_be_square(reader: str, tmp_path: Path) -> None:
    """As decord, with which the paper's pipelines read, takes them."""
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for packet in (packet for i in range(9) for packet in encoded(stream, i)):
            output.mux(packet)
        output.mux(stream.encode())
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
    read_frames: Reader = Auto() if reader == "auto" else make(reader)
    assert read_frames(path, lambda _: [0, 5]).shape[-2:] == (HEIGHT, WIDTH)
    Transcode()(path, tmp_path / "prepared.mp4")
    assert read_frames(tmp_path / "prepared.mp4", lambda _: [0, 5]).shape[-2:] == (HEIGHT, WIDTH)


def encoded(stream: av.VideoStream, i: int) -> Iterator[av.Packet]:
    yield from stream.encode(av.VideoFrame.from_ndarray(image(i), format="rgb24"))
