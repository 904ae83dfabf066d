"""The first lines that a run prints: where, on what device and data, how long, with what."""

from collections.abc import Mapping

from aim.data.lists import Lists, Video
from aim.data.loading.loader import Loader
from aim.engine.machine.distributed import World
from aim.engine.run import content, results
from aim.engine.run.settings import Run
from aim.models.classifier import VideoClassifier
from aim.models.compiling import is_compiled
from aim.models.freeze import num_parameters

WIDTH = 80  # columns; of the classes as many are named as fit


def of_run(run: Run, lists: Lists, data: Mapping[str, str], world: World) -> str:
    """What is known before the model is built; `data` has the hashes of the lists."""
    clips, parts = run.train.clips_at_once(world.size), run.train.accumulate
    divided = f" ({world.size} ranks x {parts} parts x {clips})" if world.size * parts > 1 else ""
    steps = run.train.steps_per_epoch(len(lists.train))
    lines = [
        f"{run.name} in {run.directory()}",
        f"device: {world.size} x {results.device_name(world.device)}, {run.precision}",
        f"data: {len(lists.train)} training videos{of_share(run.data.share)} ({data['train_hash'][:8]}), "
        f"{len(lists.val)} validation ({data['data_hash'][:8]}){of_third(lists, data)}",
        of_classes(lists),
        f"steps: {steps} an epoch, {steps * run.train.epochs} in all, of {run.train.batch_size} clips{divided}",
    ]
    if lists.split:
        lines.append(f"validation: {lists.split}")
    if chosen := results.choices(run, lists):
        lines.append(f"test: on the validation videos, which choose {' and '.join(chosen)}: {content.BIASED}")
    return "\n".join(lines)


def of_share(share: float) -> str:
    """That it isn't all of the training videos."""
    return "" if share == 1 else f", a share of {share:g}"


def of_third(lists: Lists, data: Mapping[str, str]) -> str:
    """That there is a list for the test alone."""
    return "" if lists.third is None else f", {len(lists.third)} test ({data['test_hash'][:8]})"


def of_classes(lists: Lists) -> str:
    """The classes, each with its videos in training, validation and, where it has a list of its own, test."""
    parts = [counts(videos, len(lists.classes)) for videos in lists.parts.values()]
    each = [f"{name} {'+'.join(str(part[i]) for part in parts)}" for i, name in enumerate(lists.classes)]
    words, text = "+".join(("training", "validation", "test")[: len(parts)]), ""
    for named in range(len(each), -1, -1):
        more = [f"and {len(each) - named} more"] if named < len(each) else []
        text = f"{len(each)} classes, {words}: {', '.join(each[:named] + more)}"
        if len(text) <= WIDTH:
            break
    return text


def counts(videos: list[Video], num_classes: int) -> list[int]:
    """How many videos each class has."""
    found = [0] * num_classes
    for video in videos:
        found[video.label] += 1
    return found


def of_model(model: VideoClassifier, gmacs: float) -> str:
    """The trunk, and what is trained; `gmacs` are of one view."""
    tuned, total = num_parameters(model)
    compiled = "\ncompiled: its blocks, in the first steps, which take minutes" if is_compiled(model) else ""
    return (
        f"model: {model.trunk_name} ({model.fingerprint[:8]})\n"
        f"tuned: {tuned / 1e6:.2f} of {total / 1e6:.2f} M parameters; {gmacs:.3g} GMACs a view{compiled}"
    )


def of_loading(train: Loader, val: Loader) -> str:
    """How a rank reads its videos, and the shared memory that this takes."""
    if not train.workers:
        return "loading: in the training process, nothing ahead (data.workers=0)"
    mebibytes = (train.shared_bytes + val.shared_bytes) / 2**20
    processes = "1 process" if train.workers == 1 else f"{train.workers} processes"
    return f"loading: {processes} a rank, {train.blocks - 1} batches ahead in {mebibytes:.0f} MiB of shared memory"
