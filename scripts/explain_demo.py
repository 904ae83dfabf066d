"""Measures aim.explain with known ground truth: the share of its maps on the shape that moves in a demo's video.

python scripts/explain_demo.py runs/demo,seed=0 --order "frozen trunk, linear head=runs/demo,adapter=none,seed=0"

Writes scripts/results/explain.json, from which scripts/readme_tables.py makes a table. 15 minutes on 2 cores.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aim.data.dataset import VideoDataset
from aim.data.demo.moving_shapes import MovingShapes
from aim.data.demo.shape_clutter import Film
from aim.data.demo.shape_drawing import EYE, SHAPES, covered
from aim.data.readers.pyav import PyAV
from aim.data.sampling import test_indices
from aim.engine.run.results import commit, device_name, versions
from aim.engine.trained import checkpoint
from aim.engine.trained.recogniser import load
from aim.explain import clips, order
from aim.explain.explanation import RANDOMISED, Explanation, explain, grids
from aim.explain.gradients import gradient_x_activation
from aim.explain.occlusion import Decision, blurred, of_space_time
from aim.explain.scores import faithfulness
from aim.ground import files
from aim.ground.clock import seconds_since_start

RESULT = Path(__file__).resolve().parent / "results" / "explain.json"
METHODS = ("occlusion", "gradient")
EVERY = 4  # one in this many videos has its map compared with those of random weights and of chance


def located(path: str, count: int) -> dict[str, Any]:
    """The shape's share in the maps of `count` videos, evenly spread over the classes; a list has one value each."""
    recogniser = load(path, calibrated=False)
    data, lists = clips.validation_videos(path, None)
    assert isinstance(data.lists, MovingShapes), f"{path} was not trained on the demo's data"
    assert recogniser.views.resize == recogniser.clip.size, "a crop would need its mask cropped"
    videos = clips.spread(lists.val, count)
    dataset = VideoDataset(data.folder, videos, PyAV(), recogniser.clip, recogniser.views, seed=0)
    frames = torch.from_numpy(test_indices(data.lists.num_frames, recogniser.clip, 1)[0])
    masks = [shape_in(data.lists, video.path)[frames] for video in videos]
    found: dict[str, Any] = {
        "videos": [video.path for video in videos],
        "pixels": [float(mask.float().mean()) for mask in masks],
    }
    for method in METHODS:
        on = grids(recogniser.model, method, 8)[1]
        maps, areas, checked = list[Tensor](), list[tuple[float, float]](), list[Explanation]()
        for i, video in enumerate(videos):
            clip = dataset.read(0, i)[0]
            if i % EVERY == 0:
                settings = {"method": method, "cells": 8, "batch_size": 16, "precision": "fp32"}
                checked.append(explain(recogniser, clip, video.label, **settings))
                relevance, scores = checked[-1].relevance, checked[-1].faithfulness
            else:
                decision = Decision(recogniser.predict, clip, video.label, on, blurred(clip), 16)
                quick = method == "gradient"
                seen = (recogniser.model, clip, video.label)
                relevance = gradient_x_activation(*seen) if quick else of_space_time(decision)
                scores = faithfulness(decision, relevance)
            maps.append(on.spread(relevance))
            areas.append(scores.areas)
            print(f"{method} {i + 1}/{len(videos)}", file=sys.stderr)
        others = [*maps[1:], maps[0]]  # the score of a map that knows only where shapes usually are
        found[method] = {
            "inside": [share_inside(*pair) for pair in zip(maps, masks, strict=True)],
            "hits": [points_inside(*pair) for pair in zip(maps, masks, strict=True)],
            "inside_of_another": [share_inside(*pair) for pair in zip(others, masks, strict=True)],
            "hits_of_another": [points_inside(*pair) for pair in zip(others, masks, strict=True)],
            **dict(zip(("deletion_area", "insertion_area"), mean_of(areas), strict=True)),
            "checked": len(checked),
            **dict(
                zip(("deletion_by_chance", "insertion_by_chance"), mean_of([e.chance for e in checked]), strict=True)
            ),
            "similarity_to_randomised": dict(
                zip(RANDOMISED, mean_of([tuple(e.similarity.values()) for e in checked]), strict=True)
            ),
        }
    return found


def mean_of(pairs: Sequence[tuple[float, ...]]) -> list[float]:
    """The means of columns."""
    means: list[float] = np.mean(pairs, axis=0).tolist()
    return means


def sensitivity(path: str) -> dict[str, Any]:
    """The answers of a model to other orders of frames, on all validation videos."""
    recogniser = load(path, calibrated=False)
    data, lists = clips.validation_videos(path, None)
    policy = {"timeout": data.timeout, "on_error": "raise", "max_bad": 0.0}
    loader = clips.loader_of(data.folder, lists.val, recogniser, PyAV(), batch_size=16, workers=1, **policy)
    with closing(loader):
        return order.of_videos(recogniser.predict, loader, lambda done: None).as_json(recogniser.classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument(
        "--order", metavar="NAME=CHECKPOINT", action="append", default=[], help="whose order to test, too"
    )
    asked = parser.parse_args()
    others = dict(text.split("=", 1) for text in asked.order)
    result = {
        **located(asked.checkpoint, asked.videos),
        "order": {name: sensitivity(path) for name, path in {"AIM": asked.checkpoint, **others}.items()},
        "checkpoint": checkpoint.read_weights(asked.checkpoint).fingerprint,
        "device": device_name(torch.device("cpu")),
        "versions": versions(),
        "commit": commit(),
    }
    files.write_json(RESULT, result | {"seconds": round(seconds_since_start())})


def shape_in(source: MovingShapes, path: str) -> Tensor:
    """The shape's visible pixels in a video of the demo, named as in its lists: bool "t h w"."""
    split, name, file = Path(path).parts[-3:]
    pair, backwards = divmod(source.classes.index(name), 2)
    mask = torch.from_numpy(mask_of(source.film(split, pair, int(Path(file).stem))))
    return mask.flip(0) if backwards else mask


def mask_of(film: Film) -> NDArray[np.bool_]:
    """The places where the shape is seen, bool "t h w"."""
    size = film.scene.background.shape[-2]
    seen = covered([*SHAPES[film.scene.shape], EYE], film.poses, size) > 0.5
    for patch in film.occluders:
        seen &= covered(patch.polygons, patch.poses, size) <= 0.5
    return seen


def share_inside(relevance: Tensor, mask: Tensor) -> float:
    """The share of a map's evidence for the class, "t h w", inside a bool mask of the same shape."""
    positive = relevance.clamp_min(0)
    return float((positive * mask).sum() / positive.sum().clamp_min(torch.finfo(positive.dtype).tiny))


def points_inside(relevance: Tensor, mask: Tensor) -> bool:
    """The pointing game: whether the largest value of a map "t h w" is inside a bool mask of the same shape.

    Zhang et al., "Top-down Neural Attention by Excitation Backprop", ECCV 2016, section 4.2, without its margin.
    """
    return bool(mask.flatten()[relevance.flatten().argmax()])


if __name__ == "__main__":
    main()
