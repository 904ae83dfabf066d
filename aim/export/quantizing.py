"""int8 for the products of a frozen trunk in an ONNX file; adapters, norms, attention and the head stay float32.

Weights get a scale a column, activations one a tensor, by the ranges seen in calibration clips or, without any, by each
batch's own: Nagel et al. 2021, "A White Paper on Neural Network Quantization", sections 2.3 and 2.4. A product whose
activations have few very large values, as some trunks' do (Sun et al. 2024, "Massive Activations"), stays float32.
"""

import hashlib
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import parametrize

from aim.adapters.interface import linears
from aim.engine.trained import exported
from aim.engine.trained.exported import Program, library, quiet
from aim.ground.errors import UserError
from aim.models.classifier import VideoClassifier

Floats = NDArray[np.float32]
WORST = 0.04  # relative error of a product's result above which it stays float32
ROWS = 512  # of activations for this measurement
REPEATS = 9  # of a batch's time, the two files alternating
TOGETHER = 8  # clips of such a batch


@dataclass(frozen=True)
class Seen:
    """The input activations of a product: their range, with 0 in it, and some of their rows, "n d"."""

    low: float
    high: float
    rows: Floats

    def __or__(self, other: "Seen") -> "Seen":
        rows = np.concatenate([self.rows, other.rows])[:ROWS]
        return Seen(min(self.low, other.low), max(self.high, other.high), rows)

    @property
    def scale(self) -> tuple[np.float32, np.uint8]:
        """The step of an unsigned byte, and the byte that is 0."""
        step = np.float32(max(self.high - self.low, 1e-12) / 255)
        return step, np.uint8(round(-self.low / float(step)))


def frozen_products(model: VideoClassifier) -> set[str]:
    """Hashes of the trunk's untrained matrices, whole or by thirds (q, k and v), in ONNX's form."""
    trained, found = set(model.trainable), set[str]()
    for name, layer in linears(model).items():
        if f"{name}.weight" not in trained and not parametrize.is_parametrized(layer):
            found |= {hashed(part.numpy()) for n in (1, 3) for part in layer.weight.detach().float().chunk(n)}
    return found


def hashed(matrix: NDArray[Any]) -> str:
    """The sha256 of a matrix, and of its shape."""
    return hashlib.sha256(f"{matrix.shape}".encode() + np.ascontiguousarray(matrix).tobytes()).hexdigest()


def int8(path: Path, trunk: Set[str], clips: Sequence[Tensor], out: Path) -> int:
    """Write the ONNX model of a file to `out` with the trunk's products in int8; return their number.

    `clips`, uint8 "t c h w", calibrate it; without any each batch does. Raises UserError if no product of a trunk is
    found.
    """
    onnx = library("onnx")
    model = folded(path)
    weights = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    products = [
        node
        for node in model.graph.node
        if node.op_type == "MatMul" and node.input[1] in weights and hashed(weights[node.input[1]].T) in trunk
    ]
    if clips and products:
        seen = calibrated(model, [node.input[0] for node in products], clips)
        products = [each for each in products if error(seen[each.input[0]], weights[each.input[1]]) <= WORST]
    if not products:
        raise UserError("quantize=int8: this model has no frozen product that fits int8; leave it out")
    if clips:
        static(model, products, weights, seen)
        onnx.save(model, out)
    else:
        names = [node.name for node in products]
        with quiet():
            tool = library("onnxruntime.quantization")
            tool.quantize_dynamic(model, out, per_channel=True, nodes_to_quantize=names)
    return len(products)


def folded(path: Path) -> Any:
    """The model of a file with its constants computed, such as the thirds of a matrix; metadata are kept."""
    onnx, runtime = library("onnx"), library("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path.with_suffix(".folded.onnx"))
    runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath)
    del model.metadata_props[:]
    return model


def calibrated(model: Any, names: Sequence[str], clips: Sequence[Tensor]) -> dict[str, Seen]:
    """The activations at these places of the model in clips."""
    onnx, runtime = library("onnx"), library("onnxruntime")
    names = list(dict.fromkeys(names))
    looked = onnx.ModelProto()
    looked.CopyFrom(model)
    looked.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(looked.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = dict[str, Seen]()
    for clip in clips:
        for name, value in zip(names, session.run(names, {exported.INPUT: clip[None].numpy()}), strict=True):
            rows = value.reshape(-1, value.shape[-1])
            some = rows[:: max(1, len(rows) * len(clips) // ROWS)]
            new = Seen(min(0.0, float(rows.min())), max(0.0, float(rows.max())), some)
            found[name] = found[name] | new if name in found else new
    return found


def error(seen: Seen, weight: Floats) -> float:
    """The relative error of a product by bytes of its activations."""
    step, zero = (float(each) for each in seen.scale)
    rounded = ((seen.rows / step + zero).round().clip(0, 255) - zero) * step
    wanted = seen.rows @ weight
    return float(np.linalg.norm(rounded @ weight - wanted)) / max(float(np.linalg.norm(wanted)), 1e-12)


def static(model: Any, products: Sequence[Any], weights: Mapping[str, Floats], seen: Mapping[str, Seen]) -> None:
    """Put quantised activations and weights before the products; a runtime turns them into integer products."""
    onnx = library("onnx")
    make, constant = onnx.helper.make_node, onnx.numpy_helper.from_array
    before = dict[str, list[Any]]()  # nodes after the one that computes a tensor
    first, constants = list[Any](), list[Any]()
    for node in products:
        x, w = node.input
        if x not in before:
            one, zero = seen[x].scale
            constants += [constant(np.array(one), f"{x}_step"), constant(np.array(zero), f"{x}_zero")]
            scale = [f"{x}_step", f"{x}_zero"]
            before[x] = [
                make("QuantizeLinear", [x, *scale], [f"{x}_u8"], name=f"{x}_quantize"),
                make("DequantizeLinear", [f"{x}_u8", *scale], [f"{x}_back"], name=f"{x}_dequantize"),
            ]
        if not any(each.name == f"{w}_i8" for each in constants):
            step = np.maximum(np.abs(weights[w]).max(0) / 127, 1e-12).astype(np.float32)
            numbers = np.round(weights[w] / step).astype(np.int8)
            zeros = np.zeros(len(step), np.int8)
            constants += [constant(numbers, f"{w}_i8"), constant(step, f"{w}_step"), constant(zeros, f"{w}_zero")]
            parts = [f"{w}_i8", f"{w}_step", f"{w}_zero"]
            first.append(make("DequantizeLinear", parts, [f"{w}_back"], name=f"{w}_dequantize", axis=1))
        node.input[0], node.input[1] = f"{x}_back", f"{w}_back"
    nodes = [*first, *(each for node in model.graph.node for each in (node, *_after(node, before)))]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [each for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *constants])


def _after(node: Any, before: Mapping[str, Sequence[Any]]) -> Iterator[Any]:
    for name in node.output:
        yield from before.get(name, ())


def speed(ours: Program, theirs: Program, clips: Tensor) -> float:
    """The speed of our program relative to `theirs` on a batch: alternating, ratio of the medians."""
    times: tuple[list[float], list[float]] = [], []
    for repeat in range(REPEATS + 1):
        for which, program in enumerate((ours, theirs)):
            began = time.perf_counter()
            program(clips)
            if repeat:  # the first one warms up
                times[which].append(time.perf_counter() - began)
    return statistics.median(times[1]) / statistics.median(times[0])
