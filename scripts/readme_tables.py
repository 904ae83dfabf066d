"""Writes the README's tables from scripts/results, the results of runs of aim.train.

python scripts/readme_tables.py
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import yaml

from aim.engine.run.settings import Run
from aim.explain.order import ORDERS
from aim.ground import config
from aim.report.runs import read_results
from aim.report.table import spread

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts import real_table  # noqa: E402

RESULTS = ROOT / "scripts" / "results"
LADDER = {  # row: (runs, the paper's top-1 on Something-Something v2, table 1)
    "frozen trunk, linear head": ("demo,adapter=none,seed=*", "15.1"),
    "+ spatial": ("demo,adapter.joint=false,adapter.temporal=false,seed=*", "36.7"),
    "+ spatial + temporal": ("demo,adapter.joint=false,seed=*", "61.2"),
    "+ joint (AIM)": ("demo,seed=*", "62.0"),
}
INTERACTIONS = {  # row: (result, which of its numbers)
    "STEP, `+experiment=probe`: ten folds (fold k holds out sequences k and 10+k): mean, sd": (
        "real/ut,folds,step/folds.json",
        "folds",
    ),
    "... the folds' 120 held-out videos together, 95 % interval": ("real/ut,folds,step/folds.json", "interval"),
    "... `val.txt`, 47 videos": ("probe,ut-interaction/results.json", "top1"),
    "linear layer, `+experiment=probe adapter=none`: ten folds: mean, sd": ("real/ut,folds,none/folds.json", "folds"),
    "... the folds' 120 videos together, 95 % interval": ("real/ut,folds,none/folds.json", "interval"),
    "... `val.txt`": ("probe,ut-interaction,none/results.json", "top1"),
}
MAPS = {  # row: scores of a map in scripts/explain_demo.py, and by chance; "" where there are none
    "relevance that lies on the shape (%)": ("inside", "pixels"),
    "... of the map of another video (%)": ("inside_of_another", "pixels"),
    "videos whose largest relevance lies on the shape (%)": ("hits", "pixels"),
    "... that of the map of another video (%)": ("hits_of_another", "pixels"),
    "mean probability while the best cells are removed (%)": ("deletion_area", "deletion_by_chance"),
    "... while they are put back into a blur (%)": ("insertion_area", "insertion_by_chance"),
    "rank correlation with the map of a random head (%)": ("head", ""),
    "... of a random head and adapters (%)": ("head and adapters", ""),
}
SPEED = {  # row: (the timed work of ours and of the plain model, the one with the bytes)
    "test, 3 views of a video, fp32": ("forward fp32 {}", None),
    "test, 3 views of a video, bf16": ("forward bf16 {}", None),
    "train step, one clip, fp32, `train.memory=fast`": ("step fp32 {}", "fast"),
    "train step, one clip, bf16, `train.memory=fast`": ("step bf16 {}", "fast"),
    "train step, one clip, bf16, `train.memory=lean`": ("step bf16 {}", "lean"),
    "train step, one clip, bf16, `train.memory=smallest`": ("step bf16 {}", "smallest"),
}
LAPTOP = {  # row: measurements of aim.benchmark
    "`backbone=in21k_vit_s16 clip.num_frames=4`": "laptop,in21k_vit_s16",
    "`backbone=clip_vit_b16` (8 frames)": "laptop,clip_vit_b16",
    "`backbone=demo adapter=aim_demo clip.size=64` (8 frames)": "laptop,demo",
}
OTHERS = "adapter | tuned (M) | rate | top-1 (%), mean (range) | seeds | 95 % interval of seed 0 | seconds"
HEADS = {
    "laptop": "`+experiment=finetune train.batch_size=8` | parameters (M), tuned / all | clips/s in training "
    "| in tests | 20 epochs of 100 videos, minutes",
    "speed": "ViT-B/16, 8 frames | the public code's way, seconds | ours, seconds | times as fast "
    "| kept for the backward pass, MiB (share of the public code's)",
    "ladder": "adapters | tuned / all parameters (M) | top-1 here (%), mean (range) | seeds | seconds, data and test "
    "included | the paper's top-1 on Something-Something v2 (%)",
    "interactions": "head on DINOv2's ViT-S/14, 112 pixels | top-1 (%) | the largest class (%)",
    "order6": "adapter | tuned here, in a ViT-B/16 (M) | rate | top-1 (%), mean (range) | seeds "
    "| 95 % interval of seed 0 | frames reversed (%) | shuffled (%) | seconds",
    "shrec14": OTHERS,
    "ut": OTHERS,
    "maps": "map | removal | gradient x activation | by chance",
    "order": f"top-1 on frames in another order (%) | {' | '.join(ORDERS)}",
}


def found(glob: str) -> list[dict[str, Any]]:
    """The results of the runs that match."""
    runs = sorted(RESULTS.glob(glob))
    assert runs, f"no runs {glob} in {RESULTS}; scripts/demo_results.sh makes them"
    return [read_results(run / "results.json") for run in runs]


def ladder(name: str) -> str:
    """A row of the ladder."""
    glob, paper = LADDER[name]
    runs = found(glob)
    top1 = spread([run["top1"] for run in runs])
    return f"{name} | {parameters(runs[0])} | {top1} | {len(runs)} | {mean(r['seconds'] for r in runs):.0f} | {paper}"


def speed(name: str) -> str:
    """A row of scripts/bench_model.py's measurements."""
    bench = json.loads((RESULTS / "bench_model.json").read_text())
    what, memory = SPEED[name]
    plain, ours = (bench["median_seconds"][what.format(whose)] for whose in ("plain", memory or "ours"))
    ratio = bench["ratios"][what.format(memory or "ours")]
    if memory is None:
        return f"{name} | {plain:.2f} | {ours:.2f} | {ratio:.2f} | "
    kept = bench["saved_mib_per_clip"]
    size, whole = (kept[what.format(whose).removeprefix("step ")] for whose in (memory, "plain"))
    return f"{name} | {plain:.2f} | {ours:.2f} | {ratio:.2f} | {size:.0f} ({size / whole:.2f})"


