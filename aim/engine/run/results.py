"""`results.json`: the source of every number in a table."""

import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from aim.data.lists import Lists, data_hash
from aim.engine.run import content, identity
from aim.engine.run.job import Job
from aim.engine.run.settings import Run
from aim.engine.scores import metrics
from aim.engine.scores.guessing import baseline_of
from aim.engine.scores.predictions import Predictions
from aim.ground import files
from aim.ground.amounts import tuned_of
from aim.ground.clock import clock, seconds_since_start
from aim.ground.console import plain_console, plain_table
from aim.ground.errors import say
from aim.ground.foreign import read_json
from aim.models.classifier import VideoClassifier
from aim.models.freeze import num_parameters


def collect(
    job: Job[Run], model: VideoClassifier, predictions: Predictions, gmacs: float, **more: Any
) -> dict[str, Any]:
    """The result of a test with all that decided it; `more` is known to the caller alone; `gmacs` are of one view."""
    run, lists, device = job.run, job.lists, job.world.device
    tuned, total = num_parameters(model)
    licence = {"licence": run.backbone.licence} if run.backbone.licence else {}
    published = {} if run.published is None else {"published": asdict(run.published)}
    return {
        "name": run.name,
        **predictions.results(),
        "num_videos": len(predictions.index),
        "num_missing": 0,
        "num_classes": len(lists.classes),
        "lists": {name: len(videos) for name, videos in lists.parts.items()},
        "views": run.views.protocol(run.clip.num_frames),
        "weights": "last",
        "params_total": total,
        "params_tuned": tuned,
        "gmacs_per_view": round(gmacs, 3),
        "epochs": run.train.epochs,
        "seed": run.seed,
        "seconds": round(seconds_since_start(), 1),
        "world_size": job.world.size,
        "device": device_name(device),
        "precision": run.precision,
        "commit": commit(),
        "config_hash": identity.config_hash(job.settings),
        "data_hash": data_hash(lists.test, lists.classes),
        "trunk": {"name": model.trunk_name, "sha256": model.fingerprint} | licence,
        "versions": versions(),
        **published,
        **more,
    }


def standing(run: Run, lists: Lists) -> dict[str, Any]:
    """The role of the test's videos in a training, and its choices that were made by them.

    They are test videos where no validation was on them: they are a third list, or there was none.
    """
    validated, patience = bool(run.train.eval_every), run.train.patience
    apart = lists.tests_apart
    chosen = {"weights (test=best)": run.test == "best", f"end (train.patience={patience})": patience is not None}
    return {
        "part": "validation" if validated and not apart else "test",
        "chose": [] if apart else [text for text, chose in chosen.items() if chose],
        "fits_temperature": not (validated and apart),  # of the checkpoint
    }


def read(path: Path) -> dict[str, Any]:
    """The content of a finished run's results.json. Raises UserError for anything else."""
    found: dict[str, Any] = read_json(path, dict, "the result of a run", "delete it")
    return found


def set_aside(run_dir: Path) -> None:
    """Keep the result of a run continued to more epochs, named by its former number."""
    done = run_dir / "results.json"
    if done.exists():
        with files.writing(done, f"it is kept: {files.AGAIN}"):
            done.replace(run_dir / f"results_{read(done)['epochs']}_epochs.json")


def show(found: Mapping[str, Any], run_dir: Path) -> None:
    """Print a result as a small table."""
    baseline = baseline_of(found)
    scores = [each for each in metrics.told(found) if each.unit == "percent"]
    rows = {
        **{each.words: each.beside(found[each.name], baseline) for each in scores},
        **({"not read": f"{found['num_missing']} videos"} if found["num_missing"] else {}),
        **({"these videos chose": chose} if (chose := content.chosen(found)) else {}),
        **({"weights": weights} if (weights := content.weights(found)) else {}),
        **({"chosen": chosen} if (chosen := content.choice(found)) else {}),
        "tuned parameters": tuned_of(found["params_tuned"], found["params_total"]),
        "time": f"{clock(found['seconds'])} on {found['world_size']} x {found['device']}",
    }
    title = f"{found['name']}: {found['num_videos']} {content.kind(found)}videos, {found['views']} views"
    console = plain_console()
    console.print(plain_table(rows.items(), title=title, overflow="fold"))
    if doubt := "; ".join(doubts(found, baseline)):
        say(f"warning: {doubt}")
    console.print(f"written to {run_dir}")


def doubts(found: Mapping[str, Any], baseline: Mapping[str, float]) -> Iterator[str]:
    """Causes to doubt that a result shows something learnt."""
    below = [each for each in metrics.told(found) if each.main and not each.above(found[each.name], baseline)]
    if below and found["num_videos"]:
        words = ", ".join(each.words for each in below)
        always = "always answering the " if below[0].labels == "one" else ""
        yield f"not above {always}{below[0].constant_words}: {words}"
    if one := found.get("one_answer"):
        yield f"{one['videos']} of {found['num_videos']} videos get one and the same answer, {one['class']!r}"


def versions() -> dict[str, str]:
    """The versions of Python, this package, and the libraries."""
    found = {"python": platform.python_version()}
    for name in ("aim-video", "torch", "torchvision", "timm", "decord", "av"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the checkout that this code runs from, with "-dirty" for changes; None outside of one."""
    root = Path(__file__).parents[3]
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    is_checkout = described.returncode == 0 and (root / ".git").exists()
    return described.stdout.strip() if is_checkout else None


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return str(torch.backends.mps.get_name())
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model} ({torch.get_num_threads()} threads)"
