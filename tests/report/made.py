"""Run directories and predictions for tests of reports, without a training."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from aim.engine.scores import predictions
from aim.engine.scores.predictions import Predictions

RESULT = {
    "name": "custom", "views": "8x3x1", "params_tuned": 11e6, "params_total": 97e6, "gmacs_per_view": 202.0,
    "top1": 80.0, "top5": 90.0, "mean_class": 79.0, "num_videos": 40, "seconds": 60.0, "commit": None,
}  # fmt: skip


def predicted(label: list[int], probability: list[list[float]], classes: list[str] | None = None) -> Predictions:
    """One view of each video, with these probabilities."""
    n, k = len(label), len(probability[0])
    values = np.array(probability, np.float32)
    return Predictions(
        index=np.arange(n), label=np.array(label), path=np.array([f"{i}.mp4" for i in range(n)], np.str_),
        span=np.full((n, 2), np.nan), probability=values,
        log_probability=np.log(np.maximum(values, 1e-4))[:, None].astype(np.float16),
        seconds=np.full((n, 1, 2), np.nan, np.float32), classes=np.array(classes or [f"class {i}" for i in range(k)]),
        about={"root": "/nowhere", "views": "8x1x1", "data_hash": "0"},
    )  # fmt: skip


def random_predictions(n: int, k: int, *, seed: int = 0, skill: float = 2.0, **more: Any) -> Predictions:
    """Those of a model that is sometimes right; the same videos for every seed."""
    rng, label = np.random.default_rng(seed), np.random.default_rng(99).integers(k, size=n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), label] += skill
    return predicted(label.tolist(), (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).tolist(), **more)


def run_directory(
    folder: Path, results: dict[str, Any] | None, settings: str, found: Predictions | None = None, epochs: int = 3
) -> Path:
    """A run directory; of an unfinished run where `results` is None."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(settings, encoding="utf-8")
    if results is not None:
        (folder / "results.json").write_text(json.dumps(RESULT | results), encoding="utf-8")
    if found is not None:
        predictions.write(folder / (predictions.VALIDATION if results is None else predictions.TEST), found)
    lines: list[dict[str, float]] = []
    for step in range(1, 10 * epochs + 1):
        line = {"epoch": step / 10, "loss": 2 / step, "top1": float(step), "lr": 1e-3 / step, "waiting": 0.1}
        lines.append({"step": step, **line})
        if step % 10 == 0:
            lines.append({"step": step, "epoch": step / 10, "val_top1": 50.0 + step})
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return folder
