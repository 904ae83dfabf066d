"""The measurements of the day with a GPU (scripts/gpu_day.sh), a row each; a failed one is a row, too.

    python scripts/gpu_bench.py --out OUT --plan       # the plan of a step by fake tensors, on a CPU
    python scripts/gpu_bench.py --out OUT --seconds 155

Ceilings of this GPU; attention by backend and shape, with its error against float64; forms of products, and of a
batch's copy; training steps in clips/s, in share of the measured ceiling, and in memory beside the planned. --dry takes
tiny shapes on a CPU.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch._inductor.config
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the plain model belongs to the tests

from aim.engine.loop.optim import adamw  # noqa: E402
from aim.engine.loop.training import train_step  # noqa: E402
from aim.engine.machine import hardware  # noqa: E402
from aim.engine.machine.feeding import registered  # noqa: E402
from aim.engine.machine.hardware import FP8_SINCE, autocast  # noqa: E402
from aim.engine.run.settings import Run  # noqa: E402
from aim.engine.run.step import flops, make_batch, peak_bytes, pretended  # noqa: E402
from aim.ground import config  # noqa: E402
from aim.models import attention, gpu  # noqa: E402
from aim.models.classifier import VideoClassifier  # noqa: E402
from aim.models.compiling import lacking  # noqa: E402
from aim.models.memory import remembering  # noqa: E402
from aim.models.quick_gelu import QUICK  # noqa: E402
from aim.models.short_attention import short_attention  # noqa: E402

GIB = 2**30
CLASSES = 400
OURS, SUMS = "the model's", "sums, compiled"
KINDS = {
    "torch's choice": None, "cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}  # fmt: skip
# How a step runs: as it is; with torch's kernels in place of ours; without cuDNN's attention; compiled; compiled and
# replayed as CUDA graphs.
EAGER, THEIRS, NO_CUDNN = "eager", "eager, torch's kernels", "eager, no cuDNN attention"
COMPILED, GRAPHS = "compiled", "compiled, CUDA graphs"
# precision, train.memory, way, clips; in the order in which they are missed least. Compiling takes most of the time.
STEPS = [
    ("bf16", "fast", EAGER, 8), ("bf16", "fast", COMPILED, 8), ("bf16", "fast", THEIRS, 8),
    ("bf16", "fast", EAGER, 32), ("bf16", "fast", COMPILED, 32), ("bf16", "lean", EAGER, 32),
    ("bf16", "smallest", EAGER, 32), ("fp8", "fast", EAGER, 32), ("bf16", "fast", NO_CUDNN, 32),
    ("fp8", "fast", COMPILED, 32), ("bf16", "fast", COMPILED, 1), ("bf16", "fast", GRAPHS, 1),
    ("bf16", "lean", COMPILED, 32), ("bf16", "fast", GRAPHS, 2), ("bf16", "fast", COMPILED, 2),
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
        line = f"{what:58s}" + "  ".join(f"{key}={value}" for key, value in rounded.items())
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

    @property
    def held_gib(self) -> float:
        """GiB of tensors now."""
        return 0.0 if self.dry else torch.cuda.memory_allocated() / GIB

    def peak_gib(self, work: Callable[[], Any]) -> float:
        """The same at the largest moment."""
        if self.dry:
            return 0.0
        torch.cuda.reset_peak_memory_stats()
        work()
        self.synchronize()
        return torch.cuda.max_memory_allocated() / GIB

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=torch.bfloat16, requires_grad=True)


def ceilings(bench: Bench) -> None:
    n, size = (256, 2**20) if bench.dry else (8192, 2**30)
    a, b = (torch.randn(n, n, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    bench.tflops = 2 * n**3 / bench.ms(lambda: a @ b) / 1e9
    source = torch.empty(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    bench.row("ceilings", bf16_tflops=bench.tflops, copy_tb_s=2 * size / bench.ms(lambda: target.copy_(source)) / 1e9)
    found = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    found["lacking"] = lacking()  # of what Triton needs
    if not bench.dry:
        about = torch.cuda.get_device_properties(bench.device)
        found |= {"gpu": about.name, "sm": f"{about.major}.{about.minor}", "gib": round(about.total_memory / GIB, 1)}
    bench.row("machine", **found)


def attentions(bench: Bench) -> None:
    """A ViT-B/16's attention by each backend and as the model computes it, read where the model's products leave it."""
    clips, tokens, heads = (2, 5, 2) if bench.dry else (8, 197, 12)
    shape = clips * 8, tokens, heads * 64
    for frames in (8, 16):
        name, apart = f"time, {frames} frames", [bench.noise(*shape) for _ in range(3)]
        q, k, v = (rearrange(x, "(b t) n (h e) -> b (n h) t e", t=frames, h=heads) for x in apart)
        ways = by_backend(q, k, v)
        if not bench.dry:
            ways[SUMS] = partial(torch.compile(by_sums, dynamic=False), q, k, v)
        attended(bench, name, apart, (q, k, v), ways)
        whole = bench.noise(*shape[:2], 3 * shape[2])
        qkv = rearrange(whole, "(b t) n (three h e) -> b t n three h e", t=frames, three=3, h=heads)
        q, k, v = (rearrange(x, "b t n h e -> b (n h) t e") for x in qkv.unbind(3))
        attended(bench, name, [whole], (q, k, v), {OURS: partial(of_frames, qkv)})
    module = SimpleNamespace(training=False, fused_attn=True, attn_drop=SimpleNamespace(p=0.0))
    for name, queries in (("space", tokens), ("class token", 1)):
        leaves = [bench.noise(shape[0], n, shape[2]) for n in (queries, tokens, tokens)]
        q, k, v = (rearrange(x, "bt n (h e) -> bt h n e", h=heads) for x in leaves)
        ways = by_backend(q, k, v) | {OURS: partial(attention.attend, module, q, k, v)}
        attended(bench, name, leaves, (q, k, v), ways)


def by_backend(q: Tensor, k: Tensor, v: Tensor) -> dict[str, Callable[[], Tensor]]:
    return {way: partial(of_torch, way, q, k, v) for way in KINDS}


def of_torch(way: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    backend = KINDS[way]
    with nullcontext() if backend is None else sdpa_kernel([backend]):
        return F.scaled_dot_product_attention(q, k, v)


def of_frames(qkv: Tensor) -> Tensor:
    """By our kernel: "b t n 3 h e" -> "b (n h) t e"."""
    y: Tensor = rearrange(short_attention(qkv), "b t n h e -> b (n h) t e")
    return y


def by_sums(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Without products, for a compiler to join: "b g t e" three times -> the same."""
    scores = (q.unsqueeze(3) * k.unsqueeze(2)).float().sum(-1) * q.shape[-1] ** -0.5
    return (scores.softmax(-1).to(v.dtype).unsqueeze(-1) * v.unsqueeze(2)).sum(3)


