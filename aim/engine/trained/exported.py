"""Reading of exported models: uint8 frames in, probabilities out, and how videos become such frames.

An ONNX file has it in its metadata, a file of torch.export in an extra file. Both compute in float32, an ONNX file
perhaps with products in int8.
"""

import importlib
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from aim.data.pace import UNPACED, Pace
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.engine.machine.hardware import Computed, Device, Untrained
from aim.engine.scores.calibration import UNCALIBRATED, Calibration
from aim.engine.scores.tasks import SINGLE_LABEL, Task, named
from aim.ground import config
from aim.ground.console import without_logs
from aim.ground.errors import UserError
from aim.ground.foreign import reading, reason
from aim.ground.formats import check_format, stamp
from aim.ground.kinds import written
from aim.weights.hub import file_here

SUFFIXES = (".onnx", ".pt2")
FORMAT = "aim-video exported 1"
EXTRA_FILE = "aim.json"
OPTIONAL = ("calibration", "task", "pace", "licence", "quantized")  # parts that older files lack
INPUT, OUTPUT = "video", "probability"
AGAIN = "aim.export makes it again"


@dataclass(frozen=True)
class About:
    """The metadata of an exported file."""

    classes: list[str]
    clip: Clip
    views: Views  # of the test
    trunk: Mapping[str, str]  # its name and sha256
    checkpoint: Mapping[str, str]  # its name and sha256
    calibration: Calibration = UNCALIBRATED  # of the probabilities, which are written without it
    task: Task = SINGLE_LABEL
    pace: Pace = UNPACED  # of the videos that it learnt from
    licence: str = ""  # of the trunk's weights; empty: not known
    quantized: Mapping[str, Any] | None = None  # precision of the trunk's products, and its measurements

    def to_text(self) -> dict[str, str]:
        """Each part as JSON, with the format, and the expected input in words."""
        parts = asdict(self) | {"task": written("task", self.task)} | self.expects()
        del parts["calibration"]
        return stamp(FORMAT) | {key: json.dumps(value) for key, value in parts.items()} | self.calibration.as_text()

    @property
    def precision(self) -> Literal["fp32", "int8"]:
        """That it computes in, as far as its products go."""
        return "int8" if self.quantized else "fp32"

    def expects(self) -> dict[str, dict[str, str]]:
        """The way from a video to its probabilities in words, for a program of somebody else: docs/export.md."""
        clip, views = self.clip, self.views
        t, v, span, size = clip.num_frames, views.temporal, clip.span, clip.size
        if clip.sampling == "uniform":
            frames = (
                f"edges e = round((n - 1) / {t} * [0 ... {t}]), halves to even; frame i of clip c is "
                f"e[i] + (e[i + 1] - e[i]) * (2 c + 1) // {2 * v}"
            )
        else:
            late = "modulo n" if clip.short_videos == "loop" else "at most n - 1"
            frames = (
                f"frame i of clip c is floor(max(n - {span} + 1, 0) / {v} * (c + 0.5)) + {clip.stride_frames} i, {late}"
            )
        if apart := self.pace.apart(clip):
            frames += f"; in the training's videos they were about {apart:.3g} s apart"
        middle = f"top = (height - {size}) // 2, left = (width - {size}) // 2"
        if views.spatial == 3:
            middle += ", and both ends of the longer side: 0 and 2 top where it is the height, else 0 and 2 left"
        return {
            "expects": {
                "frames": f"of all n frames as shown, counted from 0, {v} clips, counted from 0, of {t}: {frames}",
                "picture": "upright, RGB, uint8, as FFmpeg's swscale converts (PyAV: frame.to_ndarray(format='rgb24'))",
                "resize": f"short side {views.resize}: height = int(height * s + 0.5), width = int(width * s + 0.5), "
                f"s = {views.resize} / min(height, width); bilinear without antialiasing, pixel centres at halves "
                "(OpenCV's INTER_LINEAR): across, rounded to uint8, then down, rounded",
                "crop": f"{size} x {size}, {middle}",
                INPUT: f"uint8 b t c h w = b {t} 3 {size} {size}, 0 to 255; the file normalises it",
                OUTPUT: f"float32 b k, {self.scores()[0]}, in the order of `classes`; not calibrated",
                "answer": "the mean of the probabilities of a video's clips; aim.predict calibrates each before: "
                f"{self.scores()[1]}",
            }
        }

    def scores(self) -> tuple[str, str]:
        """The kind of probabilities, and the way from them to an answer."""
        if self.task.several:
            return "a sigmoid for each class", (
                "p ** (1 / t) / (p ** (1 / t) + (1 - p) ** (1 / t)), with the class's own t of `temperature`; a "
                "label is given where the mean is at least the class's own of `thresholds`"
            )
        return "softmax over the classes", "p ** (1 / temperature), divided by its sum over the classes"


@dataclass(frozen=True)
class Program:
    """An exported model on the CPU: uint8 "b t c h w" -> probabilities, float32 "b k"."""

    run: Callable[[Tensor], Tensor]
    clip: Clip

    def __call__(self, video: Tensor) -> Tensor:
        expected = (self.clip.num_frames, 3, self.clip.size, self.clip.size)
        if video.dtype != torch.uint8 or tuple(video.shape[1:]) != expected:
            raise UserError(
                f"a batch of clips of {video.dtype} and shape b t c h w = {tuple(video.shape)}; the exported model "
                f"takes uint8, b {' '.join(map(str, expected))}"
            )
        return self.run(video)


