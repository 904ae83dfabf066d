"""Times the model against the plain one: AIM on CLIP's ViT as the public code computes it (tests/models/plain.py).

    python scripts/bench_model.py --out bench_model.json            # ViT-B/16, 8 frames of 224 pixels; --large: L/14

Both have the same weights and alternate on the same clips. Ratios are medians over the rounds of times within a round:
a busy machine slows all alike. A step is forward, backward and AdamW, the public code's and our fused one. In bf16 both
run under autocast, ours with its frozen matrices stored so; without instructions for bf16, only float32 is measured.
Bytes are those that a forward pass adds, whoever keeps them.
A forward pass is that of a test, of a video's views (on a CPU 3, like the paper's; --clips 1 for one), in a process of
its own, ours set up as in `aim.predict` and `aim.eval`. A process that has trained has memory at hand, which would hide
that the plain model gets it from the system again for each layer.
`peak_share` is the rate of our forward pass, by its number of products, over that of one large product.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the plain model belongs to the tests

from aim.engine.machine.hardware import autocast, suit  # noqa: E402
from aim.engine.run.results import device_name  # noqa: E402
from aim.engine.run.settings import Run  # noqa: E402
from aim.engine.run.step import kept_by  # noqa: E402
from aim.ground import config  # noqa: E402
from aim.models.classifier import VideoClassifier, build  # noqa: E402
from scripts.convert_official import to_official  # noqa: E402
from tests.models.plain import PlainAIM  # noqa: E402

CLASSES, FRAMES, SIZE = 400, 8, 224
SHAPES = {
    "clip_vit_b16": {"patch": 16, "dim": 768, "depth": 12, "heads": 12},
    "clip_vit_l14": {"patch": 14, "dim": 1024, "depth": 24, "heads": 16},
}
MEMORY = ("fast", "lean", "smallest")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
VIEWS = 3  # of a video in a test on Kinetics-400 (AIM, table 1)
MINUTES = 12  # after which no new round begins
Timed = tuple[float, int]  # seconds, and on a GPU the peak bytes


def ours(trunk: str) -> VideoClassifier:
    run = config.build(config.compose([f"backbone={trunk}", "adapter=aim"]), Run)
    backbone = replace(run.backbone, weights="random")
    model = build(backbone, run.adapter, num_classes=CLASSES, num_frames=FRAMES, size=SIZE, dropout=0.5)
    with torch.no_grad():  # adapters start at zero, which would hide their effect
        for name, parameter in model.named_parameters():
            if ".adapters." in name and name.endswith("weight"):
                nn.init.normal_(parameter, std=0.02)
    return model


def ours_in_bf16(trunk: str, model: VideoClassifier, device: torch.device) -> VideoClassifier:
    """The same weights, as `precision=bf16` has them."""
    stored = ours(trunk).to(device)
    stored.load_state_dict(model.state_dict())
    suit(stored, "bf16", device.type)
    return stored


def plain(trunk: str, weights: dict[str, Tensor]) -> PlainAIM:
    shape = SHAPES[trunk] | {"size": SIZE, "num_frames": FRAMES, "scale": 0.5, "drop_path": 0.2}
    model = PlainAIM(num_classes=CLASSES, dropout=0.5, **shape)
    model.load_state_dict(to_official("vit_clip", weights))
    return model


class Contest:
    """Both models on the same clips: the timed works, by name."""

    def __init__(self, trunk: str, clips: int, views: int, device: torch.device) -> None:
        self.device, self.views, self.precisions = device, views, precisions(device)
        self.video = torch.randn(clips, 3, FRAMES, SIZE, SIZE, device=device)
        self.labels = torch.arange(clips, device=device)
        self.tests = {
            (whose, p): Test(whose, p, trunk, views, device) for whose in ("plain", "ours") for p in self.precisions
        }
        a, b = (self.tests[whose, "fp32"].logits for whose in ("ours", "plain"))
        self.difference = ((a - b).abs().max() / b.abs().max()).item()  # the largest, over the largest logit
        model = ours(trunk).to(device)
        public = plain(trunk, model.state_dict()).to(device)
        stored = ours_in_bf16(trunk, model, device)
        self.models: dict[tuple[str, str], nn.Module] = {
            ("plain", "fp32"): public,
            ("plain", "bf16"): public,
            ("ours", "fp32"): model,
            ("ours", "bf16"): stored,
        }
        self.optimizers = {
            id(each): torch.optim.AdamW([p for p in each.parameters() if p.requires_grad], lr=1e-5, fused=fused)
            for each, fused in ((public, None), (model, True), (stored, True))
        }

    def chosen(self, whose: str, precision: str) -> nn.Module:
        """The plain model, or ours with a setting of train.memory."""
        if whose == "plain":
            return self.models["plain", precision]
        model = self.models["ours", precision]
        if whose in MEMORY:
            model.backbone.memory = whose
        return model

    def step(self, whose: str, precision: str) -> None:
        model = self.chosen(whose, precision).train()
        self.optimizers[id(model)].zero_grad()
        with autocast(self.device, precision):
            logits = model(self.video)
        F.cross_entropy(logits.float(), self.labels).backward()
        self.optimizers[id(model)].step()

    def kept(self, whose: str, precision: str) -> int:
        """Bytes kept for the backward pass."""
        model = self.chosen(whose, precision).train()
        with autocast(self.device, precision):
            return kept_by(lambda: model(self.video))

    def flops(self) -> int:
        """Of our forward pass."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.chosen("ours", "fp32").eval()(self.video)
        return counter.get_total_flops() // len(self.video) * self.views

    def end(self) -> None:
        for test in self.tests.values():
            test.end()

    def works(self) -> dict[str, Callable[[], Timed]]:
        """All timed works, in the order of a round."""
        found: dict[str, Callable[[], Timed]] = {}
        for precision, dtype in self.precisions.items():
            n = product_size(self.device)
            a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
            found[f"product {precision}"] = partial(timed, partial(torch.mm, a, b), self.device)
            for whose in ("plain", "ours"):
                found[f"forward {precision} {whose}"] = self.tests[whose, precision].forward
            for whose in ("plain", *MEMORY):
                found[f"step {precision} {whose}"] = partial(timed, partial(self.step, whose, precision), self.device)
        return found


