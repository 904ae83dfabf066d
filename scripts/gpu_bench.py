"""The measurements of the day with a GPU (scripts/gpu_day.sh), a row each; a failed one is a row, too.

    python scripts/gpu_bench.py --out OUT --plan       # the plan of a step by fake tensors, on a CPU
    python scripts/gpu_bench.py --out OUT --seconds 155

Ceilings of this GPU; attention by backend and shape, with its error against float64; training steps in clips/s, in
share of the measured ceiling, and in memory beside the planned. --dry takes tiny shapes on a CPU.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch._inductor.config
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the plain model belongs to the tests

from aim.engine.loop.optim import adamw  # noqa: E402
from aim.engine.loop.training import train_step  # noqa: E402
from aim.engine.machine.hardware import FP8_SINCE, autocast  # noqa: E402
from aim.engine.run.settings import Run  # noqa: E402
from aim.engine.run.step import flops, make_batch, peak_bytes, pretended  # noqa: E402
from aim.ground import config  # noqa: E402
from aim.models import attention, gpu  # noqa: E402
from aim.models.memory import remembering  # noqa: E402

GIB = 2**30
CLASSES = 400
OURS = "the model's"
KINDS = {
    "torch's choice": None, "cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}  # fmt: skip
# How a step runs: as it is; with torch's kernels in place of ours; compiled; compiled and replayed as CUDA graphs.
EAGER, THEIRS, COMPILED, GRAPHS = "eager", "eager, torch's kernels", "compiled", "compiled, CUDA graphs"
# precision, train.memory, way, clips; the least important last
STEPS = [
    ("bf16", "fast", EAGER, 8), ("bf16", "fast", COMPILED, 8), ("bf16", "fast", THEIRS, 8),
    ("bf16", "fast", COMPILED, 32), ("bf16", "fast", EAGER, 32), ("fp8", "fast", COMPILED, 32),
    ("bf16", "lean", COMPILED, 32), ("bf16", "lean", EAGER, 32), ("fp8", "fast", EAGER, 32),
    ("bf16", "smallest", EAGER, 32), ("bf16", "fast", COMPILED, 1), ("bf16", "fast", GRAPHS, 1),
    ("bf16", "fast", GRAPHS, 2), ("bf16", "fast", COMPILED, 2),
]  # fmt: skip


class Bench:
    """The rows so far, in a file, until the time is up."""

    def __init__(self, out: Path, seconds: float, *, dry: bool) -> None:
        self.out, self.dry, self.ends = out, dry, time.monotonic() + seconds
        self.device = torch.device("cpu") if dry else torch.device("cuda")
        self.rows: list[dict[str, Any]] = []
        self.tflops = 0.0  # of a large product in bf16

    def planned(self, precision: str, memory: str, clips: int) -> dict[str, int]:
        """The plan of a step, if it's written by now."""
        plan = self.out / "plan.json"
        found = json.loads(plan.read_text()) if plan.exists() else {}
        of_clips: dict[str, int] = found.get(f"{precision} {memory}", {}).get(str(clips), {})
        return of_clips

    def row(self, what: str, **numbers: Any) -> None:
        rounded = {key: float(f"{n:.4g}") if isinstance(n, float) else n for key, n in numbers.items()}
        self.rows.append({"what": what, **rounded})
        (self.out / "bench.json").write_text(json.dumps(self.rows, indent=1))
        line = f"{what:48s}" + "  ".join(f"{key}={value}" for key, value in rounded.items())
        print(line, flush=True)
        with (self.out / "bench.txt").open("a") as file:
            file.write(f"{line}\n")

    @contextmanager
    def guarded(self, what: str, needs: float = 3.0) -> Iterator[bool]:
        """Whether there is time for it; an error inside is a row."""
        there_is_time = time.monotonic() + needs < self.ends
        try:
            yield there_is_time
        except Exception as error:
            reason = next(iter(str(error).splitlines()), "")
            self.row(what, error=f"{type(error).__name__}: {reason[:100]}")
        if not there_is_time:
            self.row(what, error="no time is left")
        gc.collect()
        if not self.dry:
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        if not self.dry:
            torch.cuda.synchronize()

    def ms(self, work: Callable[[], Any], times: int = 10) -> float:
        """Median milliseconds, on a GPU by its own clock."""
        for _ in range(3):
            work()
        self.synchronize()
        if self.dry:
            began = time.perf_counter()
            work()
            return 1000 * (time.perf_counter() - began)
        pairs = []
        for _ in range(times):
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            pair[0].record()
            work()
            pair[1].record()
            pairs.append(pair)
        self.synchronize()
        return statistics.median(start.elapsed_time(end) for start, end in pairs)

    def peak_gib(self, work: Callable[[], Any]) -> float:
        """GiB of tensors at the largest moment."""
        if self.dry:
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        work()
        self.synchronize()
        return torch.cuda.max_memory_allocated() / GIB


