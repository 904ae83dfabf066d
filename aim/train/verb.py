"""Train adapters in a frozen trunk, and test them.

    python -m aim.train +experiment=demo
    python -m aim.train +experiment=k400 adapter.ratio=0.125 train.batch_size=128
    torchrun --nproc-per-node=8 -m aim.train +experiment=k400      # the same ranks, started by torchrun

The same command continues an interrupted run. Exit codes: 0 done, 2 an error to fix, 75 interrupted and saved.
"""

import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf.dictconfig import DictConfig

from aim.data.lists import Lists
from aim.engine.loop.course import Caller
from aim.engine.loop.evaluation import Evaluation, evaluate
from aim.engine.loop.faults import explained_test
from aim.engine.loop.saving import State
from aim.engine.loop.training import train
from aim.engine.machine import distributed, hardware, sharding
from aim.engine.machine.distributed import World
from aim.engine.machine.hardware import Precision
from aim.engine.machine.launcher import launch
from aim.engine.run import content, identity, introduction, results
from aim.engine.run.inspection import inspected
from aim.engine.run.plan import expected_memory, free_bytes
from aim.engine.run.settings import Run, write_settings
from aim.engine.run.sizing import goes_on, said, settled, shorter
from aim.engine.run.splitting import followed
from aim.engine.scores import predictions
from aim.engine.scores.calibration import fit_temperature
from aim.engine.scores.metrics import of_validation
from aim.engine.telling import bad_videos
from aim.engine.telling.tracking import Guarded, Log, NoTracker
from aim.engine.trained import checkpoint
from aim.engine.trained.checkpoint import BEST
from aim.ground import config, files, lease
from aim.ground.clock import seconds_since_start
from aim.ground.errors import check_all, say
from aim.ground.signals import Stop, interruptible, stop_signals
from aim.models.classifier import VideoClassifier
from aim.models.flops import gmacs_per_view
from aim.shell import command


def main(cfg: DictConfig) -> None:
    """Check what can be checked, start the ranks if there are to be several, train, test."""
    distributed.refuse_bare_slurm("aim.train")
    asked = config.resolve(cfg)
    run = config.build(asked, Run).placed()
    with interruptible(), ExitStack() as after_all, ExitStack() as stack:  # the lease outlives the ranks
        start = distributed.start(run.device, run.data.workers)
        world = stack.enter_context(start) if distributed.is_rank() else None
        ranks, lists, settings = check(run, asked)
        run = config.build(settings, Run).placed()
        data = content.of_data(lists)
        if world is None:
            if ranks > 1:
                if not taken_up(run, settings, lists, data)[0]:
                    sys.exit(launch(command.again("aim.train"), ranks, run.restarts))
                return
            world = stack.enter_context(start)
        distributed.agree({**data, "settings": identity.config_hash(settings)})
        if world.is_main:
            after_all.enter_context(lease.held(run.directory()))  # before it nothing is written
        finished, begun_in, clips = taken_up(run, settings, lists, data) if world.is_main else (False, None, None)
        if not distributed.share(finished):
            clips = distributed.share(clips)
            run = followed(run, world.size, clips)
            clips = clips or run.train.clips_at_once(world.size)
            run = replace(run, precision=hardware.settle(settings, run.device, begun_in)).with_reader()
            if world.is_main and (line := said(asked, settings, len(lists.train))):
                say(line)
            lists = inspected(run, lists)
            with stop_signals() as stop:  # one for both, so that none is lost between training and test
                train_and_test(run, settings, lists, data, world, stop, clips)


