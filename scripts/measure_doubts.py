"""Measures the share of wrong labels in doubtful.csv when one label in ten is wrong, with models of any strength.

Run: python -m aim.features backbone=dinov2_vit_s14 backbone.weights=FILE clip.size=224 UT_INTERACTION out=FEATURES
     python scripts/measure_doubts.py FEATURES scripts/results/doubts.json

A linear classifier on some of the features, in five folds; eight draws of features, wrong labels and folds each. The
digits are scikit-learn's (500 of them), the videos UT-Interaction's 120, in a folder a class.
"""

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from aim.engine.run.results import device_name
from aim.engine.scores.predictions import Predictions
from aim.report.doubtful import NOBODY, confident, doubtful

DRAWS, WRONG, FOLDS = 8, 0.1, 5
DIGITS = {"digits": (3, 6, 12, 24, 64)}  # numbers of features
VIDEOS = {"ut-interaction": (16, 64, 384)}


def of_digits() -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Features and labels of 500 digits."""
    features, label = load_digits(return_X_y=True)
    chosen = np.random.default_rng(0).permutation(len(label))[:500]
    return features[chosen], label[chosen]


def of_videos(folder: Path) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """The same of the files of aim.features for videos in a folder a class."""
    files = sorted(folder.rglob("*.npz"))
    names = sorted({file.parent.name for file in files})
    feats = [np.load(file)["feats"].mean(0) for file in files]
    return np.stack(feats), np.array([names.index(file.parent.name) for file in files])


def draw(features: NDArray[np.floating], label: NDArray[np.int64], seed: int) -> dict[str, float]:
    """The number of doubtful labels in one draw, and of wrong ones among them."""
    rng, k = np.random.default_rng(seed), int(label.max()) + 1
    wrong = rng.random(len(label)) < WRONG
    given = np.where(wrong, (label + rng.integers(1, k, len(label))) % k, label)
    model, folds = LogisticRegression(C=0.1, max_iter=2000), StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    probability = cross_val_predict(model, features, given, cv=folds, method="predict_proba").astype(np.float32)
    found = Predictions(
        index=np.arange(len(label)), label=given, path=np.arange(len(label)).astype(str),
        span=np.full((len(label), 2), np.nan), probability=probability, log_probability=np.log(probability)[:, None],
        seconds=np.zeros((len(label), 1, 2), np.float32), classes=np.arange(k).astype(str), about={},
    )  # fmt: skip
    doubts = [int(doubt.path) for doubt in doubtful(found).labels]
    likely = confident(probability, given)
    every = np.flatnonzero((likely != NOBODY) & (likely != given))
    return {
        "accuracy": float((probability.argmax(1) == given).mean()),
        "wrong": float(wrong.sum()),
        "doubted": float(len(doubts)),
        "of_these_wrong": float(wrong[doubts].sum()),
        "without_the_condition": float(len(every)),
        "of_those_wrong": float(wrong[every].sum()),
    }


def row(features: NDArray[np.floating], label: NDArray[np.int64], count: int) -> dict[str, Any]:
    """The mean over draws, with this number of features."""
    rows = []
    for seed in range(DRAWS):
        own = features[:, np.random.default_rng(seed).permutation(features.shape[1])[:count]]
        rows.append(draw((own - own.mean(0)) / (own.std(0) + 1e-9), label, seed))
    return {"features": count, **{key: round(mean(each[key] for each in rows), 3) for key in rows[0]}}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    table = {name: [row(*of_digits(), count) for count in counts] for name, counts in DIGITS.items()}
    table |= {name: [row(*of_videos(given.features), count) for count in counts] for name, counts in VIDEOS.items()}
    about = {"machine": device_name(torch.device("cpu")), "wrong": WRONG, "folds": FOLDS, "draws": DRAWS}
    given.out.write_text(json.dumps(about | table, indent=1) + "\n")


if __name__ == "__main__":
    main()
