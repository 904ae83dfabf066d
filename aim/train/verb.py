"""Train adapters in a frozen trunk, and test them.

    python -m aim.train +experiment=demo
    python -m aim.train +experiment=k400 adapter.ratio=0.125 train.batch_size=128
    torchrun --nproc-per-node=8 -m aim.train +experiment=k400      # the same ranks, started by torchrun

The same command continues an interrupted run. Exit codes: 0 done, 2 an error to fix, 75 interrupted and saved.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from omegaconf.dictconfig import DictConfig

from aim.data.lists import Lists, data_hash, same_classes
from aim.data.pace import UNPACED, pace_of
from aim.engine.loop.choice import chosen
from aim.engine.loop.course import Caller
from aim.engine.loop.evaluation import Evaluation
from aim.engine.loop.frozen import on_features
from aim.engine.loop.loaders import loaders
from aim.engine.loop.saving import State
from aim.engine.loop.testing import leave, test
from aim.engine.loop.training import train
from aim.engine.loop.zero_shot import start_from_text
from aim.engine.machine import distributed, sharding
from aim.engine.machine.distributed import World
from aim.engine.run import content, decoding, identity, introduction, replaced, results
from aim.engine.run.inspection import inspected
from aim.engine.run.job import Checked, Job, started
from aim.engine.run.plan import expected_memory, free_bytes
from aim.engine.run.settings import Run, write_settings
from aim.engine.run.sizing import said, settled
from aim.engine.scores import predictions
from aim.engine.scores.calibration import UNCALIBRATED, Calibration, fitted
from aim.engine.scores.metrics import of_validation
from aim.engine.telling.tracking import Guarded, Log, NoTracker
from aim.engine.trained import checkpoint
from aim.engine.trained.checkpoint import BEST, Checkpoint
from aim.ground import config
from aim.ground.clock import seconds_since_start
from aim.ground.errors import check_all, printable, say
from aim.ground.signals import Stop, stop_signals
from aim.models.classifier import VideoClassifier
from aim.models.flops import gmacs_per_view
from aim.train.resuming import taken_up


def main(cfg: DictConfig) -> None:
    """Train on the lists of videos and test, unless this run is finished."""
    asked = config.resolve(cfg)
    with started("aim.train", asked, check, taken_up) as job:
        if job is not None:
            if line := said(asked, job.settings, len(job.lists.train)):
                say(line)
            with stop_signals() as stop:  # one for both: none is lost between training and test
                train_and_test(job, stop)


def check(asked: Mapping[str, Any]) -> Checked[Run]:
    """Find every error at once; raise them as one UserError. `auto` is settled by the number of training videos."""
    run = config.build(asked, Run).placed()
    run.check_precision()  # before anything is read
    settings = dict(asked)
    ranks, lists, start = list[int](), list[Lists](), list[Checkpoint | None]()
    run_dir = run.directory()
    before = distributed.share(identity.earlier(run_dir) if distributed.rank() == 0 else None)

    def settle() -> None:
        nonlocal run, settings
        lists.append(run.load_lists())
        settings = settled(asked, len(lists[0].train), before)
        run = config.build(settings, Run).placed()

    def check_batch() -> None:
        """A continued run may have other ranks than before; the first of them knows."""
        if ranks and distributed.rank() == 0 and not identity.last_of(run_dir).exists():
            run.check_batch(ranks[0])

    check_all(
        lambda: ranks.append(distributed.num_ranks(run.device, run.gpus)),
        settle,
        check_batch,
        lambda: check_all(*run.checks()),  # of the run with its numbers, if its lists are readable
        lambda: start.append(None if run.init is None else checkpoint.read_weights(run.init)),
    )
    return Checked(run, settings, lists[0], ranks[0], content.of_data(lists[0]), run_dir, start[0])


def train_and_test(job: Job[Run], stop: Stop) -> None:
    """Build the model, train or continue, test with the experiment's protocol, write results.json."""
    run, world, run_dir = job.run, job.world, job.run_dir
    with world.first_on_node():  # a missing trunk is found before videos are opened
        model = run.model(len(job.lists.classes)).to(world.device)
    lists = inspected(run, job.lists)
    job = replace(job, lists=lists)
    if world.is_main:
        results.set_aside(run_dir)  # of fewer epochs
        write_settings(job.settings, run_dir)
        if not (identity.last_of(run_dir).exists() and (run_dir / replaced.NAME).exists()):
            replaced.note(run_dir, run.data.folder, lists.videos)
        print(printable(introduction.of_run(run, lists, job.content, world)), flush=True)
    if job.start is not None:
        checkpoint.load_weights(model, job.start, head=has_head(job))
    gmacs = gmacs_per_view(model) if world.is_main else 0.0  # before it is sharded
    run = decoding.settled(run, job.settings, lists, gmacs, world)
    job = replace(job, run=run)
    if world.is_main:
        introduce(run, model, gmacs, len(lists.classes), world)
    weights = content.of_weights(model.fingerprint, job.start.fingerprint if job.start else None)
    hashes = {**job.content, **weights, "precision": run.precision}
    distributed.agree(hashes)
    if run.head == "text" and not distributed.share((run_dir / "last.pt").exists()) and not has_head(job):
        start_from_text(job, model, stop)
    distributed.broadcast_(list(model.state_dict().values()))
    if run.train.shard:
        sharding.shard(model, world, parts=run.train.accumulate)
    tracker = run.tracker if world.is_main else NoTracker()
    with Guarded(tracker, run_dir, run.name, job.settings) as tracked:
        job, choice = chosen(job, model, hashes, stop)
        run = job.run
        state, known = fit(job, model, hashes, stop, tracked.log)
        tested: dict[str, Any] = {"weights": "last", "schedule": state.schedule, "identity": hashes, **choice}
        tested |= results.standing(run, lists)
        if run.train.features == "cached":
            tested["draws"] = run.train.draws
        if run.train.patience is not None:
            tested["epochs_trained"] = round(state.step / run.train.steps_per_epoch(len(lists.train)), 3)
        if state.best is not None:
            tested["selection"] = selection(run, state)
        if run.test == "best":
            take_best(job, model)
            tested["weights"] = "best"
        dataset = run.test_dataset(lists)
        with nullcontext(dataset) if known else on_features(dataset, model, run, world, stop) as videos:
            found, left = test(job, model, videos, stop, known, calibration_of(job))
        if world.is_main:
            before = choice.get("choice", {}).get("seconds_before", 0.0)  # the processes of the choice
            seconds = round(before + state.seconds + seconds_since_start(), 1)
            tested |= {"num_missing": found.num_missing, "seconds": seconds}
            if not run.train.eval_every:  # no validation has: these are the saved weights
                calibration = fitted(run.task, found.log_probability, found.label)
                checkpoint.set_calibration(run_dir / BEST, calibration, data_hash(lists.test, lists.classes))
            tracked.attach(leave(job, model, left, gmacs, **tested))