def check(run: Run, asked: Mapping[str, Any]) -> tuple[int, Lists, dict[str, Any]]:
    """Find every problem at once; raise them as one UserError.

    Returns the number of ranks, the data's lists, and the settings with numbers where `asked` says `auto`.
    """
    run.check_precision()  # before anything is read
    ranks, lists = list[int](), list[Lists]()
    before = distributed.share(identity.earlier(run.directory()) if distributed.rank() == 0 else None)

    def sized() -> dict[str, Any]:
        return settled(asked, len(lists[0].train), before)

    def check_batch() -> None:
        """A run that goes on may have other ranks than before, and the first of them knows whether it does."""
        if ranks and distributed.rank() == 0 and not last_of(run).exists():
            (config.build(sized(), Run) if lists else run).check_batch(ranks[0])

    check_all(
        lambda: ranks.append(distributed.num_ranks(run.device, run.gpus)),
        lambda: lists.append(run.load_lists()),
        check_batch,
        run.check_augmentation,
        run.check_test,
        run.tracker.check,
        run.backbone.check_weights,
        lambda: run.init is not None and checkpoint.read_weights(run.init),
    )
    return ranks[0], lists[0], sized()


def taken_up(
    run: Run, settings: Mapping[str, Any], lists: Lists, data: Mapping[str, str]
) -> tuple[bool, Precision | None, int | None]:
    """Whether the run directory holds this run's result, which is shown; precision and clips of a run that goes on.

    It ends in the precision in which it began, whatever the machine, and with no more clips at once on a rank, unless
    that is what is asked for. Raises UserError where the folder holds another run; says on stderr what a run that goes
    on will do differently.
    """
    run_dir = run.directory()
    last, done = last_of(run), run_dir / "results.json"
    if not (last.exists() or done.exists()):
        if (other := shorter(run)) != run_dir and identity.earlier(other):
            say_once(f"this is a run of its own; to go on with the one in {other}, add run_dir={other}")
        return False, None, None
    found = results.read(done) if done.exists() else checkpoint.load_last(last, quiet=True)
    changed = identity.changes(config.load(run_dir / "config.yaml"), settings, run_dir)
    resized = any(text.startswith(f"{identity.LENGTH} ") for text in changed)
    finished = done.exists() and not resized
    if resized:
        found = checkpoint.load_last(last, quiet=True)
    now = dict(data)
    if any(text.startswith(identity.CONTENT) for text in changed):
        start = begun_from(run)
        now |= content.of_weights(run.model(len(lists.classes)).fingerprint, start.fingerprint if start else None)
    content.check_same(found, now, run_dir)
    if finished:
        results.show(found, run_dir)
        print(f"This run was already finished; to train again, delete {run_dir} or set run_dir=DIR.")
    if resized:
        changed.append(goes_on(run, found["step"], lists))
    if changed:
        say_once(f"the run {'is this' if finished else 'goes on'}, though {'; '.join(changed)}")
    # What config.yaml says may be of a command that was killed before it saved anything.
    split_anew = found.get("accumulate") != settings["train"]["accumulate"]
    return finished, found.get("identity", {}).get("precision"), None if split_anew else found.get("clips")


def last_of(run: Run) -> Path:
    """The state that a run goes on from, if there is one."""
    return run.directory() / "last.pt"


def say_once(text: str) -> None:
    """A line on stderr, unless this process was launched by one that has said it."""
    if not distributed.is_launched():
        say(text)


def begun_from(run: Run) -> checkpoint.Checkpoint | None:
    """The checkpoint whose adapters the run starts from."""
    return None if run.init is None else checkpoint.read_weights(run.init)


