"""Compiled blocks give the uncompiled results, share compilations, and fall back where compiling fails."""

import logging
from dataclasses import replace

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch._functorch.aot_autograd import make_boxed_func

from aim.engine.machine.hardware import suit
from aim.models import compiling
from aim.models.classifier import build
from aim.models.compiling import compile_blocks, is_compiled, lacking
from aim.models.flops import gmacs_per_view
from tests.messages import named
from tests.models.checks import saved_bytes, video
from tests.models.test_memory import computed, far, toy
from tests.models.toys import FRAMES, SIZE, adapter
from tests.models.toys import toy as backbone


@pytest.fixture(autouse=True)
def fresh():
    """Compile again, and leave torch's compiler as it was."""
    torch.compiler.reset()
    with (
        torch._dynamo.config.patch(recompile_limit=8, optimize_ddp=True),
        torch._functorch.config.patch(force_non_lazy_backward_lowering=False),
        torch._inductor.config.patch(compile_threads=1),
    ):
        yield
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("trunk", "memory"),
    [
        ("clip_vit_b16", "fast"),
        pytest.param("clip_vit_b16", "lean", marks=pytest.mark.slow),
        pytest.param("clip_vit_b16", "smallest", marks=pytest.mark.slow),
        pytest.param("swin_b", "fast", marks=pytest.mark.slow),
        pytest.param("dinov3_vit_b16", "fast", marks=pytest.mark.slow),
    ],
)
def test_compiled_blocks_equal_plain_ones(trunk, memory, caplog):
    model = toy(trunk, memory=memory)
    plain = computed(model, video())
    compile_blocks(model, "aot_eager")
    assert far(computed(model, video()), plain) < 1e-5
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("precision", ["bf16", *(pytest.param(p, marks=pytest.mark.slow) for p in ("fp32", "fp8"))])
def test_the_way_of_a_gpu_is_one_graph_a_block(precision):
    """With our attention as one node; the rest is plain, for the compiler to join."""
    model = toy("clip_vit_b16")
    suit(model, precision, "cuda")
    nodes = []

    def noted(graph, inputs):
        nodes.extend(node.name for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph)

    with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
        plain = computed(model, video())
        compile_blocks(model, aot_autograd(fw_compiler=noted))
        assert far(computed(model, video()), plain) < {"fp32": 1e-5, "bf16": 0.01, "fp8": 0.02}[precision]
    assert any(name.startswith("short_attention_backward") for name in nodes)
    assert not any(name.startswith(("norm", "quick_gelu", "rows")) for name in nodes)


def test_a_compiled_model_is_counted_as_any_other(capsys):
    model = toy("clip_vit_b16")
    counted = gmacs_per_view(model), saved_bytes(model)
    assert not is_compiled(model)
    compile_blocks(model, "aot_eager")
    assert is_compiled(model)
    assert (gmacs_per_view(model), saved_bytes(model)) == counted
    assert not capsys.readouterr().err


@pytest.mark.slow
def test_blocks_of_a_shape_share_a_compilation_whatever_their_rates():
    deep = backbone("clip_vit_b16")
    deep = replace(deep, options=dict(deep.options) | {"depth": 6})
    model = build(deep, adapter(drop_path=0.5), num_classes=5, num_frames=FRAMES, size=SIZE, dropout=0.0).train()
    counter = CompileCounterWithBackend("aot_eager")
    compile_blocks(model, counter)
    for _ in range(2):
        model(video()).sum().backward()
    assert counter.frame_count == 3  # the first drops no paths, the last computes only the class token


def test_the_compiler_is_set_once_and_not_around_every_call(monkeypatch):
    """A context for each of its settings takes a tenth of a millisecond: a third of a step of one or two clips."""
    model = toy("clip_vit_b16")
    compile_blocks(model, "aot_eager")
    model(video())
    entered = []
    for config in (torch._dynamo.config, torch._functorch.config):
        monkeypatch.setattr(type(config), "patch", lambda *_, **given: entered.append(given))
    model(video())
    assert not entered
    assert not torch._dynamo.config.optimize_ddp


@pytest.mark.parametrize(("ranks", "threads"), [("1", 32), ("8", 4), ("64", 1)])
def test_ranks_share_the_processes_that_compile(monkeypatch, ranks, threads):
    monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    monkeypatch.setattr(torch._utils, "cpu_count", lambda: 64)
    for _ in range(2):
        compile_blocks(toy("clip_vit_b16"), "aot_eager")
        assert torch._inductor.config.compile_threads == threads


def test_what_triton_lacks_has_a_name(monkeypatch, tmp_path):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lacking() == "C compiler"
    (tmp_path / "gcc").touch(mode=0o755)
    monkeypatch.setattr(compiling.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    assert lacking() == str(tmp_path / "Python.h")
    (tmp_path / "Python.h").touch()
    assert lacking() == ""


def test_a_compiler_that_fails_is_one_line_and_nothing_else(capsys):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler\nand much more")

    model = toy("clip_vit_b16")
    plain = computed(model, video())
    compile_blocks(model, broken)
    for _ in range(2):
        assert far(computed(model, video()), plain) == 0
    (line,) = capsys.readouterr().err.splitlines()
    named(line, "warning:", "train.compile", "C++")
