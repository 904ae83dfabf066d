"""A trained model with its classes and its clip and view settings, from a checkpoint or an exported file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from einops import rearrange, reduce
from torch import Tensor

from aim.adapters.interface import AdapterConfig
from aim.adapters.plain import Plain
from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.loading.loader import Batch, Loader
from aim.data.pace import UNPACED, Pace
from aim.data.readers.decord import Decord
from aim.data.readers.interface import Reader
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.engine.machine import distributed
from aim.engine.machine.feeding import on_device, one_late, to_host
from aim.engine.machine.hardware import (
    Device,
    Precision,
    Untrained,
    autocast,
    resolve_device,
    resolve_precision,
    settle,
    suit,
    use_threads,
)
from aim.engine.scores.calibration import UNCALIBRATED, Calibration
from aim.engine.scores.tasks import SINGLE_LABEL, Task, divisor
from aim.engine.trained import checkpoint, exported
from aim.engine.trained.checkpoint import Checkpoint
from aim.engine.trained.exported import Program
from aim.ground import config
from aim.ground.errors import UserError
from aim.ground.marks import Before, Mark
from aim.models.classifier import Backbone, VideoClassifier, build, terms_of
from aim.models.zero_shot import ZeroShotHead, check_pooled
from aim.weights.text import class_texts

Look = Callable[[Tensor, Precision], Tensor]  # of clips, uint8 "b t c h w", numbers whose mean over views counts
Read = Callable[[Sequence[Path]], Iterator[tuple[Path, Tensor | str]]]


@dataclass(frozen=True)
class Trained:
    """The settings of a training run that define its model and input."""

    backbone: Backbone
    adapter: AdapterConfig
    clip: Clip
    views: Views
    task: Annotated[Task, Before({"kind": "single_label"})]


@dataclass(frozen=True)
class TrunkFile:
    """Where the weights of a trained model's trunk lie on this machine."""

    weights: Annotated[str | None, Mark.PATH] = None  # None: where they were in training


@dataclass(frozen=True)
class Recogniser:
    """A trained model with its classes and its way of looking at a video."""

    model: VideoClassifier | Program
    classes: list[str]
    clip: Clip
    views: Views
    precision: Precision | Literal["int8"] | None = None  # of its training or, exported, its own; None: unknown
    calibration: Calibration = UNCALIBRATED  # as far as its file tells
    calibrated: bool = True  # by the temperature, where there is one
    task: Task = SINGLE_LABEL
    pace: Pace = UNPACED  # of the videos that it learnt from
    licence: str = ""  # of its trunk's published weights; empty: not known

    @property
    def at_least(self) -> Tensor | None:
        """Of each class the least calibrated probability of an answer, "k", where its file tells."""
        found = self.calibration.thresholds
        return torch.tensor(found) if found and self.calibrated else None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cpu") if isinstance(self.model, Program) else self.model.mean.device

    def predict(self, video: Tensor, precision: Precision = "fp32") -> Tensor:
        """Probabilities "b k" of clips, uint8 "b t c h w" with the model's number of frames and size."""
        return self.score(video, precision).cpu()

    @torch.inference_mode()
    def score(self, video: Tensor, precision: Precision) -> Tensor:
        """The probabilities of `predict`, on the device, without waiting for it."""
        if isinstance(self.model, Program):
            temperature = (self.calibrated and self.calibration.temperature) or 1.0
            probability = self.model(video)
            return probability if temperature == 1.0 else self.task.tempered(probability.log(), temperature)
        return self.see(video, precision)[:, : len(self.classes)]

    @torch.inference_mode()
    def see(self, video: Tensor, precision: Precision) -> Tensor:
        """The probabilities of `predict` and the features that the head reads, side by side: float32 "b k+d".

        Not of an exported model, which gives probabilities alone.
        """
        assert isinstance(self.model, VideoClassifier)
        with autocast(self.device, precision):
            features = self.model.pooled(self.model.preprocess(video.to(self.device)))
            logits = self.model.logits(features).float()
        temperature = (self.calibrated and self.calibration.temperature) or 1.0
        probability = self.task.probability(logits / divisor(temperature, logits))
        return torch.cat([probability, features.float()], 1)

    def predict_file(self, path: str | Path, reader: Reader | None = None, precision: Precision = "fp32") -> Tensor:
        """Probabilities "k" of a video, the mean over the test's views; by default decord reads it, or PyAV.

        Raises UserError if it can't be read.
        """
        with self.reading(reader or Decord(), videos=1, workers=0, precision=precision) as read:
            ((_, found),) = read([Path(path)])
        if isinstance(found, str):
            raise UserError(f"{path} could not be read: {found}")
        return found

    @contextmanager
    def reading(
        self,
        reader: Reader,
        *,
        videos: int,
        workers: int,
        precision: Precision,
        timeout: float = 60.0,
        look: Look | None = None,
    ) -> Iterator[Read]:
        """A function of files that gives each one's probabilities "k", the mean over the test's views, or an error.

        So many `videos` at once; while the device works on them, the next are read, by the same processes each time.
        A process that takes longer than `timeout` seconds for one is killed. With another `look` than `score` it gives
        the mean of that.
        """
        dataset = VideoDataset(Path(), [], reader, self.clip, self.views, seed=0)
        loader = Loader(dataset, videos, workers=workers, timeout=timeout, on_error="note", max_bad=1.0)

        def read(paths: Sequence[Path]) -> Iterator[tuple[Path, Tensor | str]]:
            loader.take([Video(str(path), 0, None, None) for path in paths])
            for index, weight, probability in one_late(self.scored(loader.epoch(0), precision, look)):
                for i, found, scores in zip(index.tolist(), weight.tolist(), probability, strict=True):
                    yield paths[i], scores if found else loader.bad[str(paths[i])]

        with closing(loader):
            yield read

    def scored(
        self, batches: Iterator[Batch], precision: Precision, look: Look | None = None
    ) -> Iterator[Callable[[], list[Tensor]]]:
        """Start to score batches of videos; each result gives index, weight, and probabilities "b k" over views."""
        for batch in on_device(batches, self.device):
            scores = (look or self.score)(rearrange(batch.video, "b v t c h w -> (b v) t c h w"), precision)
            yield to_host(batch.index, batch.weight, reduce(scores, "(b v) k -> b k", "mean", b=len(batch.video)))


