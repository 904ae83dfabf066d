"""int8 for the products of a frozen trunk in an ONNX file; adapters, norms, attention and the head stay float32.

With calibration clips activations have the ranges seen there, else each batch's own.
"""

import hashlib
import statistics
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from aim.engine.trained import exported
from aim.engine.trained.exported import Program, library, quiet
from aim.export.rounding import ROWS, Floats, Seen, in_bytes, relative
from aim.ground.errors import UserError
from aim.models.classifier import VideoClassifier

WORST = 0.04  # relative error of a product's result above which it stays float32
REPEATS = 9  # of a batch's time, the two files alternating
TOGETHER = 8  # clips of such a batch


def frozen_layers(model: VideoClassifier) -> list[str]:
    """The names of the trunk's layers that training left as they were."""
    trained = set(model.trainable)
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
        and f"{name}.weight" not in trained
        and not parametrize.is_parametrized(layer)
    ]


def matrices(model: VideoClassifier, layers: Sequence[str]) -> set[str]:
    """Hashes of layers' matrices, whole or by thirds (q, k and v), as an exported model has them."""
    weights = [model.get_parameter(f"{name}.weight").detach().float().flatten(1) for name in layers]
    return {hashed(part.numpy()) for weight in weights for n in (1, 3) for part in weight.chunk(n)}


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
    number = len(products)
    if clips and products:
        number = static(model, products, weights, calibrated(model, [node.input[0] for node in products], clips))
        onnx.save(model, out)
    if not number:
        raise UserError("quantize=int8: this model has no frozen product that fits int8; leave it out")
    if not clips:
        with quiet():
            tool = library("onnxruntime.quantization")
            names = [node.name for node in products]
            tool.quantize_dynamic(model, out, per_channel=True, nodes_to_quantize=names)
    return number


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
            some = rows[:: -(-len(rows) * len(clips) // ROWS)]
            new = Seen(rows.min(0).clip(max=0), rows.max(0).clip(min=0), some, value.shape[1:-1])
            found[name] = found[name] | new if name in found else new
    return found


@dataclass(frozen=True)
class Graph:
    """The nodes and constants of a model, as they are added."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def put(self, kind: str, inputs: Sequence[str], output: str, **options: Any) -> str:
        self.nodes.append(library("onnx").helper.make_node(kind, inputs, [output], name=output, **options))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(library("onnx").numpy_helper.from_array(np.asarray(value), name))
        return name

    def floats(self, name: str, value: NDArray[Any], step: Floats, **axis: int) -> str:
        """Integers and their steps, as floats."""
        zero = self.constant(f"{name}_zero", np.zeros(len(step), value.dtype))
        parts = [self.constant(f"{name}_integers", value), self.constant(f"{name}_step", step), zero]
        return self.put("DequantizeLinear", parts, f"{name}_floats", **axis)

    def activations(self, x: str, seen: Seen, divisor: Floats) -> str:
        """A tensor's rows in bytes, as floats: "... d" -> "n d"."""
        if (divisor != 1).any():
            x = self.put("Mul", [x, self.constant(f"{x}_factor", 1 / divisor)], f"{x}_divided")
        step, zero = seen.scale
        scale = [self.constant(f"{x}_step", step), self.constant(f"{x}_zero", zero)]
        rows = self.put("Reshape", [x, self.constant(f"{x}_rows_shape", [-1, len(divisor)])], f"{x}_rows")
        return self.put(
            "DequantizeLinear", [self.put("QuantizeLinear", [rows, *scale], f"{x}_bytes"), *scale], f"{x}_floats"
        )


def static(model: Any, products: Sequence[Any], weights: Mapping[str, Floats], seen: Mapping[str, Seen]) -> int:
    """Put integers and their steps in place of the products' factors, of which a runtime makes integer products.

    Return the number of products with a small error, the others stay.
    """
    users = dict[str, list[Any]]()
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    divisors = {x: each.divisor for x, each in seen.items()}
    even = {x: each / divisors[x] for x, each in seen.items()}
    graph, factors, done, number = Graph(), dict[str, str](), set[str](), 0
    ours = {node.name for node in products}
    for node in model.graph.node:
        if node.name in done:
            continue
        if node.name not in ours:
            graph.nodes.append(node)
            continue
        x, w = node.input
        weight = weights[w] * divisors[x][:, None]
        integers, steps = in_bytes(weight, even[x])
        if relative(even[x].rounded @ (integers * steps), even[x].rows @ weight) > WORST:
            graph.nodes.append(node)
            continue
        number += 1
        if x not in factors:
            factors[x] = graph.activations(x, even[x], divisors[x])
        parts = [factors[x], graph.floats(f"{node.name}_weight", integers, steps, axis=1)]
        (output,), after = node.output, users[node.output[0]]
        bias = [each for each in after[0].input if each in weights and weights[each].ndim == 1]
        if len(after) == len(bias) == 1 and after[0].op_type == "Add":
            done.add(after[0].name)
            output, step = after[0].output[0], even[x].scale[0] * steps
            integers = (weights[bias[0]] / step).round().astype(np.int32)
            parts.append(graph.floats(f"{node.name}_bias", integers, step, axis=0))
        shape = graph.constant(f"{node.name}_shape", [-1, *seen[x].shape, len(steps)])
        graph.put("Reshape", [graph.put("Gemm", parts, f"{node.name}_rows"), shape], output)
    del model.graph.node[:]
    model.graph.node.extend(graph.nodes)
    used = {name for node in graph.nodes for name in node.input}
    kept = [each for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *graph.constants])
    return number


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
