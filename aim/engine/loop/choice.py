"""The choice among several heads, before the run itself: `optim.lr` and `optim.weight_decay` may be lists.

All heads train side by side, on the same batches. Where a third list tests, the validation videos choose; elsewhere a
part of the training videos, so that no video of the test does. Then the run is that of the best head's rate and decay,
on all training videos. The folder `choice` in the run directory has its own last.pt to continue from, and choice.json.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aim.data.folds import apart
from aim.data.lists import Lists
from aim.engine.loop.course import Caller
from aim.engine.loop.evaluation import Evaluation
from aim.engine.loop.loaders import loaders
from aim.engine.loop.selection import foremost
from aim.engine.loop.training import train
from aim.engine.machine import distributed
from aim.engine.run import content, identity
from aim.engine.run.job import Job
from aim.engine.run.settings import Run
from aim.engine.scores.metrics import of_validation
from aim.ground import files
from aim.ground.console import plain_console, plain_table
from aim.ground.errors import UserError
from aim.ground.foreign import read_json
from aim.ground.signals import Stop
from aim.models.classifier import VideoClassifier
from aim.models.heads import Heads

FOLDER, NAME = identity.CHOICE, "choice.json"


def chosen(
    job: Job[Run], model: VideoClassifier, hashes: Mapping[str, str], stop: Stop
) -> tuple[Job[Run], dict[str, Any]]:
    """The job with the rate and decay of the best head, and all heads' scores for results.json.

    Of a job with one rate and decay itself, and nothing. The model stays as it is. Raises what a training raises.
    """
    run = job.run
    if not run.optim.several:
        return job, {}
    lists, about = choosing(job.lists, run.train.choose)
    choice = replace(job, lists=lists, run_dir=job.run_dir / FOLDER)
    mine = {**hashes, **content_of(lists, job.settings)}
    found = distributed.share(read(choice.run_dir, mine) if job.world.is_main else {})
    if "best" not in found:
        found = about | side_by_side(choice, model, mine, found.get("heads"), stop)
    if job.world.is_main:
        files.write_json(choice.run_dir / NAME, found | {"identity": mine})
        show(found, run)
    best = run.optim.heads[found["best"]]
    return replace(job, run=replace(run, optim=replace(run.optim, **best._asdict()))), {"choice": found}


def choosing(lists: Lists, share: float) -> tuple[Lists, dict[str, Any]]:
    """The lists of the choice: its validation videos choose. And how many there are, of what.

    Raises UserError where no video can be spared.
    """
    if lists.tests_apart:
        return lists, {"videos": len(lists.val), "of": "validation"}
    rest, spared = apart(lists, share)
    if not spared:
        raise UserError(
            "no class has two training videos, one to choose among heads; use one optim.lr and optim.weight_decay"
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


def side_by_side(
    job: Job[Run], model: VideoClassifier, mine: Mapping[str, str], before: list[dict[str, Any]] | None, stop: Stop
) -> dict[str, Any]:
    """Train all heads, or go on, where validations `before` had these scores: the scores of each, and the best.

    With test=best a head has those of its best validation, else of its last; one that has `diverged` has none. The
    seconds are of all processes, also those before this one.
    """
    run, world = job.run, job.world
    by = of_validation(run.task.metrics, run.train.best_by)
    heads = [dict(head) for head in before or [own._asdict() for own in run.optim.heads]]
    several, began = Heads(model, len(heads)), time.monotonic()

    def validated(epoch: float, found: Evaluation, improved: bool) -> None:
        scored = dict(zip(several.alive, (each.scores for each in found.heads), strict=True))
        for place, (head, own) in enumerate(zip(heads, run.optim.heads, strict=True)):
            name = str(by.validated)
            if place not in scored:
                heads[place] = {**own._asdict(), "diverged": True}
            elif run.test == "last" or name not in head or by.improves(scored[place][name], head[name]):
                head |= {"epoch": epoch, **scored[place]}
        if world.is_main:
            files.write_json(job.run_dir / NAME, {"heads": heads, "identity": dict(mine)})

    if world.is_main:
        print(f"choice: {len(heads)} heads side by side, of {len(job.lists.train)} videos; {len(job.lists.val)} choose")
    validating = replace(run.train, eval_every=run.train.eval_every or run.train.epochs)
    caller = Caller(
        run_dir=job.run_dir,
        identity=mine,
        split={"clips": job.clips, "accumulate": job.settings["train"]["accumulate"]},
        save_best=lambda: None,
        validated=validated,
        log=lambda step, values: None,
    )
    with loaders(job, model, stop) as (train_loader, val_loader):
        state = train(
            several, train_loader, val_loader,
            run=replace(run, train=validating), caller=caller, world=world, stop=stop,
        )  # fmt: skip
    best = several.alive[foremost([heads[place] for place in several.alive], by)]
    seconds = {"seconds": state.seconds + time.monotonic() - began, "seconds_before": state.seconds}
    return {"by": by.validated_words, "heads": heads, "best": best, **{k: round(v, 1) for k, v in seconds.items()}}


def show(found: Mapping[str, Any], run: Run) -> None:
    """Print the heads as a small table."""
    by = of_validation(run.task.metrics, run.train.best_by)
    rows = [
        (
            f"{head['lr']:g}",
            f"{head['weight_decay']:g}",
            "diverged" if "diverged" in head else by.text(head[str(by.validated)]),
            "best" * (i == found["best"]),
        )
        for i, head in enumerate(found["heads"])
    ]
    title = f"{len(rows)} heads, {found['videos']} {found['of']} videos choose"
    plain_console().print(plain_table(rows, ["optim.lr", "weight_decay", found["by"], ""], title=title))
