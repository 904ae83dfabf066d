"""Times the making of training clips, on one core: the public AIM pipeline against ours.

    python scripts/bench_loader.py ../shared/videos/k400_*.mp4 --out bench_loader.json [--shards]

In turn, on the same files and frame indices, 8 frames at stride 16, 224 pixels, Kinetics-400's augmentation:
(a) public:   the whole file into memory, decord with one thread, OpenCV frame by frame, float32 normalisation.
(b) same:     ours on the same file, with the fastest of our readers.
(c) prepared: ours on the file that `aim.prepare` makes of it.
(d) shards, with --shards: the same bytes inside of a tar, as `aim.prepare shards=true` packs them.
A round is a clip of each file by each, each in its own process, ours set up like a decoding process of `aim.train`.
Times are the core's (user and system), which a busy machine stretches least; ratios are medians over the rounds of
times within a round.

Limits: (a) and (b) go through up to 280 packets to get 8 frames, as key frames are seconds apart. (b) is within a tenth
of FFmpeg's time for the reference frames alone: it saves the others, one of the two resizes, and the floats. Skipping
all B-frames gains nothing (few refer to none here, and P-frames may refer to them).

(c) takes 6.2 ms a clip, one after the other in one process (AMD EPYC), of (a)'s 120:

    2.6  seeking to and decoding 8 key frames, 0.25 to 0.3 each: reading the bits of 5.4 KB, without filter or CABAC
    1.0  crop and resize of 8 frames, two thirds of it torchvision's uint8 kernel
    0.9  av.open: FFmpeg guesses the format (0.13), reads the index and decodes the first frame (0.2)
    0.6  colour conversion, 0.25 of it with warm caches, and the copy into the clip
    0.3  the index of 300 frames
    0.8  the rest: half of the clips flipped, draws, Python

So 17 to 18 times, not 20: that would be 6.0 ms on an idle machine and fewer on this one; decoding, opening and the
one resize take 4.5 of them. Tried without a gain: other probing options for opening; collecting no
garbage; x264's other presets, partitions, trellis, no 8x8 transform (decoding within a tenth). Not worth it: naming the
format (0.13 ms); crf 23, 0.2 ms for 0.7 dB; MJPEG of 38.1 dB, which decodes a quarter faster at up to 3.2 times the
bytes; a crop before the colour conversion (0.2 ms), for which readers would have to know the crop.
"""

import argparse
import io
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch
from torch import Tensor

from aim.data.lists import Lists, Video
from aim.data.loading.memory import CLIPS, keep_freed_memory
from aim.data.readers.decord import Decord
from aim.data.readers.interface import Part, Reader, Source
from aim.data.readers.pyav import PyAV
from aim.data.sampling import Clip, train_indices
from aim.data.stored.shards import located, source_of
from aim.data.transforms import Augment
from aim.prepare.packing import Packer
from aim.prepare.transcode import Transcode

CLIP = Clip(num_frames=8, stride_frames=16, size=224, sampling="dense")
AUGMENT = Augment(
    area=(0.08, 1.0),
    ratio=(3 / 4, 4 / 3),
    flip=0.5,
    lighting=0.0,
    color_jitter=0.0,
    rand_augment=0,
    rand_augment_magnitude=0,
    erasing=0.0,
)
PREPARE = Transcode()  # as aim.prepare does unless told otherwise
MEAN, STD = np.float32([122.769, 116.74, 104.04]), np.float32([68.493, 66.63, 70.321])  # CLIP's, 0 to 255


def public(path: Path, rng: np.random.Generator) -> Tensor:
    """A clip by the public implementation: float32 "c t h w"."""
    import decord

    video = decord.VideoReader(io.BytesIO(path.read_bytes()), num_threads=1)
    frames = video.get_batch(train_indices(len(video), CLIP, rng)[0]).asnumpy()
    height, width = frames.shape[1:3]
    scale = 256 / min(height, width)
    height, width = int(height * scale + 0.5), int(width * scale + 0.5)
    images = [cv2.resize(frame, (width, height)) for frame in frames]
    area = height * width * rng.uniform(*AUGMENT.area)
    ratio = np.exp(rng.uniform(*np.log(AUGMENT.ratio)))
    h, w = min(height, round(np.sqrt(area / ratio))), min(width, round(np.sqrt(area * ratio)))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    images = [cv2.resize(image[top : top + h, left : left + w], (CLIP.size, CLIP.size)) for image in images]
    if rng.random() < AUGMENT.flip:
        images = [cv2.flip(image, 1) for image in images]
    floats = [image.astype(np.float32) for image in images]
    for image in floats:
        cv2.subtract(image, (*MEAN.tolist(), 0), image)
        cv2.multiply(image, (*(1 / STD).tolist(), 0), image)
    return torch.from_numpy(np.ascontiguousarray(np.stack(floats).transpose(3, 0, 1, 2)))


