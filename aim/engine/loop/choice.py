"""The choice among several rates and decays, before the run itself: `optim.lr`, `optim.weight_decay` may be lists.

Heads on a frozen trunk train side by side, on the same batches; adapters inside the trunk train in turn. Where a third
list tests, the validation videos choose; elsewhere a part of the training videos, so that no video of the test does.
Then the run is that of the best rate and decay, on all training videos. The folder `choice` in the run directory has a
last.pt to continue from, of trainings in turn each its own, and choice.json.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aim.data.folds import apart
from aim.data.lists import Lists
from aim.engine.loop.course import Caller, Diverged
from aim.engine.loop.evaluation import Evaluation
from aim.engine.loop.loaders import loaders
from aim.engine.loop.saving import State
from aim.engine.loop.selection import foremost
from aim.engine.loop.training import train
from aim.engine.machine import distributed
from aim.engine.machine.distributed import say_once
from aim.engine.run import content, identity
from aim.engine.run.job import Job
from aim.engine.run.settings import Run
from aim.engine.scores.metrics import Metric, of_validation
from aim.ground import files
from aim.ground.console import plain_console, plain_table
from aim.ground.errors import UserError
from aim.ground.foreign import read_json
from aim.ground.signals import Stop
from aim.models.classifier import VideoClassifier
from aim.models.heads import Heads, Trained

FOLDER, NAME = identity.CHOICE, "choice.json"


def chosen(
    job: Job[Run], model: VideoClassifier, hashes: Mapping[str, str], stop: Stop
) -> tuple[Job[Run], dict[str, Any]]:
    """The job with the best rate and decay, and the scores of all for results.json.

    For one rate and decay the job itself, and nothing. The model doesn't change. Raises a training's errors.
    """
    run = job.run
    if not run.optim.several:
        return job, {}
    lists, about = choosing(job.lists, run.train.choose)
    choice = replace(job, lists=lists, run_dir=job.run_dir / FOLDER)
    mine = {**hashes, **content_of(lists, job.settings)}
    found = distributed.share(read(choice.run_dir, mine) if job.world.is_main else {})
    if "best" not in found:
        heads = found.get("heads") or [own._asdict() for own in run.optim.heads]
        way = side_by_side if model.reads_frozen else in_turn
        found = about | way(choice, model, Scores(choice, mine, heads), stop)
    if job.world.is_main:
        files.write_json(choice.run_dir / NAME, found | {"identity": mine})
        show(found, run)
    best = run.optim.heads[found["best"]]
    return replace(job, run=replace(run, optim=replace(run.optim, **best._asdict()))), {"choice": found}


def choosing(lists: Lists, share: float) -> tuple[Lists, dict[str, Any]]:
    """The lists of the choice: its validation videos choose. And their number and source.

    Raises UserError if no video can be spared.
    """
    if lists.tests_apart:
        return lists, {"videos": len(lists.val), "of": "validation"}
    rest, spared = apart(lists, share)
    if not spared:
        raise UserError(
            "no class has two training videos, one to choose a rate by; use one optim.lr and optim.weight_decay"
        )
    return replace(lists, train=rest, val=spared, third=None), {"videos": len(spared), "of": "training", "share": share}


def content_of(lists: Lists, settings: Mapping[str, Any]) -> dict[str, str]:
    """The part of a choice's identity that is known before its model: of its lists, and the settings' hash."""
    return {**content.of_data(lists), "settings": settings_hash(settings)}


def settings_hash(settings: Mapping[str, Any]) -> str:
    """The hash of a run's settings but for its length, to which it may go on."""
    group, _, length = identity.LENGTH.partition(".")
    own = {key: value for key, value in settings[group].items() if key != length}
    return identity.config_hash({**settings, group: own})


def read(place: Path, mine: Mapping[str, str]) -> dict[str, Any]:
    """The content of choice.json, which has no `best` until all is over. Raises UserError for that of another run."""
    file = place / NAME
    if not file.exists():
        return {}
    found: dict[str, Any] = read_json(file, dict, "the choice of a run", "delete its folder")
    content.check_same(found, mine, place)
    return {key: value for key, value in found.items() if key != "identity"}


@dataclass
class Scores:
    """The scores of each rate and decay, so far: with test=best of its best validation, else of its last.

    One that has `diverged` has none. They are in choice.json.
    """

    job: Job[Run]
    identity: Mapping[str, str]
    heads: list[dict[str, Any]]

    @property
    def by(self) -> Metric:
        """The metric that chooses."""
        return of_validation(self.job.run.task.metrics, self.job.run.train.best_by)

    def keep(self, place: int, epoch: float, scores: Mapping[str, float]) -> None:
        """Take those of a validation after so many epochs, if they count."""
        head, name = self.heads[place], str(self.by.validated)
        if self.job.run.test == "last" or name not in head or self.by.improves(scores[name], head[name]):
            head |= {"epoch": epoch, **scores}

    def lose(self, place: int) -> None:
        """Forget those of one that has diverged."""
        self.heads[place] = {**self.job.run.optim.heads[place]._asdict(), "diverged": True}

    def write(self) -> None:
        """Leave them in choice.json."""
        if self.job.world.is_main:
            files.write_json(self.job.run_dir / NAME, {"heads": self.heads, "identity": dict(self.identity)})

    def result(self, seconds: float, before: float) -> dict[str, Any]:
        """All of it, and the best, after so many seconds, of which those `before` are of earlier processes.

        Raises UserError if all have diverged.
        """
        alive = [place for place, head in enumerate(self.heads) if "diverged" not in head]
        if not alive:
            raise UserError(f"with each of {len(self.heads)} rates and decays the loss became infinite; lower optim.lr")
        best = alive[foremost([self.heads[place] for place in alive], self.by)]
        took = {"seconds": round(seconds, 1), "seconds_before": round(before, 1)}
        return {"by": self.by.validated_words, "heads": self.heads, "best": best, **took}


