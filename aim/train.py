"""Train adapters in a frozen trunk, and test them.

    python -m aim.train +experiment=demo
    python -m aim.train +experiment=k400 adapter.ratio=0.125 train.batch_size=128
    torchrun --nproc-per-node=8 -m aim.train +experiment=k400      # the same ranks, started by torchrun

The same command continues an interrupted run. Exit codes: 0 done, 2 something to mend, 75 interrupted and saved.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from omegaconf import OmegaConf
from omegaconf.dictconfig import DictConfig
from torch import Tensor

from aim import checkpoint, config, distributed, results
from aim.data.lists import data_hash, read_lines
from aim.data.loader import Batch, Loader
from aim.distributed import Interrupted, World
from aim.errors import UserError
from aim.eval import evaluate
from aim.mixing import mix
from aim.models.classifier import VideoClassifier
from aim.optim import Optim, adamw, learning_rate, set_learning_rate
from aim.run import Precision, Run, Training, autocast
from aim.tracking import Log, Report, seconds_since_start


def main(cfg: DictConfig) -> None:
    """Check what can be checked, start the ranks if there are to be several, train, test."""
    distributed.refuse_bare_slurm("aim.train")
    settings = config.resolve(cfg)
    run = config.build(settings, Run)
    run_dir = run.directory()
    with distributed.interruptible(), ExitStack() as stack:
        if not distributed.is_launched():
            ranks = distributed.num_ranks(run.device, run.gpus)
            if was_finished(run_dir, settings):
                return
            preflight(run, run_dir, settings, ranks)
            if distributed.rank() == 0:
                stack.enter_context(checkpoint.locked(run_dir))
            if ranks > 1 and not distributed.is_rank():
                sys.exit(distributed.launch("aim.train", config.task_overrides(), ranks))
        world = stack.enter_context(distributed.start(run.device, run.data.workers))
        train_and_test(run, settings, run_dir, world)


def was_finished(run_dir: Path, settings: Mapping[str, Any]) -> bool:
    """Show the result of a run that is already done. Raises UserError if the folder holds another run."""
    saved = run_dir / "config.yaml"
    if saved.exists() and any((run_dir / name).exists() for name in ("last.pt", "results.json")):
        before = config.experiment_settings(config.load(saved))
        now = config.experiment_settings(settings)
        changes = [
            f"{key} was {before.get(key, 'absent')}, is {now.get(key, 'absent')}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        if changes:
            raise UserError(
                f"{run_dir} holds a run of another configuration: {'; '.join(changes[:5])}"
                + (f" and {len(changes) - 5} more" if len(changes) > 5 else "")
                + "; set run_dir=DIR, or delete the folder"
            )
    done = run_dir / "results.json"
    if not done.exists():
        return False
    if distributed.rank() == 0:
        results.show(json.loads(done.read_text(encoding="utf-8")), run_dir)
        print(f"This run was already finished; to train again, delete {run_dir} or set run_dir=DIR.")
    return True


def preflight(run: Run, run_dir: Path, settings: Mapping[str, Any], ranks: int) -> None:
    """Find every problem before ranks start and anything is written; raise them as one UserError."""
    problems = []

    def check_last() -> None:
        if (run_dir / "last.pt").exists():
            checkpoint.load_last(run_dir / "last.pt")

    def check_init() -> None:
        if run.init is not None:
            checkpoint.read_weights(run.init)

    checks = (
        lambda: run.local_batch_size(ranks),
        run.check_augmentation,
        run.backbone.check_weights,
        check_init,
        check_last,
        run.load_lists,
    )
    for check in checks:
        try:
            check()
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("; ".join(problems))
    run_dir.mkdir(parents=True, exist_ok=True)
    text = OmegaConf.to_yaml(OmegaConf.create(dict(settings)))
    checkpoint.write_atomically(run_dir / "config.yaml", lambda file: checkpoint.write_text(file, text))


def train_and_test(run: Run, settings: Mapping[str, Any], run_dir: Path, world: World) -> None:
    """Build the model and the loaders, train or continue, test with the experiment's protocol, leave results.json."""
    lists = run.load_lists()
    with world.first_on_node():
        model = run.model(len(lists.classes)).to(world.device)
    if run.init is not None:
        saved = checkpoint.read_weights(run.init)
        checkpoint.load_weights(model, saved, head=saved.classes == lists.classes)
    distributed.broadcast_(list(model.state_dict().values()))
    with ExitStack() as stack:
        log: Log = stack.enter_context(run.tracker.open(run_dir, run.name, settings)) if world.is_main else silent
        train_loader = stack.enter_context(closing(run.train_loader(lists, world)))
        val_loader = stack.enter_context(closing(run.val_loader(lists, world)))
        try:
            state = train(
                model,
                train_loader,
                val_loader,
                training=run.train,
                optim=run.optim,
                precision=run.precision,
                seed=run.seed,
                run_dir=run_dir,
                world=world,
                save_best=lambda: checkpoint.save_weights(run_dir / "best.safetensors", model, settings, lists.classes),
                identity={"data": data_hash([*lists.train, *lists.val], lists.classes), "trunk": model.fingerprint},
                log=log,
            )
        except UserError:
            write_bad_videos(run_dir, train_loader.bad)  # among them what stopped the run
            raise
    tested: dict[str, Any] = {"weights": "last"}
    if run.test == "best":
        checkpoint.load_weights(model, checkpoint.read_weights(run_dir / "best.safetensors"))
        chosen = {"by": "validation top-1, one view", "top1": state.best_top1, "epoch": state.best_epoch}
        tested = {"weights": "best", "selection": chosen}
    with closing(run.test_loader(lists, world)) as loader, distributed.stop_signals() as stop:
        test = evaluate(model, loader, device=world.device, precision=run.precision, stop=stop)
    if world.is_main:
        tested |= {"num_missing": test.num_missing, "seconds": round(state.seconds + seconds_since_start(), 1)}
        found = results.collect(run, settings, world, model, lists, test.counts, **tested)
        checkpoint.write_json(run_dir / "results.json", found)
        results.show(found, run_dir)


