"""Draws the README's first picture: answers of a run about real videos, right and wrong, and a map of one.

python scripts/first_picture.py RUN docs/first.png

The videos are drawn at random (seed 0) among the run's test videos, with the proportion of right answers of its result.
RUN is of UT-Interaction (scripts/real_results.sh); its frames may be shown with its citation.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.readers.pyav import PyAV
from aim.engine.trained.recogniser import Recogniser, load
from aim.explain import clips
from aim.explain.explanation import grids
from aim.explain.heat import overlaid, smooth
from aim.explain.occlusion import Decision, blurred, of_space_time

ROWS, COLUMNS = 2, 4
CELLS = 4  # of the map, a side
RIGHT, WRONG, MUTED = "#2f7d4f", "#c0392b", "#6e7681"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    results = json.loads((args.run / "results.json").read_text())
    with np.load(args.run / "predictions.npz") as file:
        probability, labels, paths, classes = (file[key] for key in ("probability", "label", "path", "classes"))
    recogniser = load(args.run, calibrated=False)
    data, _ = clips.tested_videos(str(args.run), None, many=recogniser.task.several)
    hits, rng = probability.argmax(1) == labels, np.random.default_rng(0)
    shown_right = round((ROWS * COLUMNS - 1) * float(hits.mean()))
    drawn = [rng.choice(np.flatnonzero(hits), shown_right, replace=False)]
    drawn.append(rng.choice(np.flatnonzero(~hits), ROWS * COLUMNS - 1 - shown_right, replace=False))
    chosen: list[int] = np.concatenate(drawn).tolist()
    videos = [Video(str(paths[i]), int(labels[i])) for i in chosen]
    dataset = VideoDataset(data.folder, videos, PyAV(), recogniser.clip, recogniser.views, seed=0)
    figure = Figure(figsize=(10, 6.1))
    axes = [figure.add_subplot(ROWS, COLUMNS, i + 1) for i in range(ROWS * COLUMNS)]
    shown = [dataset.read(0, i)[0] for i in range(len(videos))]
    right = [int(probability[i].argmax()) == labels[i] for i in chosen]
    for ax, i, clip, good in zip(axes, chosen, shown, right, strict=False):
        best = int(probability[i].argmax())
        ax.imshow(clip[len(clip) // 2].permute(1, 2, 0).numpy())
        text = f"{classes[best]}  {100 * probability[i, best]:.0f} %"
        ax.set_title(
            text if good else f"{text}  (is {classes[labels[i]]})", color=RIGHT if good else WRONG, fontsize=11
        )
    seen = right.index(True)
    heat = relevance_of(recogniser, shown[seen], videos[seen].label)
    middle = overlaid(shown[seen], smooth(heat, heat.shape[-1] // CELLS))[len(heat) // 2]
    axes[-1].imshow(middle.permute(1, 2, 0).numpy())
    axes[-1].set_title(f"what speaks for {classes[videos[seen].label]}", fontsize=11)
    for ax in axes:
        ax.set_axis_off()
    heads = f"Top-1 of {results['num_videos']} videos: {results['top1']:.1f} %"
    figure.suptitle(f"{heads}; always the largest class: {results['baseline']['top1']:.1f} %", fontsize=14)
    note = "UT-Interaction (Ryoo and Aggarwal, 2009); seven tested videos, as many wrong as their share; the map of one"
    figure.text(0.5, 0.02, note, ha="center", color=MUTED, fontsize=9)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.87, bottom=0.06, wspace=0.04, hspace=0.16)
    figure.savefig(args.out, dpi=110)


def relevance_of(recogniser: Recogniser, clip: Tensor, label: int) -> Tensor:
    """The evidence for the class, by removal of parts of the clip: "t h w"."""
    on = grids(recogniser.model, "occlusion", CELLS)[1]
    decision = Decision(recogniser.predict, clip, label, on, blurred(clip), 16)
    return on.spread(of_space_time(decision)).clamp_min(0)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