def ceilings(bench: Bench) -> None:
    n, size = (256, 2**20) if bench.dry else (8192, 2**30)
    a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    bench.tflops = 2 * n**3 / bench.ms(lambda: a @ b) / 1e9
    source = torch.empty(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    bench.row("ceilings", bf16_tflops=bench.tflops, copy_tb_s=2 * size / bench.ms(lambda: target.copy_(source)) / 1e9)
    found = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if not bench.dry:
        about = torch.cuda.get_device_properties(bench.device)
        found |= {"gpu": about.name, "sm": f"{about.major}.{about.minor}", "gib": round(about.total_memory / GIB, 1)}
    bench.row("machine", **found)


def attentions(bench: Bench) -> None:
    """Each shape of a ViT-B/16's attention by each backend, and as the model calls it."""
    clips, tokens, heads = (1, 5, 2) if bench.dry else (8, 197, 12)
    shapes = {  # batch, heads, queries, keys
        "time, 8 frames": (clips, tokens * heads, 8, 8),
        "time, 16 frames": (clips, tokens * heads, 16, 16),
        "space": (clips * 8, heads, tokens, tokens),
        "class token": (clips * 8, heads, 1, tokens),
    }
    for name, (b, h, queries, keys) in shapes.items():
        given = [
            torch.randn(b, h, n, 64, device=bench.device, dtype=torch.bfloat16, requires_grad=True)
            for n in (queries, keys, keys)
        ]
        for way in (*KINDS, OURS):
            with bench.guarded(f"attention over {name}, {way}") as there_is_time:
                if there_is_time:
                    bench.row(f"attention over {name}, {way}", **attended(bench, way, given))


def attended(bench: Bench, way: str, given: list[Tensor]) -> dict[str, float]:
    """Times of q, k and v there and back, and the error over the norm of float64's result."""
    module = SimpleNamespace(training=False, fused_attn=True, attn_drop=SimpleNamespace(p=0.0))

    def forward(given: list[Tensor]) -> Tensor:
        if way == OURS:
            return attention.attend(module, *given)
        backend = KINDS[way]
        with nullcontext() if backend is None else sdpa_kernel([backend]):
            return F.scaled_dot_product_attention(*given)

    some = [x[:2].detach().double() for x in given]
    exact = F.scaled_dot_product_attention(*some)
    far = (forward(given)[:2].double() - exact).norm() / exact.norm()
    gradient = torch.randn_like(given[0])
    there = bench.ms(lambda: forward([x.detach() for x in given]))
    both = bench.ms(lambda: torch.autograd.grad(forward(given), given, gradient))
    return {"forward_ms": there, "backward_ms": both - there, "error": far.item()}


def settings(precision: str, memory: str, *, compiled: bool, device: str, dry: bool) -> Run:
    """AIM on a CLIP ViT-B/16, 8 frames of 224 pixels, 400 classes; or a toy."""
    more = [f"precision={precision}", f"train.memory={memory}", f"train.compile={str(compiled).lower()}"]
    if dry:
        from tests.toy import TOY

        toy = [word for word in TOY if not word.startswith("precision")]
        return config.build(config.compose([*toy, f"device={device}", *more]), Run)
    return config.build(config.compose(["+experiment=k400", "backbone.weights=random", f"device={device}", *more]), Run)


@contextmanager
def taking(way: str) -> Iterator[None]:
    """Kernels and the compiler as this way has them."""
    torch.compiler.reset()
    found = gpu.kernels
    if way == THEIRS:  # like `aim.models.gpu.operation` then
        gpu.kernels = lambda: None  # type: ignore[assignment]
    try:
        with torch._inductor.config.patch("triton.cudagraphs", way == GRAPHS):
            yield
    finally:
        gpu.kernels = found


def step(bench: Bench, name: str, precision: str, memory: str, clips: int, *, compiled: bool) -> None:
    """Clips/s of a training step, its share of the ceiling, and its memory beside the plan's."""
    before = 0 if bench.dry else torch.cuda.memory_allocated()
    run = settings(precision, memory, compiled=compiled, device=bench.device.type, dry=bench.dry)
    model = run.model(CLASSES).to(bench.device).train()
    optimizer = adamw(model, run.optim)
    batch = make_batch(model, clips, bench.device)

    def work() -> None:
        train_step(
            model, optimizer, [batch], run.train, run.precision, bench.device, task=run.task, stop=False
        )  # fmt: skip

    began = time.perf_counter()
    for _ in range(2):  # the optimizer's moments are there after the first
        work()
    bench.synchronize()
    first = time.perf_counter() - began
    began = time.perf_counter()
    work()
    launched = time.perf_counter() - began
    peak = bench.peak_gib(work) - before / GIB
    ms = bench.ms(work, times=8)
    if compiled and model.backbone.run.run is remembering:
        raise RuntimeError("the compiler refused the blocks")
    of_plan = {}
    if planned := bench.planned(precision, memory, clips):
        rate = planned["flops"] / ms / 1e9
        of_plan = {"tflops": rate, "of_ceiling": rate / bench.tflops, "planned_gib": planned["peak_bytes"] / GIB}
    bench.row(name, clips_s=1000 * clips / ms, ms=ms, launch_ms=1000 * launched, first_s=first, gib=peak, **of_plan)


def plain_step(bench: Bench, clips: int) -> None:
    """The same of the public code's way (tests/models/plain.py)."""
    from scripts.bench_model import ours, plain

    model = plain("clip_vit_b16", ours("clip_vit_b16").state_dict()).to(bench.device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    video, labels = torch.randn(clips, 3, 8, 224, 224, device=bench.device), torch.arange(clips, device=bench.device)

    def work() -> None:
        optimizer.zero_grad()
        with autocast(bench.device, "bf16"):
            logits = model(video)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()

    ms = bench.ms(work, times=8)
    bench.row(f"step, bf16, the plain model, {clips} clips", clips_s=1000 * clips / ms, ms=ms, gib=bench.peak_gib(work))


def write_plan(out: Path, *, dry: bool) -> None:
    """Operations and bytes of the steps, counted on fake tensors, without a GPU."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for precision, memory in dict.fromkeys((precision, memory) for precision, memory, *_ in STEPS):
        run = settings(precision, memory, compiled=False, device="cpu" if dry else "cuda", dry=dry)
        with pretended(run, CLASSES) as model:
            peaks = {clips: peak_bytes(run, model, clips) for clips in (1, 2, 8, 32)}
            each = flops(run, model, 2) // 2
        found[f"{precision} {memory}"] = {
            str(clips): {"flops": clips * each, "peak_bytes": peak} for clips, peak in peaks.items()
        }
        whole = out / "plan.json.part"
        whole.write_text(json.dumps(found))
        whole.replace(out / "plan.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=155)
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--dry", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.plan:
        write_plan(args.out, dry=args.dry)
        return
    bench = Bench(args.out, args.seconds, dry=args.dry)
    with bench.guarded("ceilings"):
        ceilings(bench)
    fp8 = args.dry or torch.cuda.get_device_capability() >= FP8_SINCE
    for precision, memory, way, clips in STEPS:
        compiled = way in (COMPILED, GRAPHS)
        if (precision == "fp8" and not fp8) or (bench.dry and compiled):
            continue
        name = f"step, {precision}, {memory}, {way}, {clips} clips"
        with bench.guarded(name, needs=25.0 if compiled else 6.0) as there_is_time, taking(way):
            if there_is_time:
                step(bench, name, precision, memory, min(clips, 2) if bench.dry else clips, compiled=compiled)
        if (precision, memory, way, clips) == STEPS[1] and not bench.dry:
            with bench.guarded("attention"):
                attentions(bench)
            with bench.guarded("step, bf16, the plain model, 8 clips") as there_is_time:
                if there_is_time:
                    plain_step(bench, 8)
    if bench.dry:
        attentions(bench)


if __name__ == "__main__":
    main()