def has_head(job: Job[Run]) -> bool:
    """Whether the run starts from a checkpoint of the same classes, with its head."""
    return job.start is not None and same_classes(job.start.classes, job.lists.classes)


def calibration_of(job: Job[Run]) -> Calibration:
    """That of the run's checkpoint, on rank 0; none if no validation has fitted one."""
    best = job.run_dir / BEST
    return checkpoint.read_weights(best).calibration if job.world.is_main and best.exists() else UNCALIBRATED


def take_best(job: Job[Run], model: VideoClassifier) -> None:
    """Put the best weights of the validations into the model of every rank."""
    if job.world.is_main:  # the other nodes may not see its folder
        checkpoint.load_weights(model, checkpoint.read_weights(job.run_dir / BEST))
    state_dict = model.state_dict()
    distributed.broadcast_([state_dict[name] for name in model.saved_names()])


def selection(run: Run, state: State) -> dict[str, Any]:
    """The best validation: its score's name and value, and its number of epochs."""
    by = of_validation(run.task.metrics, run.train.best_by)
    name, words = str(by.validated), f"validation {by.validated_words}"
    return {"by": words, name: state.best, "epoch": round(state.best_epoch, 3)}


def fit(
    job: Job[Run], model: VideoClassifier, hashes: Mapping[str, str], stop: Stop, log: Log
) -> tuple[State, Evaluation | None]:
    """Train on the lists, or continue; the model ends with the last weights.

    Also returns the validation of the test's weights, if it equals the test: same videos, same views.
    """
    run, world, run_dir, lists = job.run, job.world, job.run_dir, job.lists
    with loaders(job, model, stop) as (train_loader, val_loader):
        pace = pace_of(run.data.folder, lists.train) if world.is_main else UNPACED
        seen = dict[str, Evaluation]()  # the last one and the best of this process

        def validated(epoch: float, val: Evaluation, improved: bool) -> None:
            seen.update({"last": val, "best": val} if improved else {"last": val})
            if world.is_main:
                about = fitted(run.task, val.log_probability, val.label).about(run.task) if run.task.several else {}
                left = val.predictions(val_loader.dataset, lists.classes, epoch=epoch, **about)
                predictions.write(run_dir / predictions.VALIDATION, left, run.predictions)

        def save_best() -> None:
            val = seen.get("last")
            calibration = fitted(run.task, val.log_probability, val.label) if val else UNCALIBRATED
            chosen_by = job.content["data_hash"] if val else ""
            checkpoint.save_weights(
                run_dir / BEST, model, job.settings, lists.classes, run.precision, calibration, chosen_by, pace
            )

        caller = Caller(
            run_dir=run_dir,
            identity=hashes,
            split={"clips": job.clips, "accumulate": job.settings["train"]["accumulate"]},
            save_best=save_best,
            validated=validated,
            log=log,
        )
        state = train(model, train_loader, val_loader, run=run, caller=caller, world=world, stop=stop)
        alike = run.val_views == run.views and run.val_dataset(lists).videos == lists.test
        current = run.test == "best" or state.validated == state.step
        return state, seen.get(run.test) if alike and current else None


def introduce(run: Run, model: VideoClassifier, gmacs: float, num_classes: int, world: World) -> None:
    """Print the trained parts and their estimated memory on the device, with a warning if it's too much."""
    memory, too_much = expected_memory(run, num_classes, world.size, free_bytes(world.device))
    print(introduction.of_model(model, gmacs), memory, sep="\n", flush=True)
    if too_much is not None:
        say(f"warning: {too_much}")
