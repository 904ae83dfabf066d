"""Every reader on every file: the picked frames of a full sequential decode, or BadVideo."""

import gc
import importlib.util
import itertools
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from einops import rearrange, reduce

from aim.data.loading.pool import Pool
from aim.data.named import find_videos
from aim.data.readers import decord, packets, pyav
from aim.data.readers.decord import Decord
from aim.data.readers.frames import Frames
from aim.data.readers.interface import BadVideo, Part, Reader, Source, Timed
from aim.data.readers.pyav import PyAV, container_of
from aim.data.readers.torchcodec import TorchCodec
from aim.prepare.transcode import Transcode
from tests.conftest import missing, shared_folder
from tests.data.readers.oddities import FRAMES, MINUS, ODD, UPRIGHT, comments, image, patched, remuxed
from tests.messages import refused
from tests.programs import command

READERS: dict[str, Callable[[], Reader]] = {
    "pyav": PyAV,
    "decord": Decord,
    "decord_alone": lambda: Decord(fallback=False),
    "torchcodec": TorchCodec,
}
# The files of shared/videos that a reader may refuse; it must read all others.
REFUSED = {
    "decord_alone": {"av1.mkv", "discard_first_keyframe.mp4", "h265.mp4"},
    "torchcodec": {"mpeg4_test.avi"},
}
BROKEN = "corrupted.mp4"
FOLDERS = [shared_folder() / "videos", *([Path(os.environ["AIM_VIDEOS"])] if os.environ.get("AIM_VIDEOS") else [])]
FILES = sorted(file for folder in FOLDERS for file in folder.glob("*") if file.is_file() and file.suffix != ".md")


def make(name: str) -> Reader:
    if name.startswith("decord") and importlib.util.find_spec("decord") is None:
        pytest.skip("decord has no wheel for this platform")
    if name == "torchcodec":
        try:
            importlib.import_module("torchcodec.decoders")
        except (ImportError, OSError, RuntimeError):
            missing("torchcodec or FFmpeg isn't installed")
    return READERS[name]()


@cache
def decoded(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """All frames as PyAV decodes them one after the other, upright, and thumbnails of them; empty where it fails."""
    try:
        with container_of(str(path)) as container:
            frames = [
                np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))
                for frame in container.decode(video=0)
            ]
    except (av.FFmpegError, IndexError):
        return [], np.empty(0)
    if len({frame.shape for frame in frames}) > 1:
        return [], np.empty(0)  # readers scale them to one size
    return frames, np.stack([thumbnail(frame) for frame in frames])