def laptop(name: str) -> str:
    """A row of aim.benchmark what=model, without a GPU."""
    model = json.loads((RESULTS / LAPTOP[name] / "benchmark.json").read_text(encoding="utf-8"))["model"]
    train, test = (model[stage]["clips_per_second"] for stage in ("train", "test"))
    return f"{name} | {parameters(model)} | {train:.1f} | {test:.1f} | {20 * 100 / train / 60:.1f}"


def tuned(settings: dict[str, Any]) -> int:
    """The parameters that the adapter of a run trains in a ViT-B/16 at Kinetics-400's settings, without its head."""
    composed = config.resolve(config.compose(["+experiment=k400", "backbone.weights=random"]))
    run = config.build({**composed, "adapter": settings["adapter"]}, Run)
    with torch.device("meta"):
        model = run.model(run.data.num_classes or 0)
    return sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and not name.startswith("head."))


def real(data: str, cell: str) -> str:
    """A row of a real data set."""
    folder = RESULTS / "real"
    (first, *_) = found_files = real_table.files(folder, data, cell)
    by_order, results = real_table.orders(folder, data, cell), [read_results(file) for file in found_files]
    words, tuned_here, top1, interval, backwards, shuffled, seeds, seconds = real_table.row(
        results, by_order, real_table.CELLS[cell]
    )
    settings = yaml.safe_load(first.with_name("config.yaml").read_text(encoding="utf-8"))
    millions = f"{float(tuned_here):.2f}" + (f", {tuned(settings) / 1e6:.2f}" if by_order else "")
    orders = [backwards, shuffled] if by_order else []
    choice = results[0].get("choice")
    rate = choice["heads"][choice["best"]]["lr"] if choice else settings["optim"]["lr"]
    return " | ".join([words, millions, f"{rate:g}", top1, seeds, interval, *orders, seconds])


def interaction(name: str) -> str:
    """A row of UT-Interaction."""
    file, what = INTERACTIONS[name]
    run = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    if what == "top1":
        value = f"{run['top1']:.1f}"
    elif what == "folds":
        value = f"{run['folds']['mean']:.1f}, {run['folds']['sd']:.1f}"
    else:
        value = "{:.1f} ({:.1f} to {:.1f})".format(run["folds"]["of_all_videos"], *run["folds"]["interval"])
    return f"{name} | {value} | {run['baseline']['top1']:.1f}"


def explanations() -> dict[str, Any]:
    """The results of scripts/explain_demo.py."""
    loaded: dict[str, Any] = json.loads((RESULTS / "explain.json").read_text(encoding="utf-8"))
    return loaded


def explained(name: str) -> str:
    """A row of the scores of maps of the demo's videos."""
    result = explanations()
    of, by_chance = MAPS[name]
    maps = [result[method] | result[method]["similarity_to_randomised"] for method in ("occlusion", "gradient")]
    chance = [{"pixels": result["pixels"], "": None, **found}[by_chance] for found in maps]
    values = [percent(found[of]) for found in maps]
    return f"{name} | {' | '.join(values)} | {' and '.join(dict.fromkeys(map(percent, chance)))}"


def percent(value: Any) -> str:
    """A share, or the mean of many; empty for None."""
    return "" if value is None else f"{100 * (mean(value) if isinstance(value, list) else value):.0f}"


def ordered(name: str) -> str:
    """A row of the orders of frames."""
    orders = explanations()["order"][name]["order"]
    return f"{name} | {' | '.join(format(orders[order]['top1'], '.1f') for order in ORDERS)}"


def parameters(run: dict[str, Any]) -> str:
    """Tuned and all, in millions."""
    return f"{run['params_tuned'] / 1e6:.2f} / {run['params_total'] / 1e6:.2f}"


def written(readme: str) -> str:
    """The README with its tables made again."""
    makers: dict[str, tuple[Callable[[str], str], list[str]]] = {
        "ladder": (ladder, [*LADDER]),
        "interactions": (interaction, [*INTERACTIONS]),
        **{
            data: (partial(real, data), [c for c in real_table.CELLS if real_table.files(RESULTS / "real", data, c)])
            for data in real_table.DATA
            if real_table.table(RESULTS / "real", data)
        },
        "maps": (explained, [*MAPS]),
        "order": (ordered, [*explanations()["order"]]),
        "speed": (speed, [*SPEED]),
        "laptop": (laptop, [*LAPTOP]),
    }
    for title, (row, names) in makers.items():
        head = HEADS[title]
        lines = [head, " | ".join("---" for _ in head.split(" | ")), *(row(name) for name in names)]
        table = "".join(f"| {line} |\n" for line in lines)
        readme = placed(title, table, readme)
    return placed("study", studied(), readme)


def placed(title: str, text: str, readme: str) -> str:
    """The README with a text in its place."""
    begin, end = f"<!-- {title}: scripts/readme_tables.py -->\n", "<!-- end -->"
    made, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}{text}{end}", readme, flags=re.S)
    assert count == 1, begin
    return made


def studied() -> str:
    """The first three sentences and the table of aim.study's results."""
    text = (RESULTS / "study,demo" / "study.md").read_text(encoding="utf-8")
    said = re.findall("^- (.*)$", text, flags=re.M)[:3]
    table = re.search(r"^\| adapter \|.*?\n(?=\n)", text, flags=re.M | re.S)
    assert table, text
    return "".join(f"- {each}\n" for each in said) + f"\n{table[0]}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
