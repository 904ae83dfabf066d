"""The first lines of a run: folder, device, data, length and model."""

import statistics
import textwrap
from collections import Counter
from collections.abc import Mapping

import torch

from aim.data.lists import Lists, Video
from aim.data.loading.loader import Loader
from aim.engine.machine.distributed import World
from aim.engine.run import content, results
from aim.engine.run.settings import Run
from aim.engine.scores.balancing import UNBALANCED
from aim.engine.scores.guessing import baseline
from aim.ground.amounts import tuned_of
from aim.models.classifier import VideoClassifier
from aim.models.compiling import is_compiled
from aim.models.freeze import num_parameters

WIDTH = 80  # columns
HARD_SPACE = "\u00a0"  # at which no line is broken
MOST_NAMED = 60  # classes that are all named
FEWEST = 3  # classes that are named of more


def of_run(run: Run, lists: Lists, data: Mapping[str, str], world: World) -> str:
    """The lines before the model is built; `data` has the hashes of the lists."""
    clips, parts = run.train.clips_at_once(world.size), run.train.accumulate
    divided = f" ({world.size} ranks x {parts} parts x {clips})" if world.size * parts > 1 else ""
    steps = run.train.steps_per_epoch(len(lists.train))
    share = "" if run.data.share == 1 else f", a share of {run.data.share:g}"
    third = "" if lists.third is None else f", {len(lists.third)} test ({data['test_hash'][:8]})"
    lines = [
        f"{run.name} in {run.directory()}",
        f"device: {world.size} x {results.device_name(world.device)}, {run.precision}",
        *([f"data: {lists.split}"] if lists.split else []),
        f"videos: {len(lists.train)} training{share} ({data['train_hash'][:8]}), "
        f"{len(lists.val)} validation ({data['data_hash'][:8]}){third}",
        of_classes(lists),
        *of_balance(run, lists),
        *of_one_answer(run, lists),
        f"steps: {steps} an epoch, {steps * run.train.epochs} in all, of {run.train.batch_size} clips{divided}",
    ]
    if run.published is not None:
        lines.append(f"published: {run.published.top1:.1f} % top-1 ({run.published.source})")
    if chosen := results.standing(run, lists)["chose"]:
        lines.append(f"test: on the validation videos, which choose {' and '.join(chosen)}: {content.BIASED}")
    return "\n".join(lines)


def of_classes(lists: Lists) -> str:
    """The classes, each with its videos in training, validation and, where it has a list of its own, test.

    Of many classes it's said how many videos they have, and which have the fewest to learn from.
    """
    parts = [counts(videos, len(lists.classes)) for videos in lists.parts.values()]
    words = ("training", "validation", "test")[: len(parts)]
    if len(lists.classes) > MOST_NAMED:
        ranges = [
            f"{min(part)} to {max(part)} (median {statistics.median_low(part)}) {word}"
            for word, part in zip(words, parts, strict=True)
        ]
        least = sorted(range(len(lists.classes)), key=lambda i: parts[0][i])[:FEWEST]
        fewest = ", ".join(f"{lists.classes[i]} {parts[0][i]}" for i in least)
        return f"{len(lists.classes)} classes, videos of each: {', '.join(ranges)}; fewest: {fewest}"
    each = [f"{name} {'+'.join(str(part[i]) for part in parts)}" for i, name in enumerate(lists.classes)]
    text = f"{len(each)} classes, {'+'.join(words)}: {', '.join(name.replace(' ', HARD_SPACE) for name in each)}"
    lines = textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(HARD_SPACE, " ")


def of_balance(run: Run, lists: Lists) -> list[str]:
    """How classes with few training videos are made up for; or that they could be, where others have many more."""
    if run.train.balance != "none":
        by = "" if run.train.balance == "logits" else f" by {run.train.balance_by}"
        return [f"balance: {run.train.balance}{by}; train.balance=none learns the classes as common as they are"]
    found = counts(lists.train, len(lists.classes))
    least, most = min((n, i) for i, n in enumerate(found)), max((n, -i) for i, n in enumerate(found))
    if most[0] < UNBALANCED * max(1, least[0]):
        return []
    several = run.task.several
    return [
        f"unbalanced: {lists.classes[-most[1]]} has {most[0]} training videos, {lists.classes[least[1]]} has "
        f"{least[0]}; "
        f"train.balance={'sample or loss' if several else 'sample, loss or logits'} makes up for that, and "
        f"train.best_by={'macro_f1' if several else 'mean_class'} chooses by all classes alike"
    ]


def of_one_answer(run: Run, lists: Lists) -> list[str]:
    """The scores of a validation where all of its videos get one answer: less than that is nothing learnt."""
    if not run.train.eval_every:
        return []
    labels = torch.from_numpy(run.val_dataset(lists).labels)
    found = baseline(run.task, labels, len(lists.classes))
    each = (f"{x.words} {x.text(found[x.name])} ({x.constant_words})" for x in run.task.metrics if x.main)
    return [f"one answer to all validation videos has: {', '.join(each)}"]


def counts(videos: list[Video], num_classes: int) -> list[int]:
    """How many videos each class has."""
    found = Counter(label for video in videos for label in video.labels)
    return [found[label] for label in range(num_classes)]


def of_model(model: VideoClassifier, gmacs: float) -> str:
    """The trunk, and the trained parts; `gmacs` are of one view."""
    tuned, total = num_parameters(model)
    compiled = "\ncompiled: its blocks, in the first steps, which take minutes" if is_compiled(model) else ""
    order = ", which sees the order of frames" if model.backbone.order_aware else ""
    return (
        f"model: {model.trunk_name} ({model.fingerprint[:8]}){order}\n"
        f"tuned: {tuned_of(tuned, total)} parameters; {gmacs:.3g} GMACs a view{compiled}"
    )


def of_loading(train: Loader, val: Loader) -> str:
    """How a rank reads its videos, and the shared memory that this takes."""
    if train.dataset.in_process:
        return "loading: features, which stay in this process's memory"
    if not train.workers:
        return "loading: in the training process, nothing ahead (data.workers=0)"
    mebibytes = (train.shared_bytes + val.shared_bytes) / 2**20
    processes = "1 process" if train.workers == 1 else f"{train.workers} processes"
    return f"loading: {processes} a rank, {train.blocks - 1} batches ahead in {mebibytes:.0f} MiB of shared memory"
