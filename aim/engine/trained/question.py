"""How a trained model is asked about videos: settings that several verbs have, the model on its device, its limits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import torch

from aim.data.lists import nfc
from aim.data.readers.interface import Reader
from aim.engine.machine import distributed
from aim.engine.machine.hardware import Computed, Device, Precision
from aim.engine.scores.calibration import Calibration
from aim.engine.scores.several import UNKNOWN
from aim.engine.scores.tasks import Limit
from aim.engine.trained import exported
from aim.engine.trained.answer import Asking
from aim.engine.trained.recogniser import Recogniser, TrunkFile, load, ready
from aim.ground.errors import UserError, check_least, nearest, say
from aim.ground.marks import Mark
from aim.models.classifier import Backbone

MAX_WORKERS = 8  # decoding processes, where nobody says how many


@dataclass(frozen=True)
class Question:
    """The keys of configs/predict.yaml and configs/serve.yaml for the model, its use and its answers."""

    checkpoint: Annotated[str, Mark.PATH]  # empty where a trunk alone is asked
    views: Mapping[str, int | None]
    top: int
    min_probability: float | Mapping[str, float] | None
    background: str | None
    temperature: float | None
    device: Device
    precision: Computed
    threads: int | None
    workers: int | None
    trust: bool
    debug: bool
    backbone: Backbone | TrunkFile
    reader: Reader

    def __post_init__(self) -> None:
        check_least(self, 1, "top")
        check_least(self, 0, "workers")
        asked = self.min_probability
        for value in asked.values() if isinstance(asked, Mapping) else [] if asked is None else [asked]:
            if not 0 <= value <= 1:
                raise UserError(f"min_probability={value:g} must be between 0 and 1")
        if self.temperature is not None and not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature:g} must be above 0")

    @property
    def asked(self) -> str:
        """The name of the model."""
        return self.checkpoint or str(getattr(self.backbone, "name", ""))

    @property
    def processes(self) -> int:
        """How many decode videos."""
        return min(distributed.num_cores(), MAX_WORKERS) if self.workers is None else self.workers

    def loaded(self) -> Recogniser:
        """The model, where it was left. Raises UserError."""
        return load(self.checkpoint, weights=self.backbone.weights, trust=self.trust)


def prepared(settings: Question, of_windows: str = "") -> tuple[Recogniser, Precision, Asking]:
    """The model on its device, the precision it will compute in, and its answers; it is said, with its `of_windows`.

    Raises UserError as `limit_of` does.
    """
    device, asked = exported.settled(settings.checkpoint, settings.device, settings.precision)
    # The introduction tells what they are.
    recogniser, precision = ready(settings.loaded, device=device, precision=asked, threads=settings.threads, told=False)
    if exported.is_exported(settings.checkpoint):
        exported.check_precision(settings.precision, settings.checkpoint, recogniser.precision)
    views = {key: value for key, value in settings.views.items() if value is not None}
    recogniser = replace(recogniser, views=replace(recogniser.views, **views))
    if settings.temperature is not None:
        recogniser = replace(recogniser, calibration=Calibration(settings.temperature))  # without thresholds of another
    say(introduction(recogniser, settings, precision, of_windows))
    if recogniser.calibration.temperature is None and settings.min_probability is not None:
        say(
            f"warning: {settings.asked} has no temperature, as it's older than that or was trained elsewhere: "
            f"min_probability={settings.min_probability} compares probabilities as they are, mostly too sure; "
            "temperature=T gives one"
        )
    return recogniser, precision, asking_of(settings, recogniser)


def asking_of(settings: Question, recogniser: Recogniser) -> Asking:
    """How the model answers. Raises UserError as `limit_of` does."""
    return Asking(recogniser.classes, settings.top, limit_of(settings, recogniser), recogniser.task)


def limit_of(settings: Question, recogniser: Recogniser) -> Limit:
    """The least probabilities of an answer; that of `background` is out of reach.

    Those of the command are before the checkpoint's thresholds. Raises UserError for a class that the model hasn't.
    """
    asked, classes = settings.min_probability, recogniser.classes
    if settings.background is None and not isinstance(asked, Mapping):
        return recogniser.at_least if asked is None else asked
    own = asked if isinstance(asked, float) else recogniser.at_least
    usual = UNKNOWN if recogniser.task.several else 0.0
    found = torch.zeros(len(classes)) + (usual if own is None else own)
    named = [("min_probability", name, value) for name, value in asked.items()] if isinstance(asked, Mapping) else []
    if settings.background is not None:
        named.append(("background", settings.background, math.inf))
    known = [*map(nfc, classes)]
    for setting, name, value in named:
        if nfc(name) not in known:
            raise UserError(f"{setting}: the model has no class {name!r}{nearest(name, known)}")
        found[known.index(nfc(name))] = value
    return found


def introduction(recogniser: Recogniser, settings: Question, precision: Precision, of_windows: str) -> str:
    """The model that looks at the videos, its views and its precision."""
    before = recogniser.precision
    other = f", trained in {before}" if before != precision else ""
    if other and before != "fp8":  # of training alone
        other += f" (precision={before} gives its test's numbers)"
    windows = f", {of_windows}" if of_windows else ""
    views = recogniser.views.protocol(recogniser.clip.num_frames)
    return (
        f"{settings.asked}: {len(recogniser.classes)} classes, {views} views{windows}, "
        f"{precision} on {recogniser.device.type}{other if before else ''}; {calibration(recogniser, settings)}"
    )


def calibration(recogniser: Recogniser, settings: Question) -> str:
    """Whether probabilities are calibrated, and by which temperature."""
    if settings.temperature == 1:
        return "a test's probabilities, by temperature=1"
    if settings.temperature is not None:
        return f"calibrated with temperature={settings.temperature:g}"
    temperature = recogniser.calibration.temperature
    if temperature is None:
        return "not calibrated, as it holds no temperature"
    own = f"temperature {temperature:g}" if isinstance(temperature, int | float) else "temperatures, one a class"
    own += " and thresholds" if recogniser.calibration.thresholds else ""
    return f"calibrated with its {own} (temperature=1 gives a test's probabilities)"
