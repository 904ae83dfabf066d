"""A study small enough for tests, with made-up cells instead of trained ones."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aim.engine.run.settings import Run, write_settings
from aim.engine.scores import predictions
from aim.engine.scores.predictions import Predictions
from aim.ground import config, jobs
from aim.shell.words import in_quotes, quoted
from aim.study import verb as study
from aim.study.cells import planning
from aim.study.cells.cost import Cost, count
from aim.study.shown import output
from tests.toy import TOY

CLASSES = np.array(["move_right", "move_left", "move_down", "move_up", "grow", "shrink", "turn_clockwise",
                    "turn_counterclockwise"])  # fmt: skip
COMMON = ",".join(in_quotes(text) for text in TOY if not text.startswith("+experiment"))
WIDE = in_quotes("backbone.options={img_size: 32, patch_size: 8, embed_dim: 64, depth: 2, num_heads: 2}")
SMALL = [
    "study.name=small",
    "study.experiment=demo",
    f"+study.trunks={{a: [], b: [{WIDE}]}}",
    "+study.adapters={none: ['adapter=none'], aim: []}",
    "study.shares=[0.5,1.0]",
    "+study.epochs={0.5: 3}",
    "study.cells=[{shares: [1.0]}, {trunks: [a]}]",
    "study.seeds=[0,1]",
    f"study.common=[{COMMON}]",
]  # 2 x 2 x 2 cells at all the data, and 2 x 2 at half of it
NUM_CELLS = 12

Ran = list[str]  # names of cells


def run(folder: Path, *overrides: str) -> int:
    """The exit code of aim.study in this process."""
    cfg = config.compose([*SMALL, f"run_dir={in_quotes(str(folder))}", *overrides], "study")
    with pytest.raises(SystemExit) as caught:
        study.main(cfg)
    return int(caught.value.code or 0)


def told(folder: Path) -> dict[str, Any]:
    """The content of its study.json."""
    found: dict[str, Any] = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    return found


def answers(right: float, *, videos: int = 64, seed: int = 0) -> Predictions:
    """Predictions with about this share right."""
    rng = np.random.default_rng(seed)
    label = np.arange(videos) % len(CLASSES)
    said = np.where(rng.uniform(size=videos) < right, label, (label + rng.integers(1, 8, videos)) % len(CLASSES))
    probability = np.full((videos, len(CLASSES)), 0.4 / (len(CLASSES) - 1), np.float32)
    probability[np.arange(videos), said] = 0.6
    return Predictions(
        index=np.arange(videos), label=label, path=np.array([f"{i}.mp4" for i in range(videos)]),
        span=np.full((videos, 2), np.nan), probability=probability,
        log_probability=np.log(probability[:, None]).astype(np.float16),
        seconds=np.zeros((videos, 1, 2), np.float32), classes=CLASSES, about={"root": "."},
    )  # fmt: skip


COSTS: dict[str, Cost] = {}


def counted_once(run: Run, num_classes: int) -> Cost:
    """`count`, which takes a tenth of a second, once for each model and kind of step."""
    key = str((run.backbone, run.adapter, run.clip, run.train, run.precision, run.dropout, num_classes))
    if key not in COSTS:
        COSTS[key] = count(run, num_classes)
    return COSTS[key]


def made_up(
    patch: pytest.MonkeyPatch, *, fails: Mapping[str, str] | None = None, stops_after: int | None = None
) -> Ran:
    """Cells no longer train: they leave made-up results, or fail for the reason given. Returns those that have run.

    Figures for papers, whose drawing takes seconds, are left out.
    """
    ran: Ran = []
    patch.setattr(output, "draw", lambda study, folder: [])
    patch.setattr(planning, "count", counted_once)

    def runs(
        commands: Sequence[Sequence[str]],
        *,
        output: Callable[[int], Path],
        begins: Callable[[int], None],
        ended: Callable[[int, int], None],
        **_: object,
    ) -> tuple[dict[int, int], bool]:
        codes = {}
        for i, command in enumerate(commands):
            if len(ran) == stops_after:
                return codes, True
            words = [word for word in command if "=" in word.partition("/")[0]]
            folder = Path(next(word for word in words if word.startswith("run_dir=")).removeprefix("run_dir="))
            ran.append(folder.name)
            reason = (fails or {}).get(folder.name)
            output(i).write_text(f"aim: error: {reason}\n" if reason else "fine\n")
            if not reason:
                leave(folder, config.resolve(config.compose(list(map(quoted, words)))))
            begins(i)
            codes[i] = 2 if reason else 0
            ended(i, codes[i])
        return codes, False

    patch.setattr(jobs, "run", runs)
    return ran


def leave(folder: Path, settings: dict[str, Any]) -> None:
    """A training's results: the wider trunk and more data make them better."""
    wide = settings["backbone"]["options"]["embed_dim"] / 64
    right = 0.1 + 0.8 * wide * settings["data"]["share"] * (settings["adapter"]["kind"] == "aim")
    found = answers(right, seed=settings["seed"])
    write_settings(settings, folder)
    predictions.write(folder / predictions.TEST, found)
    text = json.dumps({"top1": 100 * float(found.right.mean()), "seconds": 9.5, "device": "a CPU"})
    (folder / "results.json").write_text(text)