class Test:
    """A model's forward pass in a process of its own, and the logits of the first one."""

    def __init__(self, *of_model: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, *of_model), daemon=True).start()
        theirs.close()  # so that its end is noticed
        self.logits: Tensor = torch.from_numpy(self.pipe.recv())

    def forward(self) -> Timed:
        self.pipe.send(True)
        found: Timed = self.pipe.recv()
        return found

    def end(self) -> None:
        self.pipe.send(False)


def serve(pipe: Connection, whose: str, precision: str, trunk: str, clips: int, device: torch.device) -> None:
    """Build the model of all the processes, and time a forward pass on request."""
    torch.manual_seed(0)
    video = torch.randn(clips, 3, FRAMES, SIZE, SIZE).to(device)
    model: nn.Module = ours(trunk)
    if whose == "plain":
        model = plain(trunk, model.state_dict())
    else:
        suit(model, precision, device.type)
    model.to(device).eval()
    with torch.no_grad(), autocast(device, precision):
        pipe.send(model(video).float().cpu().numpy())
        while pipe.recv():
            pipe.send(timed(partial(model, video), device))


def product_size(device: torch.device) -> int:
    """Of the one large product that measures this machine's rate."""
    return 8192 if device.type == "cuda" else 2048


def has_bf16(device: torch.device) -> bool:
    """Whether there are instructions for products in bf16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def precisions(device: torch.device) -> dict[str, torch.dtype]:
    """The measured precisions: without instructions for bf16 a step in it takes minutes, so float32 alone."""
    return PRECISIONS if has_bf16(device) else {"fp32": torch.float32}


def timed(work: Callable[[], Any], device: torch.device) -> Timed:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() if on_gpu else 0


def in_turns(
    works: dict[str, Callable[[], Timed]], rounds: int, until: float
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds a round of each work, and the peak bytes; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    peaks: dict[str, int] = {}
    for i in range(rounds + 1):
        if i > 1 and time.monotonic() > until:
            break
        for name, work in works.items():
            passed, peak = work()
            if peak:
                peaks[name] = peak
            if i:
                times[name].append(passed)
    return times, peaks


def summary(contest: Contest, times: dict[str, list[float]], peaks: dict[str, int]) -> dict[str, Any]:
    """The ratios, and their measurements."""
    device, clips = contest.device, len(contest.video)

    def ratio(name: str) -> float:
        what, precision, _ = name.split()
        return statistics.median(a / b for a, b in zip(times[f"{what} {precision} plain"], times[name], strict=True))

    def peak_share(precision: str) -> float:
        """The rate of our forward pass over that of one large product."""
        work = contest_flops / (2 * product_size(device) ** 3)
        pairs = zip(times[f"product {precision}"], times[f"forward {precision} ours"], strict=True)
        return statistics.median(work * product / forward for product, forward in pairs)

    contest_flops = contest.flops()
    p = "bf16" if "bf16" in contest.precisions else "fp32"
    kept = {f"{each} {whose}": contest.kept(whose, each) for each in contest.precisions for whose in ("plain", *MEMORY)}
    report: dict[str, Any] = {
        "forward_ratio": ratio("forward fp32 ours"),
        "step_ratio": ratio(f"step {p} fast"),
        "saved_bytes_ratio": kept[f"{p} fast"] / kept[f"{p} plain"],
        "lean_step_ratio": ratio(f"step {p} lean"),
        "lean_saved_bytes_ratio": kept[f"{p} lean"] / kept[f"{p} plain"],
        "smallest_step_ratio": ratio(f"step {p} smallest"),
        "smallest_saved_bytes_ratio": kept[f"{p} smallest"] / kept[f"{p} plain"],
        "peak_share": peak_share("fp32"),
        "largest_difference": contest.difference,
    }
    if p == "bf16":
        report["peak_share_bf16"] = peak_share(p)
    report = {name: float(f"{value:.3g}") for name, value in report.items()}
    against_plain = [name for name in times if name.split()[-1] in ("ours", *MEMORY)]
    return report | {
        "precision": p,
        "ratios": {name: round(ratio(name), 3) for name in against_plain},
        "median_seconds": {name: round(statistics.median(found), 4) for name, found in times.items()},
        "saved_mib_per_clip": {name: round(size / clips / 2**20, 1) for name, size in kept.items()},
        "peak_mib": {name: round(peak / 2**20) for name, peak in peaks.items()},
        "rounds": len(times["product fp32"]),
        "clips": clips,
        "views": contest.views,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "device": device_name(device),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the model against the public code's way, in one run.")
    parser.add_argument("--large", action="store_true", help="ViT-L/14")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, help="of a step (1 on a CPU, 8 on a GPU) and of a test (3, 8)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    args = parser.parse_args()
    until, device = time.monotonic() + 60 * MINUTES, torch.device(args.device)
    torch.manual_seed(0)
    trunk = "clip_vit_l14" if args.large else "clip_vit_b16"
    on_gpu = device.type == "cuda"
    if not has_bf16(device):
        print(f"{device_name(device)} has no instructions for bf16: float32 alone is measured")
    contest = Contest(trunk, args.clips or (8 if on_gpu else 1), args.clips or (8 if on_gpu else VIEWS), device)
    times, peaks = in_turns(contest.works(), args.rounds, until)
    report = {"trunk": trunk} | summary(contest, times, peaks)
    contest.end()
    show(report)
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def show(report: dict[str, Any]) -> None:
    """The table of a report, and the targets."""
    console = Console(highlight=False)
    console.print(
        f"{report['trunk']}, steps of {report['clips']} clips, tests of {report['views']}, "
        f"{report['device']}, load {report['load']}",
        soft_wrap=True,
    )
    table = Table("", "seconds", "times as fast", "MiB a clip kept")
    for name, passed in report["median_seconds"].items():
        kept = report["saved_mib_per_clip"].get(name.removeprefix("step "), "")
        table.add_row(name, f"{passed:.3f}", str(report["ratios"].get(name, "")), str(kept))
    console.print(table)
    for name, value in report.items():
        if isinstance(value, int | float | str):
            console.print(f"{name}: {value}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