def silent(step: int, values: Mapping[str, float]) -> None:
    """The tracker of the other ranks."""


@dataclass
class State:
    """How far a run is; with the weights and the optimizer's moments all that `last.pt` needs."""

    step: int = 0
    validated: int = 0  # epochs
    best_top1: float = -1.0  # of the validations so far, in percent
    best_epoch: int = 0
    seconds: float = 0.0  # of the processes before this one
    window: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])  # loss, weight, hits since the last log line


def train(
    model: VideoClassifier,
    loader: Loader,
    val_loader: Loader,
    *,
    training: Training,
    optim: Optim,
    precision: Precision,
    seed: int,
    run_dir: Path,
    world: World,
    save_best: Callable[[], None],
    identity: Mapping[str, str],
    log: Log,
) -> State:
    """Train what is trainable to the last epoch, from where `last.pt` stands.

    Everything that varies with time is a function of the step, so a run that was killed and continued ends with the
    weights of an unbroken one. Raises Interrupted after a signal, UserError for a loss that is not finite.
    """
    optimizer = adamw(model, optim)
    state = restore(run_dir / "last.pt", model, optimizer, identity)
    steps_per_epoch = math.ceil(loader.steps_per_epoch / training.accumulate)
    total = steps_per_epoch * training.epochs
    unread: Tensor | None = None  # the newest step's sums, read one step later so that a GPU never waits for us
    saved_at, stopping = time.monotonic(), False

    with ExitStack() as stack:
        stop = stack.enter_context(distributed.stop_signals())
        report = Report(
            run_dir, log, step=state.step, total=total, steps_per_epoch=steps_per_epoch,
            batch_size=training.batch_size, visible=world.is_main,
        )  # fmt: skip
        stack.enter_context(report)

        def save() -> None:
            nonlocal saved_at
            saved_at = time.monotonic()
            if world.is_main:
                checkpoint.save_last(run_dir / "last.pt", snapshot(state, model, optimizer, identity))

        def name_bad_videos() -> None:
            ranks = distributed.gather(loader.bad)
            if world.is_main:
                write_bad_videos(run_dir, {path: reason for bad in ranks for path, reason in bad.items()})

        def settle() -> None:
            """Read the newest step's sums."""
            nonlocal unread, stopping
            if unread is None:
                return
            (*sums, stops), unread = unread.tolist(), None
            if not math.isfinite(sums[0]):
                raise UserError(
                    f"the loss became {sums[0]} at step {state.step}; use a lower optim.lr or precision=fp32 "
                    f"(that is another run), or repeat the command to continue from the last save in {run_dir}"
                )
            state.window = [old + new for old, new in zip(state.window, sums, strict=True)]
            stopping = stops > 0

        for epoch in range(state.step // steps_per_epoch, training.epochs + 1):
            if epoch > state.validated and state.step == epoch * steps_per_epoch:
                settle()
                save()
                if due(training.eval_every, epoch, training.epochs):
                    val = evaluate(model, val_loader, device=world.device, precision=precision, stop=stop, title="val")
                    if val.counts.top1 > state.best_top1:
                        state.best_top1, state.best_epoch = val.counts.top1, epoch
                    report.validated(state.step, epoch, val.counts.top1, state.best_epoch)
                if world.is_main and (state.best_epoch == epoch or not training.eval_every):
                    save_best()
                name_bad_videos()
                state.validated = epoch
                save()
                report.resume_clock(loader.waited)
            if epoch == training.epochs:
                break
            skipped = (state.step - epoch * steps_per_epoch) * training.accumulate
            for parts in chunks(loader.epoch(epoch, start=skipped), training.accumulate):
                lr = learning_rate(state.step, optim, steps_per_epoch=steps_per_epoch, epochs=training.epochs)
                set_learning_rate(optimizer, lr)
                torch.manual_seed(seed_of(seed, state.step, world.rank))
                sums = train_step(model, optimizer, parts, training, precision, world.device, stop=bool(stop))
                settle()
                unread, state.step = sums, state.step + 1
                if state.step % training.log_every == 0:
                    settle()
                    report.line(state.step, lr, loader.waited, state.window)
                    state.window = [0.0, 0.0, 0.0]
                report.tick(state.step)
                if stopping or time.monotonic() - saved_at > 60 * training.save_minutes:
                    settle()
                    save()
                if stopping:
                    name_bad_videos()
                    raise Interrupted(f"stopped by a signal; saved at step {state.step} of {total} in {run_dir}")
    return state


def train_step(
    model: VideoClassifier,
    optimizer: torch.optim.Optimizer,
    parts: Iterable[Batch],
    training: Training,
    precision: Precision,
    device: torch.device,
    *,
    stop: bool,
) -> Tensor:
    """One step on this rank's parts of the global batch; returns its global sums: loss, weight, hits, ranks to stop.

    The loss is the weighted sum over the global weight, so a video that could not be read counts for nothing.
    """
    optimizer.zero_grad()
    sums = torch.zeros(4, device=device)
    sums[3] = float(stop)
    for batch in parts:
        video, label = batch.video.to(device, non_blocking=True), batch.label.to(device)
        weight = batch.weight.to(device)
        clips = video.shape[1]
        video = model.preprocess(rearrange(video, "b v t c h w -> (b v) t c h w"))
        label, weight = label.repeat_interleave(clips), weight.repeat_interleave(clips)
        video, target, weight = mix(video, label, weight, model.head.out_features, training.mixup, training.cutmix)
        with autocast(device, precision):
            logits = model(video)
        losses = F.cross_entropy(logits.float(), target, reduction="none", label_smoothing=training.label_smoothing)
        loss = (losses * weight).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        hits = ((logits.argmax(1) == label) * weight).sum()
        sums[:3] += torch.stack([loss.detach(), weight.sum(), hits])
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    distributed.sum_([*gradients, sums])
    torch._foreach_div_(gradients, sums[1].clamp(min=1.0))
    optimizer.step()
    return sums


def snapshot(
    state: State, model: VideoClassifier, optimizer: torch.optim.Optimizer, identity: Mapping[str, str]
) -> dict[str, Any]:
    """The content of `last.pt`."""
    now = replace(state, seconds=state.seconds + seconds_since_start())
    tensors = checkpoint.trained_tensors(model)
    return {**asdict(now), "model": tensors, "optimizer": optimizer.state_dict(), "identity": dict(identity)}


def restore(path: Path, model: VideoClassifier, optimizer: torch.optim.Optimizer, identity: Mapping[str, str]) -> State:
    """Continue from `last.pt`, or begin. Raises UserError if it was trained on other data or another trunk."""
    if not path.exists():
        return State()
    saved = checkpoint.load_last(path)
    for key, value in identity.items():
        if saved["identity"].get(key) != value:
            raise UserError(f"{path} was trained with another {key} ({saved['identity'].get(key)}, now {value}); "
                            "set run_dir=DIR, or delete it to train from the start")  # fmt: skip
    checkpoint.put_tensors(model, saved["model"], str(path))
    optimizer.load_state_dict(saved["optimizer"])
    return State(**{f.name: saved[f.name] for f in fields(State)})


def write_bad_videos(run_dir: Path, bad: Mapping[str, str]) -> None:
    """Name in `bad_videos.txt` what could not be read and why, beside what stands there already."""
    file = run_dir / "bad_videos.txt"
    if bad:
        before = read_lines(file) if file.exists() else []
        now = {path: " ".join(reason.split()) for path, reason in bad.items()}
        lines = dict(line.split("\t", 1) for line in before) | now
        text = "".join(f"{path}\t{reason}\n" for path, reason in sorted(lines.items()))
        checkpoint.write_atomically(file, lambda file: checkpoint.write_text(file, text))


def due(every: int, epoch: int, epochs: int) -> bool:
    """Whether something that happens every so many epochs (0: never), and after the last, happens after this one."""
    return every > 0 and (epoch % every == 0 or epoch == epochs)


def seed_of(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout, drop path and mixing on a rank."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def chunks(batches: Iterator[Batch], size: int) -> Iterator[Iterator[Batch]]:
    """Runs of `size` batches, the last one maybe shorter, none of them held back."""
    for first in batches:
        yield chain([first], islice(batches, size - 1))


if __name__ == "__main__":
    config.entrypoint(main, "config")
