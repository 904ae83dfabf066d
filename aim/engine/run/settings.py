"""The settings of a run, as in configs/config.yaml, and the objects built from them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from omegaconf import OmegaConf

from aim.adapters.interface import AdapterConfig
from aim.data.dataset import Data, VideoDataset
from aim.data.lists import Lists, Video
from aim.data.loading.judge import OnError
from aim.data.loading.loader import Loader
from aim.data.loading.order import LISTED, Order, Shuffled, Weighted
from aim.data.readers import auto
from aim.data.readers.interface import Reader
from aim.data.sampling import Clip
from aim.data.stored.features import GB
from aim.data.transforms import Augment, Views
from aim.engine.machine import distributed
from aim.engine.machine.distributed import World
from aim.engine.machine.feeding import registered
from aim.engine.machine.hardware import Device, Precision, check_fp8, resolve_device, suit
from aim.engine.run import naming
from aim.engine.run.recipe import Optim, Published, Training
from aim.engine.scores.balancing import video_weights
from aim.engine.scores.metrics import of_validation
from aim.engine.scores.predictions import Form
from aim.engine.scores.tasks import Task
from aim.engine.telling.tracking import Tracker
from aim.ground import config, files, folds
from aim.ground.errors import UserError, say
from aim.ground.marks import Before, Mark, marked
from aim.ground.paths import path_of
from aim.models.classifier import Backbone, VideoClassifier, build
from aim.models.compiling import compile_blocks
from aim.models.zero_shot import check_pooled
from aim.weights import text


@dataclass(frozen=True)
class Run:
    """The values of configs/config.yaml: the settings of `aim.train`, and the base of a test and a benchmark."""

    name: Annotated[str, Mark.TRAINING]
    run_dir: Annotated[str | None, Mark.MACHINE, Mark.SILENT, Mark.PATH, Mark.COMMAND]
    seed: Annotated[int, Mark.TRAINING, Mark.ELSEWHERE]
    device: Annotated[Device, Mark.MACHINE, Mark.COMMAND]
    gpus: Annotated[int | None, Mark.MACHINE, Mark.COMMAND]
    restarts: Annotated[int, Mark.MACHINE, Mark.SILENT, Mark.COMMAND, Before(3)]
    precision: Annotated[Precision, Mark.TRAINING, Mark.ELSEWHERE]
    debug: Annotated[bool, Mark.MACHINE, Mark.SILENT, Mark.COMMAND]
    init: Annotated[str | None, Mark.CONTENT, Mark.IDLE, Mark.PATH, Mark.COMMAND]
    clip: Clip
    augment: Annotated[Augment, Mark.TRAINING, Mark.IDLE]
    views: Views
    val_views: Annotated[Views, Mark.TRAINING, Mark.IDLE]
    test: Annotated[Literal["last", "best"], Mark.TRAINING, Mark.IDLE]
    predictions: Annotated[Form, Mark.MACHINE, Mark.SILENT, Mark.COMMAND, Before("npz")]
    train: Annotated[Training, Mark.TRAINING]
    optim: Annotated[Optim, Mark.TRAINING, Mark.IDLE]
    published: Annotated[Published | None, Mark.MACHINE, Mark.SILENT, Before(None)]
    dropout: Annotated[float, Mark.MODEL]
    head: Annotated[Literal["random", "text"], Mark.TRAINING, Mark.IDLE, Before("random")]
    prompts: Annotated[Sequence[str] | None, Mark.TRAINING, Mark.IDLE, Before(None)]
    backbone: Annotated[Backbone, Mark.MODEL]
    adapter: Annotated[AdapterConfig, Mark.MODEL]
    data: Data
    reader: Annotated[Reader, Mark.ELSEWHERE]
    tracker: Annotated[Tracker, Mark.MACHINE, Mark.COMMAND]
    task: Annotated[Task, Mark.TRAINING, Before({"kind": "single_label"})]

    def __post_init__(self) -> None:
        of_validation(self.task.metrics, self.train.best_by)
        if self.train.balance == "logits" and self.task.several:
            raise UserError("train.balance=logits is of one label a video; use train.balance=loss or sample")

    def directory(self, verb: str = "", name: str | None = None, overrides: Sequence[str] | None = None) -> Path:
        """Where a verb writes: `run_dir`, or runs/ and the experiment's name with the overrides that change results."""
        if self.run_dir is not None:
            return path_of(self.run_dir)
        own_data, machine = self.data.num_classes is None, marked(Mark.MACHINE)
        given = config.task_overrides() if overrides is None else overrides
        fold = [] if self.data.fold is None else [folds.name_of(self.data.fold)]  # each in the folder of their sweep
        given = [text for text in given if not text.startswith("data.fold=")]
        return Path("runs", verb, naming.run_name(name or self.name, given, machine, own_data=own_data), *fold)

    def placed(self) -> Self:
        """This run on the device that `auto` means here."""
        return replace(self, device=resolve_device(self.device))

    def load_lists(self) -> Lists:
        """The videos and classes, checked; raises UserError if they are missing or disagree."""
        return self.data.load(many=self.task.several)

    def settled_reader(self) -> Reader:
        """The reader that `auto` means, on all ranks the one of rank 0, which says which it is."""
        if not isinstance(self.reader, auto.Auto):
            return self.reader
        reader, why = self.reader.of(self.data.folder)
        kind, why = distributed.share((type(reader), why))  # a reader itself may hold what no other rank can open
        say(f"reader=auto is {why}")
        return kind()

    def checks(self) -> tuple[Callable[[], object], ...]:
        """The checks of a training before its data is read; each raises UserError."""
        return (
            self.check_augmentation,
            self.check_test,
            self.check_features,
            self.check_text,
            self.check_several,
            self.tracker.check,
            self.backbone.check_weights,
        )

    def check_augmentation(self) -> None:
        """Refuse to mirror clips whose labels say left or right."""
        if self.data.directional and self.augment.flip:
            raise UserError(
                f"augment.flip={self.augment.flip}, but this data's labels tell left from right; use augment.flip=0"
            )

    def check_precision(self) -> None:
        """Refuse fp8 where this machine or this model has no use for it; the model is one of shapes alone."""
        if self.precision == "fp8":
            check_fp8(self.device)
            if self.train.shard:
                raise UserError("train.shard=true spreads no weights of precision=fp8; use precision=bf16")
            self.shape_alone()

    def check_test(self) -> None:
        """Refuse to test the best of no validations."""
        if self.test == "best" and self.train.eval_every == 0:
            raise UserError("test=best with train.eval_every=0: there is no validation to choose by; use test=last")

    def check_features(self) -> None:
        """Refuse to keep features of a trunk that is trained, or mixed pixels; the model is one of shapes alone."""
        if self.train.features != "cached":
            return
        if not self.shape_alone().reads_frozen:
            raise UserError(
                "train.features=cached, but this adapter changes the trunk, whose features differ after each step; "
                "leave it out, or use adapter=none, attentive_probe, probe or side"
            )
        if self.train.clips_per_video > self.train.draws:
            raise UserError(
                f"train.clips_per_video={self.train.clips_per_video} clips of a video in a step are more than the "
                f"train.draws={self.train.draws} whose features are kept; use train.draws={self.train.clips_per_video} "
                "or more"
            )
        if not self.takes_features:
            raise UserError(
                "train.features=cached with train.mixup, train.cutmix or train.shard: pixels are mixed and trunks "
                "sharded where they are computed; leave one out"
            )

    def check_several(self) -> None:
        """Refuse several rates or decays of a sharded model, which couldn't begin again for each."""
        if self.optim.several and self.train.shard:
            raise UserError("train.shard=true with several optim.lr or weight_decay: use one number each, or no shard")

    def check_text(self) -> None:
        """Refuse a head from class names where there is no text tower, or the head reads other features."""
        if self.head != "text":
            if self.prompts is not None:
                raise UserError("prompts are of head=text; add that, or leave them out")
            return
        text.check(self.backbone.text, self.backbone.weights, self.prompts)
        check_pooled(self.shape_alone())

    @property
    def takes_features(self) -> bool:
        """Whether nothing in a step needs the pixels, or the trunk."""
        return not (self.train.mixup or self.train.cutmix or self.train.shard)

    def shape_alone(self) -> VideoClassifier:
        """The model for one class without memory, and without the trunk's weights."""
        with torch.device("meta"):
            return replace(self, backbone=replace(self.backbone, weights="random")).model(1)

    def kept_gb(self, videos: int) -> float:
        """The size on disk, in GB, of the features of so many training videos; infinite if the trunk is trained.

        The model is one of shapes alone.
        """
        with torch.device("meta"):
            model = replace(self, precision="fp32").shape_alone()
            if not model.reads_frozen:
                return math.inf
            features = model.frozen(torch.empty(1, 3, model.num_frames, model.size, model.size))
        return videos * self.train.draws * features.numel() * (4 if self.precision == "fp32" else 2) / GB

    def model(self, num_classes: int) -> VideoClassifier:
        """The adapted, frozen model, its new weights drawn from `seed`."""
        torch.manual_seed(self.seed)
        model = build(
            self.backbone,
            self.adapter,
            num_classes=num_classes,
            num_frames=self.clip.num_frames,
            size=self.clip.size,
            dropout=self.dropout,
        )
        model.backbone.memory = self.train.memory
        suit(model, self.precision, self.device)
        if self.train.compile is True or (self.train.compile == "gpu" and self.device == "cuda"):
            compile_blocks(model)
        return model

    def check_batch(self, ranks: int) -> None:
        """Raise UserError if a step's batch can't be divided among so many ranks."""
        batch, parts = self.train.batch_size, ranks * self.train.accumulate
        if batch % parts:
            divisors = [n for n in range(1, batch + 1) if batch % (n * self.train.accumulate) == 0]
            raise UserError(
                f"train.batch_size={batch} can't be divided among {ranks} ranks x {self.train.accumulate} accumulated "
                f"parts; use train.batch_size={batch // parts * parts or parts} or {(batch // parts + 1) * parts}"
                + (f", or gpus={max(n for n in divisors if n <= ranks)}" if divisors else "")
            )
        if batch // parts % self.train.clips_per_video:
            raise UserError(
                f"train.clips_per_video={self.train.clips_per_video} doesn't divide the {batch // parts} clips that a "
                "rank processes at once; use another train.batch_size, or fewer train.accumulate parts"
            )
        if batch // parts == 1 and (self.train.mixup or self.train.cutmix):
            raise UserError(
                "train.mixup and train.cutmix mix the clips that a rank processes at once, and that is one; use a "
                "larger train.batch_size, or fewer train.accumulate parts or ranks"
            )

    def train_dataset(self, lists: Lists) -> VideoDataset:
        """Random, augmented clips of the training videos."""
        return replace(self._dataset(lists, lists.train, self.augment), clips=self.train.clips_per_video)

    def val_dataset(self, lists: Lists) -> VideoDataset:
        """One view a video, for choosing the best weights: of all, or of the train.eval_videos drawn for every run."""
        most, n = self.train.eval_videos, len(lists.val)
        drawn = np.sort(np.random.default_rng(0).permutation(n)[:most])
        return self._dataset(lists, [lists.val[i] for i in drawn], self.val_views)

    def test_dataset(self, lists: Lists) -> VideoDataset:
        """All views of every video of the test."""
        return self._dataset(lists, lists.test, self.views)

    def train_loader(self, dataset: VideoDataset, world: World) -> Loader:
        """Batches in random order: train.batch_size / train.accumulate clips over all ranks at a time."""
        each = self.train.clips_per_video
        videos = self.train.clips_at_once(world.size) // each
        return self.loader(
            dataset, videos, world,
            order=self.train_order(dataset), on_error=self.data.on_error, step_size=self.train.batch_size // each,
        )  # fmt: skip

    def train_order(self, dataset: VideoDataset) -> Order:
        """The order of the training videos, in which those of rare classes may come more often."""
        if self.train.balance != "sample":
            return Shuffled(self.seed)
        return Weighted(self.seed, tuple(video_weights(dataset.labels, self.train.balance_by).tolist()))

    def eval_loader(self, dataset: VideoDataset, world: World) -> Loader:
        """Batches in the order of the list, each video once over all ranks."""
        assert isinstance(dataset.transform, Views)
        at_once = dataset.transform.at_once(self.clips_of_test(world.size))
        return self.loader(dataset, at_once, world, order=LISTED, on_error=self.data.eval_on_error)

    def clips_of_test(self, ranks: int) -> int:
        """About how many clips a rank scores at once: as many as it trains with, or four times as many on a GPU.

        A GPU computes few of them badly, and has the room: without gradients a clip of a ViT-B takes a quarter of what
        it does in training with train.memory=smallest, and a sixteenth with fast.
        """
        return self.train.batch_size // (ranks * self.train.accumulate) * (4 if self.device == "cuda" else 1)

    def _dataset(self, lists: Lists, videos: list[Video], transform: Augment | Views) -> VideoDataset:
        cache = self.data.local_cache()
        return VideoDataset(
            self.data.folder, videos, self.reader, self.clip, transform, self.seed, cache, bad=lists.bad,
            several=len(lists.classes) if self.task.several else None,
        )  # fmt: skip

    def loader(
        self,
        dataset: VideoDataset,
        batch_size: int,
        world: World,
        *,
        order: Order,
        on_error: OnError,
        step_size: int | None = None,
    ) -> Loader:
        """Batches of so many videos a rank, read by this run's processes."""
        return Loader(
            dataset,
            batch_size,
            step_size=step_size,
            rank=world.rank,
            world_size=world.size,
            order=order,
            workers=0 if dataset.in_process else self.data.workers,
            timeout=self.data.timeout,
            on_error=on_error,
            max_bad=self.data.max_bad,
            register=registered if self.device == "cuda" else None,
        )


def write_settings(settings: Mapping[str, Any], run_dir: Path) -> None:
    """Leave a run's settings in its config.yaml."""
    files.write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(settings))))
