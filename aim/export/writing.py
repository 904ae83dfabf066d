"""A model as one file: ONNX or torch.export, compared with PyTorch before it gets its name."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from aim.adapters.lora import fold
from aim.data.sampling import Clip
from aim.engine.scores.tasks import Task
from aim.engine.trained import exported
from aim.engine.trained.exported import About, Program, library, quiet
from aim.ground import files
from aim.ground.errors import UserError
from aim.ground.foreign import reason
from aim.models.classifier import VideoClassifier

OPSET = 20  # of ONNX; onnxruntime has run it since 1.17
ONNX_LIMIT = 2**31 - 2**24  # bytes of weights in one file, a protobuf message, with some room for the graph
TOLERANCE = 1e-4  # of a probability
BATCHES = (1, 2, 3)


class Probabilities(nn.Module):
    """The model with normalisation and probabilities: uint8 "b t c h w" -> float32 "b k"."""

    def __init__(self, model: VideoClassifier, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, video: Tensor) -> Tensor:
        logits = self.model(self.model.preprocess(video))
        return self.task.probability(logits.float())


class Patches(nn.Module):
    """A patch embedding of bytes as one product, with the normalisation, "c 1 1", in it: "n c h w" -> "n d h w"."""

    def __init__(self, layer: nn.Conv2d, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.size = layer.kernel_size
        weight = layer.weight / (255 * std)
        self.weight = nn.Parameter(weight.flatten(1))
        bias = 0 if layer.bias is None else layer.bias
        self.bias = nn.Parameter(bias - (255 * mean * weight).sum((1, 2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        p, q = self.size
        x = rearrange(x, "n c (h p) (w q) -> n h w (c p q)", p=p, q=q).float()
        return rearrange(F.linear(x, self.weight, self.bias), "n h w d -> n d h w")


def export(model: VideoClassifier, task: Task, about: About, out: Path) -> float:
    """Write the model to `out`, with LoRA folded into its weights; return the largest difference from PyTorch.

    Raises UserError, and keeps an earlier file, if it can't be exported or gives other probabilities.
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
    """Random clips, uint8 "b t c h w", in batches of several sizes: patches of colour, which models distinguish."""
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
    """Between a program's probabilities for clips and the right ones."""
    return max(float((program(video) - expected).abs().max()) for video, expected in wanted)


def take_bytes(probabilities: Probabilities) -> None:
    """Let an image trunk's patch embedding take frames as they come, without passes over them that normalise."""
    model: Any = probabilities.model
    embedding: Any = getattr(model.backbone.trunk, "patch_embed", None)
    layer = getattr(embedding, "proj", None)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == layer.stride and layer.padding == (0, 0):
        embedding.proj = Patches(layer, model.mean[..., 0], model.std[..., 0])
        model.preprocess = lambda video: rearrange(video, "b t c h w -> b c t h w")


def traced(model: Probabilities, clip: Clip, out: Path) -> ExportedProgram:
    """The model's operations for any batch size. Raises UserError with torch's reason if that fails."""
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
    """A function that writes the model as ONNX. Raises UserError if it can't be exported."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > ONNX_LIMIT:
        raise UserError(f"out={out}: {size / 2**30:.1f} GB of weights, above ONNX's limit of 2; use FILE.pt2")
    take_bytes(model)
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
    save: Callable[[Any, Path], None] = library("onnx_ir").save  # its own method puts large weights beside the file
    return lambda file: save(made.model, file)


def pt2_writer(model: Probabilities, about: About, out: Path) -> Callable[[Path], None]:
    """A function that writes the model as a program of torch.export. Raises UserError if it can't be exported."""
    program = traced(model, about.clip, out)
    made = io.BytesIO()  # torch's own writer ends the process when the disk is full
    with quiet():
        torch.export.save(program, made, extra_files={exported.EXTRA_FILE: json.dumps(about.to_text())})

    def save(file: Path) -> None:
        file.write_bytes(made.getbuffer())

    return save
