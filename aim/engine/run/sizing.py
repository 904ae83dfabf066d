"""Values for `auto` in the settings of training, above all the length of a run; and continuation to more epochs.

A recipe for thousands of videos trains dozens for a handful of steps. So small data gets smaller batches and more
epochs; large data the values in `aim.engine.run.recipe.Training`. Rate, decay and schedule are the adapter's recipe.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aim.adapters.interface import Recipe
from aim.data.lists import Lists
from aim.engine.run.identity import LENGTH
from aim.engine.run.recipe import steps_per_epoch
from aim.engine.run.settings import Run
from aim.ground import config
from aim.ground.choices import leaves
from aim.ground.errors import UserError
from aim.ground.marks import AUTO

BATCHES = (32, 16, 8)  # clips; the largest with so many steps an epoch, or the smallest
STEPS_AN_EPOCH = 8
STEPS = 400  # at least, though an epoch may not be repeated more than 100 times
EPOCHS, MOST_EPOCHS = 20, 100
PARTS = 20  # of a run: a validation after each
LOG_STEPS = 10  # between lines of the log at most, and never more than an epoch


def settled(settings: Mapping[str, Any], videos: int, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """The settings with numbers for `auto`: of the run `before`, which goes on; by the adapter, or by the videos."""
    asked, known = dict(leaves(settings)), dict(leaves(before or {}))
    found: dict[str, Any] = {}

    def number(key: str, rule: Callable[[], float | str]) -> Any:
        if asked[key] == AUTO:
            found[key] = known[key] if key in known else rule()
        return found.get(key, asked[key])

    recipe = config.build(settings["adapter"].get("recipe") or {}, Recipe)
    number("optim.lr", lambda: recipe.lr)
    number("optim.weight_decay", lambda: recipe.weight_decay)
    number("optim.schedule", lambda: recipe.schedule)
    clips = videos * asked["train.clips_per_video"]
    batch = number("train.batch_size", lambda: next((b for b in BATCHES if clips >= STEPS_AN_EPOCH * b), BATCHES[-1]))
    steps = steps_per_epoch(videos, asked["train.clips_per_video"], batch)
    epochs = number("train.epochs", lambda: min(MOST_EPOCHS, max(EPOCHS, math.ceil(STEPS / steps))))
    number("train.eval_every", lambda: max(1, epochs // PARTS))
    number("train.log_every", lambda: min(LOG_STEPS, steps))
    number("optim.warmup_epochs", lambda: epochs * recipe.warmup)
    number("train.features", lambda: features_of(settings, videos))
    return _with(settings, found)


def features_of(settings: Mapping[str, Any], videos: int) -> str:
    """The value of `train.features` for auto: cached where the model only reads its trunk, and there is room for it."""
    own = {key: settings[key] for key in Run.__dataclass_fields__}  # without those of aim.benchmark alone
    run = config.build(own, Run)
    return "cached" if run.takes_features and run.kept_gb(videos) < run.train.features_gb else "computed"


def said(asked: Mapping[str, Any], settings: Mapping[str, Any], videos: int) -> str | None:
    """A line with the values for `auto`, if there were any."""
    numbers = dict(leaves(settings))
    found = [f"{key}={shown(numbers[key])}" for key, value in leaves(asked) if value == AUTO != numbers[key]]
    return f"for {videos} training videos, auto is {' '.join(found)}" if found else None


def shown(value: float | str) -> str:
    """A setting's value as one writes it."""
    return value if isinstance(value, str) else f"{value:g}"


def shorter(run: Run) -> Path:
    """The directory of the run that is the same but for its number of epochs, which its name may have."""
    return run.directory(overrides=[text for text in config.task_overrides() if not text.startswith(f"{LENGTH}=")])


def goes_on(run: Run, step: int, lists: Lists) -> str:
    """How a run with so many steps behind it goes on to another number of epochs than it began with, in words.

    Raises UserError if more epochs are behind it.
    """
    steps, epochs = run.train.steps_per_epoch(len(lists.train)), run.train.epochs
    if step > steps * epochs:
        raise UserError(
            f"train.epochs={epochs}, but {run.directory()} has trained {step / steps:.3g} epochs already; use "
            f"train.epochs={math.ceil(step / steps)} or more, or set run_dir=DIR"
        )
    return f"from step {step} on, the learning rate is that of a run of {epochs} epochs, {steps * epochs} steps"


def _with(node: Mapping[str, Any], values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A copy with other values of dotted keys."""
    return {
        key: _with(value, values, f"{prefix}{key}.")
        if isinstance(value, Mapping)
        else values.get(f"{prefix}{key}", value)
        for key, value in node.items()
    }
