"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from aim.clock import seconds_since_start
from aim.data.lists import read_lines
from aim.data.loader import Batch, Loader
from aim.engine import checkpoint, distributed
from aim.engine.distributed import Interrupted, World
from aim.engine.evaluation import evaluate
from aim.engine.mixing import mix
from aim.engine.optim import Optim, adamw, learning_rate, set_learning_rate
from aim.engine.settings import Precision, Training, autocast
from aim.engine.tracking import Log, Report
from aim.errors import UserError
from aim.models.classifier import VideoClassifier


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