def thumbnail(frame: np.ndarray) -> np.ndarray:
    height, width = (side // 16 * 16 for side in frame.shape[:2])
    return reduce(frame[:height, :width].astype(np.float32), "(h y) (w x) c -> (h w c)", "mean", h=16, w=16)


def check(path: Path, got: torch.Tensor, indices: np.ndarray) -> None:
    """Each frame is near the picked one, and nearer than to any other."""
    frames, thumbnails = decoded(path)
    assert got.dtype == torch.uint8
    assert len(got) == len(indices)
    for ours, i in zip(rearrange(got, "t c h w -> t h w c").numpy(), indices, strict=True):
        assert ours.shape == frames[i].shape
        difference = np.abs(ours.astype(np.int16) - frames[i]).mean()
        assert difference < 3, f"frame {i} of {path.name} is {difference:.1f} grey levels off"
        distances = np.abs(thumbnails - thumbnail(ours)).mean(1)
        # Frames of a still scene may be equal.
        assert distances[i] <= distances.min() + 1e-3, f"frame {i} of {path.name} is frame {distances.argmin()}"


def orders(num_frames: int, seed: int) -> list[np.ndarray]:
    """Sorted, reversed, repeated, scattered, the last one, the first one."""
    rng = np.random.default_rng(seed)
    some = np.unique(rng.integers(num_frames, size=5))
    scattered = rng.permutation(np.append(some, some[:2]))
    return [some, some[::-1], some.repeat(2), scattered, np.array([num_frames - 1]), np.array([0, num_frames - 1, 0])]


def read_all_orders(reader: Reader, path: Path) -> None:
    frames, _ = decoded(path)
    for indices in orders(len(frames), seed=len(frames)):
        told = []

        def pick(num_frames: int, indices: np.ndarray = indices, told: list[int] = told) -> np.ndarray:
            told.append(num_frames)
            return indices

        got = reader(path, pick)
        assert told == [len(frames)]
        check(path, got, indices)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_frames_are_those_of_a_sequential_decode(path: Path, name: str) -> None:
    reader = make(name)
    ours = path.parent == FOLDERS[0]
    if not decoded(path)[0]:
        if ours:
            assert path.name == BROKEN
            with refused(path.name, error=BadVideo):
                reader(path, lambda _: [0])
        return  # of others, the frames before the damage may be read
    try:
        read_all_orders(reader, path)
    except BadVideo:
        if name not in REFUSED or (ours and path.name not in REFUSED[name]):
            raise


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("odd")

    @cache
    def written(name: str) -> Path:
        return ODD[name](folder / name)

    return written


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("file", ODD)
def test_odd_files_are_read_or_refused(odd: Callable[[str], Path], file: str, name: str) -> None:
    reader, path = make(name), odd(file)
    if not decoded(path)[0]:
        # Only missing frames may fail; readers may still read those before.
        assert file.startswith("cut_off")
        return
    try:
        read_all_orders(reader, path)
    except BadVideo:
        assert name in REFUSED


@pytest.mark.parametrize("name", READERS)
def test_mirrored_frames_are_mirrored_or_refused(name: str, tmp_path: Path) -> None:
    reader = make(name)
    flipped = MINUS + UPRIGHT[4:16] + UPRIGHT[16:]
    path = patched(tmp_path / "mirrored.mp4", UPRIGHT, flipped)
    frames, _ = decoded(tmp_path / "before_mirrored.mp4")
    try:
        got = reader(path, lambda _: [20, 7])
    except BadVideo:
        assert name in REFUSED
        return
    check(tmp_path / "before_mirrored.mp4", got.flip(-1), np.array([20, 7]))
    assert np.abs(rearrange(got[0], "c h w -> h w c").numpy() - frames[20].astype(np.int16)).mean() > 3


@pytest.mark.parametrize("name", READERS)
def test_packets_without_a_picture_are_refused_whatever_is_picked(name: str, tmp_path: Path) -> None:
    reader, path = make(name), remuxed(tmp_path / "comments.mp4", comments)
    for index in (0, 3, 27, 39):
        with pytest.raises(BadVideo):
            reader(path, lambda _, index=index: [index])


def test_the_check_finds_a_wrong_frame(shared: Path) -> None:
    path = shared / "videos/h265.mp4"
    got = PyAV()(path, lambda n: [3, 4])
    check(path, got, np.array([3, 4]))
    with pytest.raises(AssertionError):
        check(path, got, np.array([3, 5]))
    with pytest.raises(AssertionError):
        check(path, 255 - got, np.array([3, 4]))


def test_decord_is_wrong_where_it_is_refused(shared: Path) -> None:
    make("decord")
    import decord

    path = shared / "videos/discard_first_keyframe.mp4"
    frames = torch.from_numpy(decord.VideoReader(str(path), num_threads=1).get_batch([12]).asnumpy())
    with pytest.raises(AssertionError, match="frame 12"):
        check(path, rearrange(frames, "t h w c -> t c h w"), np.array([12]))


def test_plain_files_are_not_decoded_whole(
    shared: Path, odd: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyav, "_read_sequentially", None)
    for path in (shared / "videos/k400_test.mp4", odd("no_b_frames.mp4"), odd("open_groups.mp4"), odd("b_frames.mkv")):
        PyAV()(path, lambda n: [n - 1, n // 2])


def test_a_file_too_large_to_keep_in_memory_is_read_twice(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shared / "videos" / "k400_arm_wrestling.mp4"
    indices = [250, 3, 190, 231, 3]  # behind each of its key frames
    expected = PyAV()(path, lambda _: indices)
    monkeypatch.setattr(packets, "KEPT_BYTES", 0)
    monkeypatch.setattr(pyav, "_read_sequentially", None)
    assert torch.equal(PyAV()(path, lambda _: indices), expected)


def test_a_sequential_decode_that_is_too_large_to_keep_is_repeated(
    odd: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyav, "KEPT_BYTES", 10_000)
    read_all_orders(PyAV(), odd("b_frames.ts"))


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_none_is_named(name: str, tmp_path: Path) -> None:
    reader = make(name)
    for content in (None, b"", b"not a video" * 100):
        path = tmp_path / "some video \u00e9.mp4"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BadVideo) as caught:
            reader(path, lambda _: [0])
        assert str(caught.value).startswith(str(path))
    with pytest.raises(BadVideo):
        reader(tmp_path, lambda _: [0])


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_names_others_is_no_video(name: str, odd: Callable[[str], Path]) -> None:
    reader, path = make(name), odd("b_frames.ts")
    lists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{path}\n#EXT-X-ENDLIST\n",
        "list.mp4": f"ffconcat version 1.0\nfile '{path.name}'\n",
    }
    for each, text in lists.items():
        file = path.with_name(each)
        file.write_text(text)
        with av.open(f"file:{file}") as container:  # FFmpeg alone would show it
            assert next(container.decode(video=0)) is not None
        with refused(str(file), error=BadVideo):
            reader(file, lambda _: [0])


@pytest.mark.parametrize("name", READERS)
def test_a_span_limits_the_frames_that_exist(name: str, odd: Callable[[str], Path]) -> None:
    reader, path = make(name), odd("late_start.mp4")
    told = []

    def pick(num_frames: int) -> list[int]:
        told.append(num_frames)
        return [0, num_frames - 1]

    # 25 frames a second from the first frame on: frames 10 to 19.
    check(path, reader(path, pick, span=(0.4, 0.8)), np.array([10, 19]))
    assert told == [10]
    with refused("late_start.mp4", "60", "70", "1.560", error=BadVideo):
        reader(path, pick, span=(60, 70))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_readers_leave_no_memory_behind(odd: Callable[[str], Path]) -> None:
    make("decord")
    root = Path(__file__).resolve().parents[3]
    running = [
        subprocess.Popen(command("reads_on", name, odd("b_frames.mp4")), cwd=root, stdout=subprocess.PIPE)
        for name in ("pyav", "decord")
    ]
    for process in running:
        out, _ = process.communicate()
        assert process.returncode == 0
        assert float(out) < 10, f"{out.decode()} MB"


@pytest.mark.parametrize("file", ["b_frames.mp4", "mpeg4.mp4", "rotated_270.mp4"])
def test_no_frame_outlives_the_read(file: str, odd: Callable[[str], Path]) -> None:
    """A reference cycle would keep the decoder's memory until Python's next full collection."""
    path = odd(file)

    def frames() -> set[int]:
        return {id(each) for each in gc.get_objects() if type(each) is av.VideoFrame and each.width > 16}

    gc.collect()
    gc.disable()
    try:
        before = frames()
        PyAV()(path, lambda n: [0, n - 1])
        assert not frames() - before
    finally:
        gc.enable()


@dataclass(frozen=True)
class ReadFirst:
    """A task of a pool: read the first frame."""

    reader: Reader

    def __call__(self, path: Path) -> None:
        self.reader(path, lambda _: [0])


def test_decord_says_once_a_run_that_pyav_reads(
    odd: Callable[[str], Path], capfd: pytest.CaptureFixture[str], shared: Path
) -> None:
    """Whichever process is the first to fall back, here or in two pools."""
    work = ReadFirst(make("decord"))
    files = [odd(name) for name in ("b_frames.ts", "b_frames.ts", "open_groups.mp4", "raw.h264")]
    work(shared / "videos/k400_test.mp4")
    assert capfd.readouterr().err == ""
    for _ in range(2):
        with closing(Pool[Path](work, 2, 60.0)) as pool:
            for path in files[:2]:
                pool.give(path, path)
            done = []
            while len(done) < 2:
                done += pool.wait()
        assert [outcome.kind for _, outcome in done] == ["done", "done"]
    capfd.readouterr()  # of a process of the pool, which has said it
    for path in files:
        work(path)
    assert capfd.readouterr().err == ""
    ReadFirst(make("decord"))(files[0])
    assert str(files[0]) in capfd.readouterr().err


def test_what_pyav_cannot_read_either_is_not_called_read(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = make("decord")
    assert isinstance(reader, Decord)
    torn = tmp_path / "torn.mkv"
    content = bytearray((shared / "videos/av1.mkv").read_bytes())
    content[3000::7] = bytes(byte ^ 0x5A for byte in content[3000::7])
    torn.write_bytes(content)
    with pytest.raises(BadVideo):
        reader(torn, lambda n: [n - 1])
    assert not capsys.readouterr().err


def test_pyav_reads_a_file_whose_name_is_not_utf8(
    shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / os.fsdecode(b"odd \xff\n.mp4")
    path.write_bytes((shared / "videos/short_32_frames.mp4").read_bytes())
    found = make("decord")(path, lambda _: [3])
    assert torch.equal(found, PyAV()(shared / "videos/short_32_frames.mp4", lambda _: [3]))
    assert "a name that isn't UTF-8" in capfd.readouterr().err


def test_pyav_reads_everything_where_decord_is_missing(
    shared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(decord, "_decord", None)
    with caplog.at_level(logging.WARNING):
        reader = pickle.loads(pickle.dumps(Decord()))
    path = shared / "videos/k400_test.mp4"
    assert torch.equal(reader(path, lambda _: [3, 200]), PyAV()(path, lambda _: [3, 200]))
    assert len(caplog.records) == 1
    with refused("reader=pyav"):
        Decord(fallback=False)


def test_a_torchcodec_that_is_missing_is_a_user_error(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with refused("reader=pyav"):
        TorchCodec()(shared / "videos/k400_test.mp4", lambda _: [0])


def test_folders_of_images_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(FRAMES):
        Image.fromarray(image(i)).save(tmp_path / f"frame_{i}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._frame_1.png").write_bytes(b"what macOS puts beside a file")
    indices = [0, 2, 10, 39, 2]
    got = Frames()(tmp_path, lambda n: indices[:n])
    assert (rearrange(got, "t c h w -> t h w c").numpy() == np.stack([image(i) for i in indices])).all()
    assert (
        Frames(fps=25)(tmp_path, lambda n: [n - 1], span=(0.4, 0.8))[0] == Frames()(tmp_path, lambda _: [19])[0]
    ).all()
    with refused("reader.fps"):
        Frames()(tmp_path, lambda _: [0], span=(0, 1))
    (tmp_path / "frame_7.png").write_bytes(b"")
    with refused("frame_7.png", error=BadVideo):
        Frames()(tmp_path, lambda n: range(n))
    with refused("frame", "decoded", error=BadVideo):
        Frames()(tmp_path.parent, lambda _: [0])


def test_readers_can_be_sent_to_workers() -> None:
    import pickle

    for reader, fallback in itertools.product([PyAV(), TorchCodec(), Frames(30)], [None]):
        assert pickle.loads(pickle.dumps(reader)) == reader, fallback


ADDRESSES = [
    "2026-01-01T12:30:05.mp4", "http:a.mp4", "concat:a.mp4|b.mp4", "subfile,,start,3,end,9,,:a.mp4", "file:a.mp4",
    "-i.mp4", "pipe:0", "a%03d.mp4", "data:video,abc", "crypto:a b?c#d.mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_name_is_never_an_address(name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader, content = make(name), (shared / "videos/short_32_frames.mp4").read_bytes()
    expected = reader(shared / "videos/short_32_frames.mp4", lambda _: [3])
    for address in ADDRESSES:
        Path(address).write_bytes(content)
        for source in (Path(address), Part(Path(address), 0, len(content), "a.mp4")):
            assert torch.equal(reader(source, lambda _: [3]), expected)
    Path("run:1").mkdir()
    Path("run:1/a.mp4").write_bytes(content)
    assert torch.equal(reader(Path("run:1/a.mp4"), lambda _: [3]), expected)
    if name == "pyav":
        Transcode()(Path("run:1/a.mp4"), Path("run:1/b:c.mp4"))
        assert len(PyAV()(Path("run:1/b:c.mp4"), range)) == 32


@pytest.mark.parametrize("name", READERS)
def test_an_animated_webp_is_a_video(name: str, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "moves.webp"
    first, *rest = [Image.fromarray(image(i)) for i in range(6)]
    first.save(path, save_all=True, append_images=rest, duration=[40, 80, 40, 40, 40, 40], lossless=True)
    timed = Timed(lambda _: [4, 0])
    try:
        found = make(name)(path, timed)
    except BadVideo:
        assert name in REFUSED
        return
    assert np.array_equal(rearrange(found, "t c h w -> t h w c").numpy(), [image(4), image(0)])
    assert timed.seconds == pytest.approx([0, 0.04, 0.12, 0.16, 0.2, 0.24])
    assert [found.path for found in find_videos(str(path), StringIO())] == [path]
    first.save(path)
    with refused(str(path), "picture"):
        find_videos(str(path), StringIO())


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("video", ["short_32_frames.mp4", "odd_size_vp9.mp4", "rotation_90.mov", BROKEN])
def test_a_part_of_a_file_reads_as_the_file_would(name: str, video: str, shared: Path, tmp_path: Path) -> None:
    reader, path = make(name), shared / "videos" / video
    content = path.read_bytes()
    (tmp_path / "a,b:c d.tar").write_bytes(b"moov" * 128 + content + content[: len(content) // 2])
    part = Part(tmp_path / "a,b:c d.tar", 512, len(content), video)

    def got(source: Source) -> torch.Tensor | str:
        try:
            return reader(source, lambda n: [0, n // 2, n - 1])
        except BadVideo as error:
            return str(error).removeprefix(str(source))

    expected, found = got(path), got(part)
    if isinstance(expected, str):
        assert found == expected
    else:
        assert torch.equal(expected, found)