def ours(reader: Reader) -> Callable[[Source, np.random.Generator], Tensor]:
    """A clip by our loader: uint8 "t c h w"; the device converts and normalises it."""

    def clip(path: Source, rng: np.random.Generator) -> Tensor:
        frames = reader(path, lambda num_frames: train_indices(num_frames, CLIP, rng)[0])
        return AUGMENT(frames, CLIP.size, rng)

    return clip


def serve(pipe: Connection, clip: Callable[[Any, np.random.Generator], Tensor], paths: list[Source]) -> None:
    """Time a round on request; ours as in a decoding process, the public one as in torch's."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if clip is not public:
        keep_freed_memory(*CLIPS)
    while True:
        seed = pipe.recv()
        clip(paths[0], np.random.default_rng([1, seed]))  # the other pipelines have emptied the caches
        start = time.process_time()
        for path in paths:
            clip(path, np.random.default_rng([0, seed]))
        pipe.send(time.process_time() - start)


def packed(files: list[Path], folder: Path) -> list[Part]:
    """The files in a shard, as readers get them."""
    folder.mkdir()
    lists = Lists([Video(file.name, 0) for file in files], [], ["all"])
    packer = Packer(folder, lists, packed=lambda source: None)
    for file in files:
        packer.add(file.name, file)
    packer.close()
    return [source_of(folder, video) for video in located(folder, lists).train]


def psnr(source: Path, prepared: Path) -> float:
    """Peak signal to noise of all planes of prepared frames against the resized source, in decibels."""
    errors = []
    with av.open(str(source)) as x, av.open(str(prepared)) as y:
        for frame, other in zip(x.decode(video=0), y.decode(video=0), strict=True):
            resized = frame.reformat(other.width, other.height, "yuv420p").to_ndarray()
            errors.append(np.square(resized.astype(np.float32) - other.to_ndarray()).mean())
    return float(10 * np.log10(255**2 / np.mean(errors)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the making of training clips on one core.")
    shared = Path(os.environ.get("AIM_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    parser.add_argument("files", nargs="*", type=Path, default=sorted(shared.glob("videos/k400_*.mp4")))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--shards", action="store_true", help="also read the prepared files from a tar")
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    args = parser.parse_args()
    if not args.files:
        parser.error(f"no files: name some, or set AIM_SHARED ({shared} has no videos/k400_*.mp4)")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    with tempfile.TemporaryDirectory() as folder:
        prepared = {file: Path(folder, file.name) for file in args.files}
        for file, to in prepared.items():
            PREPARE(file, to)
        ways = {
            "public": (public, args.files),
            "same_pyav": (ours(PyAV()), args.files),
            "same_decord": (ours(Decord()), args.files),
            "prepared": (ours(PyAV()), [prepared[file] for file in args.files]),
        }
        if args.shards:
            ways["shards"] = (ours(PyAV()), packed([*prepared.values()], Path(folder, "shards")))
        pipes, fork = {}, multiprocessing.get_context("fork")
        for name, (clip, paths) in ways.items():
            pipes[name], end = fork.Pipe()
            fork.Process(target=serve, args=(end, clip, paths), daemon=True).start()
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for i in range(-1, args.rounds):  # the first round warms up
            for name, pipe in pipes.items():
                pipe.send(i + 1)
                took = pipe.recv()
                if i >= 0:
                    seconds[name].append(took)
        report = {
            "bytes_ratio": {f.name: round(to.stat().st_size / f.stat().st_size, 2) for f, to in prepared.items()},
            "psnr_db": {f.name: round(psnr(f, to), 2) for f, to in prepared.items()},
        }

    def ratio(name: str, to: str = "public") -> float:
        return statistics.median(a / b for a, b in zip(seconds[to], seconds[name], strict=True))

    fastest = max("same_pyav", "same_decord", key=ratio)
    report |= {
        "clips_per_second": {n: round(len(args.files) / statistics.median(s), 2) for n, s in seconds.items()},
        "fastest_reader": fastest.removeprefix("same_"),
        "ratio_same_files": round(ratio(fastest), 2),
        "ratio_prepared": round(ratio("prepared"), 2),
        **({"ratio_shards_to_prepared": round(ratio("shards", "prepared"), 3)} if args.shards else {}),
        "rounds": args.rounds,
        "files": [file.name for file in args.files],
        "versions": {"av": av.__version__, "torch": torch.__version__, "opencv": cv2.__version__},
    }
    print(json.dumps(report, indent=2))
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
