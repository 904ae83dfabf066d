"""Measures the labels that next=N of aim.predict saves: moving shapes, against labels of randomly chosen videos.

Run: python scripts/measure_next.py scripts/results/next.json

A linear head on the demo's frozen trunk classifies the four pairs of motions: of 600 videos each, and of 600, 130, 40
and 20. It starts with 20 labels, and takes 20 more after each training. Scores are the mean per class on the 480
validation videos. Saved labels: the difference at the last score of random choice, by straight lines between trainings;
a 95 % bootstrap interval over seeds. With the same seed both ways start alike.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from aim.engine.run.results import device_name
from aim.engine.run.settings import Run
from aim.engine.scores.tasks import SINGLE_LABEL
from aim.features.extracting import Extractor
from aim.ground import config
from aim.predict.teaching import most_teaching

SETTINGS = ["+experiment=demo", "adapter=none"]
POOLS = {"balanced": (600, 600, 600, 600), "unbalanced": (600, 130, 40, 20)}
SEEDS, EACH, ROUNDS = 20, 20, 8
Part = tuple[NDArray[np.float32], NDArray[np.int64]]  # features "n d", the pair of motions "n"


def parts() -> list[Part]:
    """Training and validation videos as the frozen trunk sees them."""
    run = config.build(config.compose(SETTINGS), Run)
    lists, model = run.load_lists(), run.model(8).eval()
    extractor, found = Extractor(model, run.clip, run.views, "fp32", 32), list[Part]()
    for videos in (lists.train, lists.val):
        paths = [run.data.folder / video.path for video in videos]
        seen = extractor.of_views(paths, run.settled_reader(), workers=1)
        features = np.stack([each.feats.mean(0) for _, each in seen if not isinstance(each, str)])
        found.append((features, np.array([video.label // 2 for video in videos])))
    return found


def curve(pool: Part, val: Part, seed: int, *, by_chance: bool) -> list[float]:
    """The mean per class, in percent, after each training."""
    rng, (features, label) = np.random.default_rng(seed), pool
    mean, deviation = features.mean(0), features.std(0)
    labelled, scores = rng.choice(len(label), EACH, replace=False), list[float]()
    for _ in range(ROUNDS):
        head = LogisticRegression(max_iter=300).fit((features[labelled] - mean) / deviation, label[labelled])
        right = head.predict((val[0] - mean) / deviation) == val[1]
        scores.append(100 * float(np.mean([right[val[1] == each].mean() for each in np.unique(val[1])])))
        rest = np.setdiff1d(np.arange(len(label)), labelled)
        if by_chance:
            chosen = rng.choice(len(rest), EACH, replace=False).tolist()
        else:
            probability = torch.from_numpy(head.predict_proba((features[rest] - mean) / deviation))
            residual = probability - SINGLE_LABEL.given(probability, None).double()
            chosen = most_teaching(residual, torch.from_numpy(features[rest]), EACH)
        labelled = np.append(labelled, rest[chosen])
    return scores


def labels_for(score: float, scores: NDArray[np.float64]) -> float:
    """The number of labels from which on a mean curve has this score."""
    rising = np.maximum.accumulate(scores)
    return float(np.interp(score, rising, EACH * np.arange(1, ROUNDS + 1)))


def saved(ours: NDArray[np.float64], chance: NDArray[np.float64]) -> float:
    """The labels saved at random choice's last score, from curves "seeds rounds"."""
    return EACH * ROUNDS - labels_for(float(chance.mean(0)[-1]), ours.mean(0))


def measured(pool: Part, val: Part, counts: Sequence[int]) -> dict[str, Any]:
    """Both ways of choosing, from a pool with these numbers of videos a class."""
    curves: dict[bool, list[list[float]]] = {True: [], False: []}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        places = [rng.permutation(np.flatnonzero(pool[1] == i))[:count] for i, count in enumerate(counts)]
        own = pool[0][np.concatenate(places)], pool[1][np.concatenate(places)]
        for by_chance, found in curves.items():
            found.append(curve(own, val, seed, by_chance=by_chance))
    chance, ours = np.array(curves[True]), np.array(curves[False])
    draws = np.random.default_rng(0).integers(SEEDS, size=(2000, SEEDS))
    return {
        "videos": list(counts),
        "labels": [EACH * i for i in range(1, ROUNDS + 1)],
        "chance": chance.mean(0).round(2).tolist(),
        "next": ours.mean(0).round(2).tolist(),
        "saved": round(saved(ours, chance), 1),
        "saved_interval": np.percentile([saved(ours[d], chance[d]) for d in draws], (2.5, 97.5)).round(1).tolist(),
    }


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    pool, val = parts()
    about = {"machine": device_name(torch.device("cpu")), "settings": SETTINGS, "seeds": SEEDS}
    table = {name: measured(pool, val, counts) for name, counts in POOLS.items()}
    out.write_text(json.dumps(about | table, indent=1) + "\n")


if __name__ == "__main__":
    main()