def attended(
    bench: Bench, name: str, leaves: list[Tensor], qkv: tuple[Tensor, ...], ways: dict[str, Callable[[], Tensor]]
) -> None:
    """Times of attention there and back, the memory it takes, and its error over the norm of float64's result."""
    exact = F.scaled_dot_product_attention(*(x[:2].detach().double() for x in qkv))
    for way, forward in ways.items():
        what = f"attention over {name}, {way}"
        with bench.guarded(what, needs=20.0 if way == SUMS else 3.0) as there_is_time:
            if there_is_time:
                bench.row(what, **there_and_back(bench, forward, leaves, exact))


def there_and_back(
    bench: Bench, forward: Callable[[], Tensor], leaves: list[Tensor], exact: Tensor
) -> dict[str, float]:
    y = forward().detach()
    far, gradient = (y[:2].double() - exact).norm() / exact.norm(), torch.randn_like(y)
    with torch.no_grad():
        there = bench.ms(forward)

    def work() -> None:
        torch.autograd.grad(forward(), leaves, gradient)

    both, before = bench.ms(work), bench.held_gib
    return {
        "forward_ms": there, "backward_ms": both - there, "gib": bench.peak_gib(work) - before, "error": far.item()
    }  # fmt: skip


def far_below_zero(bench: Bench) -> None:
    """How many gradients are no numbers where logits are -128: cuDNN's frontend has an issue of that (1072)."""
    for queries, keys in ((1, 128), (1, 197), (1, 256), (1, 257), (8, 8), (197, 197)):
        for way in ("torch's choice", "cudnn"):
            what = f"gradients of logits of -128, {queries} x {keys}, {way}"
            with bench.guarded(what) as there_is_time:
                if there_is_time:
                    q, k, v = (bench.noise(16, 12, n, 64).detach() / 10 for n in (queries, keys, keys))
                    q[..., 0], k[..., 0] = 8.0, -128.0
                    leaves = [x.requires_grad_() for x in (q, k, v)]
                    found = torch.autograd.grad(of_torch(way, *leaves).float().square().sum(), leaves)
                    bench.row(what, not_finite=sum(int((~gradient.isfinite()).sum()) for gradient in found))


