"""Export a trained model as one self-contained file: uint8 frames in, probabilities out.

    python -m aim.export checkpoint=runs/demo/best.safetensors out=FILE.onnx
    python -m aim.export checkpoint=runs/demo/best.safetensors out=FILE.pt2     # torch.export
    python -m aim.export checkpoint=runs/demo out=FILE.onnx quantize=int8 clips=DIR   # small and fast on a CPU
    python -m aim.export checkpoint=runs/lora out=DIR.peft  # a LoRA adapter and its head, for peft and timm

The trunk, the normalisation, the names of the classes and the clips of the test are inside, and the number of clips in
a batch is free: `video`, uint8 "b t c h w" -> `probability`, float32 "b k". LoRA becomes part of the layers' weights,
which is exact. The file is compared with PyTorch before it takes its name; `aim.predict checkpoint=FILE.onnx` runs it.
"""

import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from aim.adapters.lora import fold
from aim.data.dataset import VideoDataset
from aim.data.lists import Video, spread
from aim.data.named import find_videos
from aim.data.readers.decord import Decord
from aim.data.readers.interface import BadVideo
from aim.data.sampling import Clip
from aim.engine.machine.hardware import use_threads
from aim.engine.run.results import device_name
from aim.engine.scores.tasks import Task
from aim.engine.trained import checkpoint, exported
from aim.engine.trained.exported import About, Program, library, quiet
from aim.engine.trained.recogniser import Recogniser, TrunkFile, load, settings_of
from aim.export import peft
from aim.export.quantizing import TOGETHER, frozen_products, int8, speed
from aim.ground import config, files
from aim.ground.errors import UserError
from aim.ground.foreign import reason
from aim.ground.marks import Mark
from aim.ground.paths import path_of
from aim.models.classifier import VideoClassifier

OPSET = 20  # of ONNX; onnxruntime has run it since 1.17
ONNX_LIMIT = 2**31 - 2**24  # bytes of weights in one file, which is a protobuf message, and some room for the graph
TOLERANCE = 1e-4  # of a probability
BATCHES = (1, 2, 3)
FASTER = 1.6  # times the float32 file, at least
ALIKE = 0.99  # of the videos get the same answer, at least
LOST = 1.0  # point of accuracy, at most, where the right answers are known
CALIBRATING = 32  # videos, at most


@dataclass(frozen=True)
class Settings:
    """The keys of configs/export.yaml."""

    checkpoint: Annotated[str, Mark.PATH]
    out: Annotated[str, Mark.PATH]
    quantize: Literal["int8"] | None
    clips: Annotated[str | Sequence[str] | None, Mark.PATH]
    measure: Annotated[str | Sequence[str] | None, Mark.PATH]
    force: bool
    threads: int | None
    debug: bool
    backbone: TrunkFile

    def __post_init__(self) -> None:
        if self.quantize is not None and Path(self.out).suffix != ".onnx":
            raise UserError(f"quantize={self.quantize} is of ONNX files, and out={self.out} isn't one; use FILE.onnx")
        if self.quantize is None and (self.clips or self.measure):
            raise UserError("clips and measure are of quantize=int8; add that, or leave them out")


class Probabilities(nn.Module):
    """The model with what stands before and behind it: uint8 "b t c h w" -> float32 "b k"."""

    def __init__(self, model: VideoClassifier, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, video: Tensor) -> Tensor:
        logits = self.model(self.model.preprocess(video))
        return self.task.probability(logits.float())


def main(cfg: DictConfig) -> None:
    """Export `checkpoint` to `out`; say how far from PyTorch its probabilities are."""
    settings = config.build(cfg, Settings)
    out = path_of(settings.out)
    check_out(out)
    if exported.is_exported(settings.checkpoint):
        raise UserError(f"checkpoint={settings.checkpoint} is exported already; give a best.safetensors")
    recogniser = load(settings.checkpoint, weights=settings.backbone.weights)
    saved = checkpoint.read_weights(settings.checkpoint)
    assert isinstance(recogniser.model, VideoClassifier)
    if out.suffix == peft.SUFFIX:
        usage = peft.export(recogniser.model, settings_of(saved), saved.classes, out)
        print(f"{out}: {usage} has the trunk's features; its logits, averaged over frames, are the model's")
        return
    about = About(
        classes=recogniser.classes,
        clip=recogniser.clip,
        views=recogniser.views,
        trunk=saved.trunk,
        checkpoint={"name": f"{saved.run}/{saved.path.name}", "sha256": saved.fingerprint},
        calibration=saved.calibration,
        task=recogniser.task,
        pace=recogniser.pace,
        licence=recogniser.licence,
    )
    if settings.quantize:
        with tempfile.TemporaryDirectory(prefix="aim-export-") as folder:
            quantized(settings, recogniser, about, Path(folder), out)
        return
    difference = export(recogniser.model, recogniser.task, about, out)
    print(
        f"{out}: {difference:.1e} is the largest difference of a probability from PyTorch's, in batches of 1, 2 and 3"
    )


