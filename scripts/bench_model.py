"""Times the model against the plain one: AIM on CLIP's ViT as the public code computes it (tests/models/plain.py).

    python scripts/bench_model.py --out bench_model.json            # ViT-B/16, 8 frames of 224 pixels; --large: L/14

Both have the same weights and take turns on the same clips; ratios are medians over the rounds of times within a round,
so that a busy machine slows all alike. A step is forward, backward and AdamW. In bf16 both run under autocast, ours
with its frozen matrices stored so. Bytes are what is there after a forward pass and wasn't before, whoever keeps it.
`peak_share` is the rate of our forward pass, counted by the products that it does, over that of one large product.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the plain model belongs to the tests

from aim.measuring.step import kept_by  # noqa: E402
from aim.models.attention import attend_by_products  # noqa: E402
from aim.models.classifier import VideoClassifier, build  # noqa: E402
from aim.models.memory import store_frozen  # noqa: E402
from aim.weights.official import to_official  # noqa: E402
from tests.models.plain import PlainAIM  # noqa: E402

CLASSES, FRAMES, SIZE = 400, 8, 224
SHAPES = {
    "clip_vit_b16": {"patch": 16, "dim": 768, "depth": 12, "heads": 12},
    "clip_vit_l14": {"patch": 14, "dim": 1024, "depth": 24, "heads": 16},
}
MEMORY = ("fast", "lean", "smallest")
MINUTES = 12  # after which no new round begins


def ours(trunk: str) -> VideoClassifier:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = compose(overrides=[f"+backbone={trunk}", "+adapter=aim"])
    backbone = replace(instantiate(cfg.backbone), weights="random")
    model = build(backbone, instantiate(cfg.adapter), num_classes=CLASSES, num_frames=FRAMES, size=SIZE, dropout=0.5)
    with torch.no_grad():  # adapters start at zero, which would hide what they do
        for name, parameter in model.named_parameters():
            if ".adapters." in name and name.endswith("weight"):
                nn.init.normal_(parameter, std=0.02)
    return model


def plain(trunk: str, weights: dict[str, Tensor]) -> PlainAIM:
    shape = SHAPES[trunk] | {"size": SIZE, "num_frames": FRAMES, "scale": 0.5, "drop_path": 0.2}
    model = PlainAIM(num_classes=CLASSES, dropout=0.5, **shape)
    model.load_state_dict(to_official("vit_clip", weights))
    return model


def product(dtype: torch.dtype, device: torch.device) -> Callable[[], Tensor]:
    """One large product, for the rate of this machine."""
    n = product_size(device)
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return lambda: torch.mm(a, b)


def product_size(device: torch.device) -> int:
    return 8192 if device.type == "cuda" else 2048


def has_bf16(device: torch.device) -> bool:
    """Whether there are instructions for products in bf16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def differences(model: nn.Module, other: nn.Module, video: Tensor) -> float:
    """The largest difference of two models' logits, over the largest logit."""
    with torch.no_grad():
        a, b = (each.eval()(video) for each in (model, other))
    return ((a - b).abs().max() / b.abs().max()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description="Times the model against the public code's way, in one run.")
    parser.add_argument("--large", action="store_true", help="ViT-L/14")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clips", type=int, help="a step's clips; 1 on a CPU, 8 on a GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    args = parser.parse_args()
    began, device = time.monotonic(), torch.device(args.device)
    clips = args.clips or (8 if device.type == "cuda" else 1)
    torch.manual_seed(0)
    trunk = "clip_vit_l14" if args.large else "clip_vit_b16"
    video = torch.randn(clips, 3, FRAMES, SIZE, SIZE, device=device)
    labels = torch.arange(clips, device=device)
    step_precision = "bf16" if has_bf16(device) else "fp32"

    model = ours(trunk).to(device)
    public = plain(trunk, model.state_dict()).to(device)
    difference = differences(model, public, video)
    stored = ours(trunk).to(device)
    stored.load_state_dict(model.state_dict())
    store_frozen(stored, torch.bfloat16)
    if device.type == "cpu":
        attend_by_products(stored)
    models: dict[tuple[str, str], nn.Module] = {
        ("plain", "fp32"): public,
        ("plain", "bf16"): public,
        ("ours", "fp32"): model,
        ("ours", "bf16"): stored,
    }
    optimizers = {
        id(each): torch.optim.AdamW(
            [p for p in each.parameters() if p.requires_grad], lr=1e-5, fused=None if each is public else True
        )
        for each in (public, model, stored)
    }

    def autocast(precision: str) -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")

    def forward(whose: str, precision: str) -> None:
        with torch.no_grad(), autocast(precision):
            models[whose, precision].eval()(video)

    def step(whose: str, precision: str, memory: str) -> None:
        this = models[whose, precision].train()
        if isinstance(this, VideoClassifier):
            this.backbone.memory = memory
        optimizers[id(this)].zero_grad()
        with autocast(precision):
            logits = this(video)
        F.cross_entropy(logits.float(), labels).backward()
        optimizers[id(this)].step()

    def kept(whose: str, precision: str, memory: str) -> int:
        this = models[whose, precision].train()
        if isinstance(this, VideoClassifier):
            this.backbone.memory = memory
        with autocast(precision):
            return kept_by(lambda: this(video))

    def seconds(work: Callable[[], Any]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    works: dict[str, Callable[[], Any]] = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        works[f"product {precision}"] = product(dtype, device)
        for whose in ("plain", "ours"):
            works[f"forward {precision} {whose}"] = lambda w=whose, p=precision: forward(w, p)
        works[f"step {precision} plain"] = lambda p=precision: step("plain", p, "")
        for memory in MEMORY:
            works[f"step {precision} {memory}"] = lambda p=precision, m=memory: step("ours", p, m)
    times: dict[str, list[float]] = {name: [] for name in works}
    peaks: dict[str, int] = {}
    for i in range(args.rounds + 1):  # the first warms up
        if i > 1 and time.monotonic() - began > 60 * MINUTES:
            break
        for name, work in works.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            passed = seconds(work)
            if i:
                times[name].append(passed)
                if device.type == "cuda" and name.startswith("step"):
                    peaks[name] = torch.cuda.max_memory_allocated()
    with FlopCounterMode(display=False) as counter:
        forward("ours", "fp32")
    flops = counter.get_total_flops()

    def ratio(slow: str, fast: str) -> float:
        return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))

    size = {f"{p} plain": kept("plain", p, "") for p in ("fp32", "bf16")}
    size |= {f"{p} {m}": kept("ours", p, m) for p in ("fp32", "bf16") for m in MEMORY}
    share = {
        precision: statistics.median(
            (flops / mine) / (2 * product_size(device) ** 3 / best)
            for mine, best in zip(times[f"forward {precision} ours"], times[f"product {precision}"], strict=True)
        )
        for precision in ("fp32", "bf16")
    }
    p = step_precision
    report: dict[str, Any] = {
        "forward_ratio": ratio("forward fp32 plain", "forward fp32 ours"),
        "step_ratio": ratio(f"step {p} plain", f"step {p} fast"),
        "saved_bytes_ratio": size[f"{p} fast"] / size[f"{p} plain"],
        "lean_step_ratio": ratio(f"step {p} plain", f"step {p} lean"),
        "lean_saved_bytes_ratio": size[f"{p} lean"] / size[f"{p} plain"],
        "smallest_step_ratio": ratio(f"step {p} plain", f"step {p} smallest"),
        "smallest_saved_bytes_ratio": size[f"{p} smallest"] / size[f"{p} plain"],
        "peak_share": share["fp32"],
        "precision": p,
        "forward_ratio_bf16": ratio("forward bf16 plain", "forward bf16 ours"),
        "peak_share_bf16": share["bf16"],
        "largest_difference": difference,
    }
    report = {name: float(f"{x:.3g}") if isinstance(x, float) else x for name, x in report.items()}
    report |= {
        "median_seconds": {name: round(statistics.median(found), 4) for name, found in times.items()},
        "saved_mib_per_clip": {name: round(bytes_ / clips / 2**20, 1) for name, bytes_ in size.items()},
        "peak_mib": {name: round(peak / 2**20) for name, peak in peaks.items()},
        "rounds": len(times["product fp32"]),
        "clips": clips,
        "trunk": trunk,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    show(report)
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def show(report: dict[str, Any]) -> None:
    """The table of a report."""
    console = Console(highlight=False)
    console.print(f"{report['trunk']}, {report['clips']} clips, {report['threads']} threads, load {report['load']:.1f}")
    table = Table("", "seconds", "MiB a clip kept")
    for name, passed in report["median_seconds"].items():
        table.add_row(name, f"{passed:.3f}", str(report["saved_mib_per_clip"].get(name.removeprefix("step "), "")))
    console.print(table)
    for name, value in report.items():
        if not isinstance(value, dict):
            console.print(f"{name}: {value}", markup=False)


if __name__ == "__main__":
    main()