def settings_of(saved: Checkpoint) -> Trained:
    """The settings in a checkpoint that define its model. Raises UserError if they are absent or can't be taken."""
    if not saved.config:
        raise UserError(f"{saved.path} has no settings of its model: convert it again, with its +experiment=NAME")
    parts = {key: value for key, value in saved.config.items() if key in Trained.__dataclass_fields__}
    try:
        return config.build(parts, Trained, received=True)
    except UserError as error:
        raise UserError(f"the config in {saved.path}: {error}") from error


def load(
    path: str | Path,
    *,
    weights: str | None = None,
    device: str = "cpu",
    trust: bool = False,
    calibrated: bool = True,
    classes: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
) -> Recogniser:
    """Rebuild a trained model from `best.safetensors` and its trunk; `weights` says where the trunk is, if elsewhere.

    Its probabilities are `calibrated` by the file's temperature, where there is one; else they are those of a test.
    Or open a file of `aim.export`, which holds its trunk and computes on the CPU; `trust` as for
    `exported.read`. With other `classes` it has a head for these, of their names alone (`told_by_names`). Raises
    UserError when a file is missing, or the trunk is another one.
    """
    if exported.is_exported(path):
        if classes is not None:
            raise UserError(f"classes, but {path} holds its own head alone; use the checkpoint that it's from")
        if weights is not None:
            raise UserError(f"backbone.weights={weights}, but {path} holds its trunk; leave it out")
        program, about = exported.read(path, trust=trust)
        return Recogniser(
            program,
            about.classes,
            about.clip,
            about.views,
            about.precision,
            calibration=about.calibration,
            calibrated=calibrated,
            task=about.task,
            pace=about.pace,
            licence=about.licence,
        )
    saved = checkpoint.read_weights(path)
    trained = settings_of(saved)
    backbone = trained.backbone if weights is None else replace(trained.backbone, weights=weights)
    model = build(
        backbone,
        trained.adapter,
        num_classes=len(saved.classes),
        num_frames=trained.clip.num_frames,
        size=trained.clip.size,
        dropout=0.0,
    )
    checkpoint.load_weights(model, saved)
    found = Recogniser(
        model.eval().to(device),
        saved.classes,
        trained.clip,
        trained.views,
        saved.precision,
        saved.calibration,
        calibrated,
        task=trained.task,
        pace=saved.pace,
        licence=terms_of(trained.backbone),
    )
    return found if classes is None else told_by_names(found, backbone, classes, prompts)


def of_trunk(backbone: Backbone, clip: Clip, views: Views) -> Recogniser:
    """A trunk alone, which knows no classes. Raises UserError for weights that aren't there or don't fit."""
    backbone.check_weights()
    frames, size = clip.num_frames, clip.size
    model = build(backbone, Plain(), num_classes=1, num_frames=frames, size=size, dropout=0.0).eval()
    return Recogniser(model, [], clip, views)


def told_by_names(
    recogniser: Recogniser, backbone: Backbone, classes: Sequence[str], prompts: Sequence[str] | None = None
) -> Recogniser:
    """The model with a head for other classes, one label a video, from their names alone: zero-shot.

    `backbone` is the source of its trunk. Raises UserError if that has no text tower, or the head reads other
    features.
    """
    assert isinstance(recogniser.model, VideoClassifier)
    check_pooled(recogniser.model)
    head = ZeroShotHead(class_texts(backbone.text, backbone.weights, classes, prompts)).to(recogniser.device)
    recogniser.model.head = head  # type: ignore[assignment]
    return replace(recogniser, classes=list(classes), calibration=UNCALIBRATED, task=SINGLE_LABEL)


def ready(
    make: Callable[[], Recogniser],
    *,
    device: Device,
    precision: Untrained,
    threads: int | None = None,
    told: bool = True,
) -> tuple[Recogniser, Untrained]:
    """The recogniser that `make` loads, on its device and prepared for it, and the precision to compute in.

    On a CPU it computes with so many `threads` (`use_threads`).

    `auto` for device and precision is resolved before anything is loaded, and reported if `told`.
    """
    use_threads(threads)
    on = resolve_device(device)
    distributed.num_ranks(on, 1)
    asked = {"device": device, "precision": precision}
    settled = settle(asked, on) if told else resolve_precision(precision, on)
    assert settled != "fp8", "which only training can have"
    recogniser = make()
    if isinstance(recogniser.model, VideoClassifier):
        suit(recogniser.model.to(on), settled, on)
    return recogniser, settled