def products(bench: Bench) -> None:
    """Forms of the products around QuickGELU, and of those for q, k and v, for 8 clips."""
    m, d = (64, 64) if bench.dry else (64 * 197, 768)
    x, w, b, qkv, bias = (bench.noise(*n).detach() for n in ((m, d), (4 * d, d), (4 * d,), (3 * d, d), (3 * d,)))
    thirds = [*zip(qkv.chunk(3), bias.chunk(3), strict=True)]
    for what, work in {
        "fc1, with a bias": lambda: F.linear(x, w, b),
        "fc1, a factor for all, as on a CPU": lambda: torch.addmm(b, x, w.T, beta=QUICK, alpha=QUICK),
        "fc1, a factor for the product": lambda: torch.addmm(b, x, w.T, alpha=QUICK),
        "q, k, v by one product": lambda: F.linear(x, qkv, bias),
        "q, k, v by three products": lambda: [F.linear(x, *third) for third in thirds],
    }.items():
        with bench.guarded(what) as there_is_time:
            if there_is_time:
                bench.row(what, ms=bench.ms(work))


def copies(bench: Bench) -> None:
    """What the process does for a batch of 8 clips on its way to the GPU, in registered memory and in other."""
    block = torch.empty(8, 1, 8, 3, 224, 224, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
    for what, blocks in (("a batch from the loader, copied to pinned memory", []), ("a batch, registered", [block])):
        with bench.guarded(what):
            release = registered(blocks)
            began = time.perf_counter()
            for _ in range(20):
                (block if block.is_pinned() else block.pin_memory()).to(bench.device, non_blocking=True)
            seconds = time.perf_counter() - began
            bench.synchronize()
            bench.row(what, ms=1000 * seconds / 20, pinned=block.is_pinned())
            release()


def kernels(bench: Bench) -> None:
    """How many kernels an eager step of 8 clips starts; the longest ones lie in kernels.txt."""
    _, work = stepping(bench, settings("bf16", "fast", compiled=False, device=bench.device.type, dry=bench.dry), 8)
    for _ in range(2):
        work()
    bench.synchronize()
    with profile(activities=[ProfilerActivity.CPU, *([] if bench.dry else [ProfilerActivity.CUDA])]) as profiler:
        work()
        bench.synchronize()
    found = [each for each in profiler.events() or [] if each.device_type != DeviceType.CPU]  # type: ignore[no-untyped-call]
    longest = profiler.key_averages().table(sort_by="self_cuda_time_total", row_limit=25, max_name_column_width=90)
    (bench.out / "kernels.txt").write_text(longest)
    ms = sum(each.self_device_time_total for each in found) / 1000
    bench.row("kernels of an eager step, 8 clips", kernels=len(found), ms=ms)


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
    if way == THEIRS:  # as on a GPU that doesn't run ours
        gpu.kernels = hardware.kernels = lambda: None  # type: ignore[assignment]
    torch.backends.cuda.enable_cudnn_sdp(way != NO_CUDNN)
    try:
        with torch._inductor.config.patch("triton.cudagraphs", way == GRAPHS):
            yield
    finally:
        gpu.kernels = hardware.kernels = found
        torch.backends.cuda.enable_cudnn_sdp(True)


def stepping(bench: Bench, run: Run, clips: int) -> tuple[VideoClassifier, Callable[[], None]]:
    """A run's model, and a step of its training."""
    model = run.model(CLASSES).to(bench.device).train()
    optimizer, batch = adamw(model, run.optim), make_batch(model, clips, bench.device)

    def work() -> None:
        train_step(
            model, optimizer, [batch], run.train, run.precision, bench.device, task=run.task, stop=False
        )  # fmt: skip

    return model, work


def step(bench: Bench, name: str, precision: str, memory: str, clips: int, *, compiled: bool) -> None:
    """Clips/s of a training step, its share of the ceiling, and its memory beside the plan's."""
    before = bench.held_gib
    run = settings(precision, memory, compiled=compiled, device=bench.device.type, dry=bench.dry)
    model, work = stepping(bench, run, clips)
    began = time.perf_counter()
    for _ in range(2):  # the optimizer's moments are there after the first
        work()
    bench.synchronize()
    first = time.perf_counter() - began
    began = time.perf_counter()
    work()
    launched = time.perf_counter() - began
    peak = bench.peak_gib(work) - before
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
            for measure in (attentions, far_below_zero, products, copies, kernels):
                with bench.guarded(measure.__name__) as there_is_time:
                    if there_is_time:
                        measure(bench)
            for clips in (8, 32):
                with bench.guarded(f"step, bf16, the plain model, {clips} clips") as there_is_time:
                    if there_is_time:
                        plain_step(bench, clips)
    if bench.dry:
        for measure in (attentions, far_below_zero, products, kernels):
            measure(bench)


if __name__ == "__main__":
    main()
