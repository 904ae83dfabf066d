"""The test at the end of a training, or of a checkpoint: all views of every video, and the files that it leaves."""

from contextlib import closing
from typing import Any

from aim.data.dataset import VideoDataset
from aim.engine.loop.evaluation import Evaluation, evaluate
from aim.engine.loop.faults import explained_test
from aim.engine.run import results
from aim.engine.run.job import Job
from aim.engine.run.settings import Run
from aim.engine.scores import predictions
from aim.engine.scores.calibration import Calibration
from aim.engine.telling import bad_list, bad_videos
from aim.ground import files
from aim.ground.errors import say
from aim.ground.signals import Stop
from aim.models.classifier import VideoClassifier


def test(
    job: Job[Run],
    model: VideoClassifier,
    dataset: VideoDataset,
    stop: Stop,
    known: Evaluation | None,
    calibration: Calibration,
) -> tuple[Evaluation, predictions.Predictions]:
    """Score the model on the videos of `dataset`, unless that is `known`; rank 0 leaves `predictions.npz`.

    The thresholds of several labels a video are those of the checkpoint's `calibration`.
    """
    run, world = job.run, job.world
    with (
        closing(run.eval_loader(dataset, world)) as loader,
        bad_videos.named(job.run_dir, loader),
        explained_test(run, world),
    ):
        found = known or evaluate(model, loader, task=run.task, device=world.device, precision=run.precision, stop=stop)
    left = found.predictions(loader.dataset, job.lists.classes, **calibration.about(run.task))
    if world.is_main:
        predictions.write(job.run_dir / predictions.TEST, left, run.predictions)
    return found, left


def leave(
    job: Job[Run], model: VideoClassifier, left: predictions.Predictions, gmacs: float, **more: Any
) -> dict[str, Any]:
    """Write and show `results.json`; `more` is known to the caller alone."""
    found = results.collect(job, model, left, gmacs, **more)
    files.write_json(job.run_dir / "results.json", found)
    results.show(found, job.run_dir)
    if bad := bad_list.read(job.run_dir):
        say(f"{len(bad)} videos of all lists could not be read and were skipped: {job.run_dir / bad_list.NAME}")
    return found
