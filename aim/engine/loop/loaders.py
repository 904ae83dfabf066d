"""The loaders of a training: clips of its training and validation videos, or features of them."""

from collections.abc import Iterator
from contextlib import closing, contextmanager

from aim.data.loading.loader import Loader
from aim.engine.loop.frozen import on_features
from aim.engine.run import introduction
from aim.engine.run.job import Job
from aim.engine.run.settings import Run
from aim.engine.telling import bad_videos
from aim.ground.signals import Stop
from aim.models.classifier import VideoClassifier


@contextmanager
def loaders(job: Job[Run], model: VideoClassifier, stop: Stop) -> Iterator[tuple[Loader, Loader]]:
    """The loaders of training and validation, closed after the block, which then lists the bad videos."""
    run, world, lists = job.run, job.world, job.lists
    with (
        on_features(run.train_dataset(lists), model, run, world, stop) as videos,
        on_features(run.val_dataset(lists), model, run, world, stop) as val_videos,
        closing(run.train_loader(videos, world)) as train_loader,
        closing(run.eval_loader(val_videos, world)) as val_loader,
        bad_videos.named(job.run_dir, train_loader, val_loader),
    ):
        if world.is_main:
            print(introduction.of_loading(train_loader, val_loader), flush=True)
        yield train_loader, val_loader