def train_and_test(
    run: Run, settings: Mapping[str, Any], lists: Lists, data: Mapping[str, str], world: World, stop: Stop, clips: int
) -> None:
    """Build the model and the loaders, train or continue, test with the experiment's protocol, leave results.json.

    `clips` is what a rank may work through at once, wherever the run goes on.
    """
    run_dir = run.directory()
    if world.is_main:
        results.set_aside(run_dir)  # of fewer epochs
        write_settings(settings, run_dir)
        print(introduction.of_run(run, lists, data, world), flush=True)
    with world.first_on_node():
        model = run.model(len(lists.classes)).to(world.device)
    if (start := begun_from(run)) is not None:
        checkpoint.load_weights(model, start, head=start.classes == lists.classes)
    if world.is_main:
        gmacs = gmacs_per_view(model)
        introduce(run, model, gmacs, len(lists.classes), world)
    weights = content.of_weights(model.fingerprint, start.fingerprint if start else None)
    hashes = {**data, **weights, "precision": run.precision}
    distributed.agree(hashes)
    distributed.broadcast_(list(model.state_dict().values()))
    if run.train.shard:
        sharding.shard(model, world, parts=run.train.accumulate)
    tracker = run.tracker if world.is_main else NoTracker()
    with Guarded(tracker, run_dir, run.name, settings) as tracked:
        state = fit(run, settings, model, lists, hashes, world, stop, clips, tracked.log)
        tested: dict[str, Any] = {"weights": "last", "schedule": state.schedule, "identity": hashes}
        if run.train.patience is not None:
            tested["epochs_trained"] = round(state.step / run.train.steps_per_epoch(len(lists.train)), 3)
        if run.test == "best":
            if world.is_main:  # the other nodes may not see its folder
                checkpoint.load_weights(model, checkpoint.read_weights(run_dir / BEST))
            state_dict = model.state_dict()
            distributed.broadcast_([state_dict[name] for name in model.saved_names()])
            by = of_validation(run.task.metrics, run.train.best_by)
            name, words = str(by.validated), f"validation {by.validated_words}"
            chosen = {"by": words, name: state.best, "epoch": round(state.best_epoch, 3)}
            tested |= {"weights": "best", "selection": chosen}
        with (
            closing(run.test_loader(lists, world)) as loader,
            bad_videos.named(run_dir, loader),
            explained_test(run, world),
        ):
            test = evaluate(model, loader, task=run.task, device=world.device, precision=run.precision, stop=stop)
        if world.is_main:
            tested |= {"num_missing": test.num_missing, "seconds": round(state.seconds + seconds_since_start(), 1)}
            left = test.predictions(loader.dataset, lists.classes)
            predictions.write(run_dir / predictions.TEST, left, run.predictions)
            if not run.train.eval_every:  # no validation has: these are the weights that were saved
                checkpoint.set_temperature(run_dir / BEST, fit_temperature(run.task, test.log_probability, test.label))
            found = results.collect(run, settings, world, model, lists, left, gmacs, **tested)
            files.write_json(run_dir / "results.json", found)
            tracked.attach(found)
            results.show(found, run_dir)


def fit(
    run: Run, settings: Mapping[str, Any], model: VideoClassifier, lists: Lists, hashes: Mapping[str, str],
    world: World, stop: Stop, clips: int, log: Log,
) -> State:  # fmt: skip
    """Train on the lists, or go on; leave in the model what is to be tested, unless that is the best."""
    run_dir = run.directory()
    with ExitStack() as stack:
        train_loader = stack.enter_context(closing(run.train_loader(lists, world)))
        val_loader = stack.enter_context(closing(run.val_loader(lists, world)))
        stack.enter_context(bad_videos.named(run_dir, train_loader, val_loader))
        if world.is_main:
            print(introduction.of_loading(train_loader, val_loader), flush=True)

        newest = list[Evaluation]()

        def validated(epoch: float, val: Evaluation) -> None:
            newest[:] = [val]
            left = val.predictions(val_loader.dataset, lists.classes, epoch=epoch)
            predictions.write(run_dir / predictions.VALIDATION, left, run.predictions)

        def save_best() -> None:
            temperature = fit_temperature(run.task, newest[0].log_probability, newest[0].label) if newest else None
            checkpoint.save_weights(run_dir / BEST, model, settings, lists.classes, run.precision, temperature)

        caller = Caller(
            run_dir=run_dir,
            identity=hashes,
            split={"clips": clips, "accumulate": settings["train"]["accumulate"]},
            save_best=save_best,
            validated=validated,
            log=log,
        )
        return train(model, train_loader, val_loader, run=run, caller=caller, world=world, stop=stop)


def introduce(run: Run, model: VideoClassifier, gmacs: float, num_classes: int, world: World) -> None:
    """Say what is going to be trained, and what of the device's memory it takes, or that this is too little."""
    memory, too_much = expected_memory(run, num_classes, world.size, free_bytes(world.device))
    print(introduction.of_model(model, gmacs), memory, sep="\n", flush=True)
    if too_much is not None:
        say(f"warning: {too_much}")