def side_by_side(job: Job[Run], model: VideoClassifier, scores: Scores, stop: Stop) -> dict[str, Any]:
    """Train all heads, or continue: the scores of each, and the best."""
    several, began = Heads(model, len(scores.heads)), time.monotonic()

    def validated(epoch: float, found: Evaluation, improved: bool) -> None:
        for place in range(len(scores.heads)):
            if place in several.alive:
                scores.keep(place, epoch, found.heads[several.alive.index(place)].scores)
            else:
                scores.lose(place)
        scores.write()

    announce(job, f"{len(scores.heads)} heads side by side")
    state = tried(job, model, several, scores.identity, validated, stop)
    return scores.result(state.seconds + time.monotonic() - began, state.seconds)


def in_turn(job: Job[Run], model: VideoClassifier, scores: Scores, stop: Stop) -> dict[str, Any]:
    """Train the model with one rate and decay after the other, or go on: the scores of each, and the best.

    The model is then as it was before. A training that is over has its `seconds` and `epochs` beside its scores.
    Raises UserError if others are over that had other epochs, as their scores don't compare.
    """
    run = job.run
    if other := {head["epochs"] for head in scores.heads if "epochs" in head} - {run.train.epochs}:
        raise UserError(
            f"{job.run_dir}: trainings of this choice are over with train.epochs={other.pop()}; choose with that, and "
            f"then continue to train.epochs={run.train.epochs}, or delete {job.run_dir}"
        )
    trained = dict(model.named_parameters())
    first = {name: trained[name].detach().clone() for name in model.trainable}
    before = sum(head.get("seconds", 0.0) for head in scores.heads)
    announce(job, f"{len(scores.heads)} trainings in turn")
    for place, own in enumerate(run.optim.heads):
        if "seconds" in scores.heads[place]:
            continue

        def validated(epoch: float, found: Evaluation, improved: bool, place: int = place) -> None:
            scores.keep(place, epoch, found.scores)
            scores.write()

        optim = replace(run.optim, **own._asdict())
        turn = replace(job, run=replace(run, optim=optim), run_dir=job.run_dir / str(place))
        if job.world.is_main:
            print(f"choice {place + 1}: optim.lr={own.lr:g} optim.weight_decay={own.weight_decay:g}", flush=True)
        began, earlier = time.monotonic(), 0.0
        try:
            earlier = tried(turn, model, model, scores.identity, validated, stop).seconds
        except Diverged as error:
            reason, *_ = str(error).split(";")
            say_once(f"warning: optim.lr={own.lr:g} with optim.weight_decay={own.weight_decay:g} is given up: {reason}")
            scores.lose(place)
        before += earlier
        seconds = round(earlier + time.monotonic() - began, 1)
        scores.heads[place] |= {"seconds": seconds, "epochs": run.train.epochs}
        scores.write()
        if job.world.is_main and place:  # the newest stays, for the command that goes on
            shutil.rmtree(job.run_dir / str(place - 1), ignore_errors=True)
        with torch.no_grad():
            for name, tensor in first.items():
                trained[name].copy_(tensor)
    return scores.result(sum(head["seconds"] for head in scores.heads), before)


def announce(job: Job[Run], what: str) -> None:
    """Say that a choice begins, and of which videos."""
    if job.world.is_main:
        print(f"choice: {what}, of {len(job.lists.train)} videos; {len(job.lists.val)} choose", flush=True)


def tried(
    job: Job[Run],
    model: VideoClassifier,
    trained: Trained,
    mine: Mapping[str, str],
    validated: Callable[[float, Evaluation, bool], None],
    stop: Stop,
) -> State:
    """Train or continue a candidate, in its own folder."""
    training = job.run.train
    caller = Caller(
        run_dir=job.run_dir,
        identity=mine,
        split={"clips": job.clips, "accumulate": job.settings["train"]["accumulate"]},
        save_best=lambda: None,
        validated=validated,
        log=lambda step, values: None,
    )
    run = replace(job.run, train=replace(training, eval_every=training.eval_every or training.epochs))
    with loaders(job, model, stop) as (train_loader, val_loader):
        return train(trained, train_loader, val_loader, run=run, caller=caller, world=job.world, stop=stop)


def show(found: Mapping[str, Any], run: Run) -> None:
    """Print the scores as a small table."""
    by = of_validation(run.task.metrics, run.train.best_by)
    rows = [
        (
            f"{head['lr']:g}",
            f"{head['weight_decay']:g}",
            "diverged" if "diverged" in head else by.text(head[str(by.validated)]),
            "" if "diverged" in head else f"{head['loss']:.3f}",
            "best" * (i == found["best"]),
        )
        for i, head in enumerate(found["heads"])
    ]
    title = f"{len(rows)} rates and decays, {found['videos']} {found['of']} videos choose"
    plain_console().print(plain_table(rows, ["optim.lr", "weight_decay", found["by"], "loss", ""], title=title))