def is_exported(path: str | Path) -> bool:
    """Whether a checkpoint's name is that of an exported file."""
    return Path(path).suffix in SUFFIXES


def settled(path: str | Path, device: Device, precision: Computed) -> tuple[Device, Untrained]:
    """Device and precision to prepare a model for: those asked for or, of an exported file, float32 on the CPU.

    Raises UserError for a request that the model can't fulfil; `check_precision` does for exported files.
    """
    if is_exported(path):
        if device in ("cuda", "mps"):
            raise UserError(
                f"device={device}, but {path} computes on the CPU; leave that out, or give the best.safetensors"
            )
        return "cpu", "fp32"
    if precision == "int8":
        raise UserError(
            f"precision=int8, but {path or 'a trunk alone'} isn't exported; leave it out, or make a file: "
            "aim.export checkpoint=... out=FILE.onnx quantize=int8 clips=VIDEOS"
        )
    return device, precision


def check_precision(asked: Computed, path: str | Path, own: str | None) -> None:
    """Raise UserError for another precision than an exported file's own."""
    if asked not in ("auto", own):
        other = {"int8": "aim.export quantize=int8 makes another", "fp32": "aim.export without quantize makes another"}
        raise UserError(
            f"precision={asked}, but {path} was exported to compute in {own}; leave that out, or "
            + other.get(asked, "give the best.safetensors")
        )


def read(path: str | Path, *, trust: bool = False) -> tuple[Program, About]:
    """The model in an exported file, and its metadata.

    ONNX is data alone. A file of torch.export can run any code of its author while it's loaded: it needs `trust`.
    Raises UserError if the file can't be read.
    """
    path = file_here(path, "checkpoint", "model.onnx", AGAIN)
    if not path.is_file():
        raise UserError(f"checkpoint {path} doesn't exist; it is a file that aim.export wrote")
    if path.suffix == ".onnx":
        run, text = open_onnx(path)
        about = parsed(text, path)
    else:
        about = parsed(text_of_pt2(path), path)
        if not trust:
            raise UserError(
                f"{path} is a program of torch.export, which can run code of its author when it's loaded; add "
                "trust=true if you know who made it, or use an .onnx"
            )
        run = open_pt2(path)
    return Program(run, about.clip), about


def parsed(text: Mapping[str, str], path: Path) -> About:
    """The inverse of `About.to_text`. Raises UserError for other text."""
    check_format(text, FORMAT, path, "aim.export")
    with reading(path, "a file of aim.export, for its metadata are damaged", AGAIN):
        parts = {key: json.loads(text[key]) for key in About.__dataclass_fields__ if key not in OPTIONAL}
        if not isinstance(parts["classes"], list):
            raise TypeError("classes that are no list")
        calibration = Calibration.of_text(text, len(parts["classes"]))
        names = [*parts["classes"], *parts["trunk"].values(), *parts["checkpoint"].values()]
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a name that is no text")
        clip = config.build(dict(parts["clip"]), Clip, received=True)
        views = config.build(dict(parts["views"]), Views, received=True)
        task, pace = named(json.loads(text.get("task", "null"))), Pace.of_text(text.get("pace"))
        licence = str(json.loads(text.get("licence", '""')))
        quantized = json.loads(text.get("quantized", "null"))
        if not (quantized is None or isinstance(quantized, dict)):
            raise TypeError("quantized that is no object")
    return About(
        parts["classes"], clip, views, parts["trunk"], parts["checkpoint"], calibration, task, pace, licence, quantized
    )


def open_onnx(path: Path) -> tuple[Callable[[Tensor], Tensor], dict[str, str]]:
    """A function that runs an ONNX file, and its metadata. Raises UserError if it or onnxruntime can't be loaded."""
    runtime = library("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about the machine
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as `aim.ground.threads` has it
    with reading(path, "an ONNX file that onnxruntime can run", AGAIN):
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(video: Tensor) -> Tensor:
        with reading(path, "an ONNX file that onnxruntime can run", AGAIN):
            (found,) = session.run([OUTPUT], {INPUT: video.cpu().contiguous().numpy()})
        return torch.from_numpy(found)

    return run, dict(session.get_modelmeta().custom_metadata_map)


def text_of_pt2(path: Path) -> dict[str, str]:
    """The metadata of a file of torch.export, without loading it. Raises UserError if it's damaged."""
    with reading(path, "a file of torch.export", AGAIN), zipfile.ZipFile(path) as file:
        if (damaged := file.testzip()) is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        name = next((name for name in file.namelist() if name.endswith(f"/extra/{EXTRA_FILE}")), None)
        found = json.loads(file.read(name)) if name else {}
    return found if isinstance(found, dict) else {}


def open_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    """A function that runs a file of torch.export. Raises UserError if this version of torch can't load it."""
    expected = f"a file of torch.export by torch {torch.__version__}"
    with reading(path, expected, AGAIN), quiet(), path.open("rb") as stream:
        module = torch.export.load(stream).module()

    def run(video: Tensor) -> Tensor:
        try:
            found: Tensor = module(video.cpu())
        except (RuntimeError, AssertionError) as error:  # guards of the export
            raise UserError(f"torch {torch.__version__} can't run {path} ({reason(error)})") from error
        return found

    return run


def library(name: str) -> Any:
    """A library that only ONNX files need. Raises UserError if it isn't installed."""
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"ONNX files need {name}, which can't be imported ({reason(error)}): pip install 'aim-video[export]'"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the output and warnings of torch's exporter and its libraries."""
    with (
        without_logs(),
        warnings.catch_warnings(action="ignore"),
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
    ):
        yield