def quantized(settings: Settings, recogniser: Recogniser, about: About, folder: Path, out: Path) -> None:
    """Write `out` in int8, with what was measured of it against the float32 file, which is made in a `folder`.

    Raises UserError where it's too slow or answers too differently, unless that is forced.
    """
    use_threads(settings.threads)
    assert isinstance(recogniser.model, VideoClassifier)
    given = videos_of(settings.clips)
    calibrating = list(spread(given, CALIBRATING if settings.measure else min(CALIBRATING, len(given) // 2)))
    others = videos_of(settings.measure) if settings.measure else [each for each in given if each not in calibrating]
    trunk, plain, made = frozen_products(recogniser.model), folder / "float32.onnx", folder / "int8.onnx"
    export(recogniser.model, recogniser.task, about, plain)
    seen = [found[0] for _, found in clips_of(recogniser, calibrating)]
    number = int8(plain, trunk, seen, made)
    ours, theirs = (Program(exported.open_onnx(path)[0], about.clip) for path in (made, plain))
    measured = compared(ours, theirs, recogniser, others)
    faster = speed(ours, theirs, torch.cat(clips(about.clip) * TOGETHER)[:TOGETHER])
    agreement = measured["agreement"]
    words = (
        f"{faster:.2f} times as fast as float32 in batches of {TOGETHER} clips, the same answer in "
        + (
            f"{100 * agreement:.1f} % of {measured['videos']} videos"
            if agreement is not None
            else "no videos: none given"
        )
        + (
            f", accuracy {measured['accuracy'][1]:.1f} % after {measured['accuracy'][0]:.1f}"
            if measured["accuracy"]
            else ""
        )
    )
    if not settings.force and (faster < FASTER or not alike(measured)):
        raise UserError(
            f"{out} isn't written: in int8 it is {words}; at least {FASTER:g} times and {100 * ALIKE:g} % "
            f"(or, of videos in folders of their classes, at most {LOST:g} point of accuracy less) are asked for; "
            "clips=VIDEOS calibrates and measures on those, and force=true writes it"
        )
    notes = {"precision": "int8", "products": number, "calibration_videos": len(seen), "speed": round(faster, 3)}
    notes |= {"threads": torch.get_num_threads(), "processor": device_name(torch.device("cpu")), **measured}
    onnx = library("onnx")
    model = onnx.load(made)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, replace(about, quantized=notes).to_text())
    files.write_atomically(out, lambda file: onnx.save(model, file))
    print(f"{out}: {number} products of the trunk in int8, {words}")


def alike(measured: Mapping[str, Any]) -> bool:
    """Whether a file answers as the float32 one does, or as well where the right answers are known."""
    if (accuracy := measured["accuracy"]) and accuracy[0] - accuracy[1] <= LOST:
        return True
    return measured["agreement"] is not None and measured["agreement"] >= ALIKE


def videos_of(named: str | Sequence[str] | None) -> list[Video]:
    """The videos that a setting names, each once. Raises UserError for what is none."""
    inputs = find_videos(named, sys.stdin) if named else []
    for item in inputs:
        if item.problem:
            raise UserError(f"{item.path}: {item.problem}")
    return [Video(str(path), 0) for path in dict.fromkeys(item.path for item in inputs)]


def clips_of(recogniser: Recogniser, videos: Sequence[Video]) -> Iterator[tuple[Video, Tensor]]:
    """Each video with the views of the test, uint8 "v t c h w". Raises UserError where one can't be read."""
    dataset = VideoDataset(Path(), list(videos), Decord(), recogniser.clip, recogniser.views, seed=0)
    for i, video in enumerate(videos):
        try:
            yield video, dataset.read(0, i)
        except BadVideo as error:
            raise UserError(f"{error}; leave it out of clips and measure") from error


def compared(ours: Program, theirs: Program, recogniser: Recogniser, videos: Sequence[Video]) -> dict[str, Any]:
    """In how many videos two programs give the same answer, and how many each gets right, in percent, where known.

    It's known where each lies in a folder of its class.
    """
    same, right, folders = list[bool](), list[tuple[bool, bool]](), dict[str, int]()
    folders.update((name, i) for i, name in enumerate(recogniser.classes))
    known = bool(videos) and all(Path(video.path).parent.name in folders for video in videos)
    for video, clip in clips_of(recogniser, videos):
        mine, other = (recogniser.task.best(program(clip).mean(0, keepdim=True)).item() for program in (ours, theirs))
        same.append(mine == other)
        if known:
            label = folders[Path(video.path).parent.name]
            right.append((other == label, mine == label))
    accuracy = [100 * sum(each) / len(right) for each in zip(*right, strict=True)] if right else None
    return {"videos": len(same), "agreement": sum(same) / len(same) if same else None, "accuracy": accuracy}


def check_out(out: Path) -> None:
    """Raise UserError for a kind of file that can't be written, or not here, before anything is loaded."""
    if out.suffix not in (*exported.SUFFIXES, peft.SUFFIX):
        raise UserError(
            f"out={out} has none of the suffixes that are known; use FILE.onnx, FILE.pt2 (torch.export), or DIR.peft"
        )
    if out.suffix == peft.SUFFIX and out.exists():
        raise UserError(f"out={out} exists already; name a new folder, or delete it")
    if out.suffix == ".onnx":
        for name in ("onnxscript", "onnxruntime"):
            library(name)


def export(model: VideoClassifier, task: Task, about: About, out: Path) -> float:
    """Write the model to `out`, with LoRA folded into its weights; return the largest difference from PyTorch.

    Raises UserError, and leaves what was there before, where it can't be exported or gives other probabilities.
    """
    wanted = [(video, expected_of(model, task, video)) for video in clips(about.clip)]
    fold(model)
    probabilities = Probabilities(model, task).eval().requires_grad_(False)
    save = {".onnx": onnx_writer, ".pt2": pt2_writer}[out.suffix](probabilities, about, out)
    found: list[float] = []

    def write(file: Path) -> None:
        save(file)
        run = exported.open_onnx(file)[0] if out.suffix == ".onnx" else exported.open_pt2(file)
        found.append(largest_difference(Program(run, about.clip), wanted))
        if not found[0] <= TOLERANCE:  # NaN isn't, either
            raise UserError(
                f"{out} isn't written: its probabilities differ from PyTorch's by up to {found[0]:.1e}, more than "
                f"{TOLERANCE:g}; please report it with the versions of torch and onnxruntime"
            )

    files.write_atomically(out, write)
    return found[0]


def clips(clip: Clip) -> list[Tensor]:
    """Random clips, uint8 "b t c h w", in batches of several sizes: patches of colour, which models tell apart."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for b in BATCHES:
        cells = torch.rand(b * clip.num_frames, 3, 4, 4, generator=generator)
        frames = F.interpolate(cells, size=clip.size)
        found.append(rearrange((255 * frames).to(torch.uint8), "(b t) c h w -> b t c h w", b=b))
    return found


@torch.inference_mode()
def expected_of(model: VideoClassifier, task: Task, video: Tensor) -> Tensor:
    """The probabilities of PyTorch."""
    probability: Tensor = Probabilities(model, task).eval()(video)
    return probability


def largest_difference(program: Program, wanted: list[tuple[Tensor, Tensor]]) -> float:
    """Between what a program gives for clips and what it should."""
    return max(float((program(video) - expected).abs().max()) for video, expected in wanted)


def traced(model: Probabilities, clip: Clip, out: Path) -> ExportedProgram:
    """The model's operations for a batch of any size. Raises UserError with torch's reason where there is no such."""
    example = torch.zeros(2, clip.num_frames, 3, clip.size, clip.size, dtype=torch.uint8)
    try:
        with quiet(), torch.no_grad():
            program = torch.export.export(model, (example,), dynamic_shapes=({0: Dim("b")},))
    except (RuntimeError, ValueError, TypeError) as error:
        raise cant(out, error) from error
    for graph in program.graph_module.modules():
        for node in graph.graph.nodes if isinstance(graph, GraphModule) else ():
            node.meta.pop("stack_trace", None)  # names this machine's folders
    return program


def cant(out: Path, error: Exception) -> UserError:
    return UserError(f"out={out}: this trunk with this adapter can't be exported: {reason(error)}")


def onnx_writer(model: Probabilities, about: About, out: Path) -> Callable[[Path], None]:
    """A function that writes the model as ONNX. Raises UserError where it can't be exported."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > ONNX_LIMIT:
        raise UserError(f"out={out}: {size / 2**30:.1f} GB of weights, and an ONNX file holds 2; use FILE.pt2")
    program = traced(model, about.clip, out)
    try:
        with quiet(), torch.no_grad():
            made: Any = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[exported.INPUT],
                output_names=[exported.OUTPUT],
                dynamic_shapes=({0: Dim("b")},),  # its name in the file
            )
    except (RuntimeError, ValueError, TypeError) as error:
        raise cant(out, error) from error
    made.model.metadata_props.update(about.to_text())
    save: Callable[[Any, Path], None] = library("onnx_ir").save  # the program's own puts large weights beside the file
    return lambda file: save(made.model, file)


def pt2_writer(model: Probabilities, about: About, out: Path) -> Callable[[Path], None]:
    """A function that writes the model as a program of torch.export. Raises UserError where it can't be exported."""
    program = traced(model, about.clip, out)
    made = io.BytesIO()  # a disk that gets full under torch's own writer ends the process
    with quiet():
        torch.export.save(program, made, extra_files={exported.EXTRA_FILE: json.dumps(about.to_text())})

    def save(file: Path) -> None:
        file.write_bytes(made.getbuffer())

    return save
