"""The settings of aim.predict, and their valid combinations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from aim.data.lists import nfc, read_lines
from aim.data.named import STDIN
from aim.data.readers.frames import Frames
from aim.data.sampling import Clip
from aim.data.transforms import Views
from aim.data.windows import Windows
from aim.engine.trained import exported
from aim.engine.trained.question import Question
from aim.engine.trained.recogniser import Recogniser, load, of_trunk, told_by_names
from aim.engine.trained.timeline import check_smooth
from aim.ground.errors import UserError, check_least
from aim.ground.marks import Mark
from aim.ground.paths import path_of
from aim.ground.shared_work import Spreading
from aim.models.classifier import Backbone
from aim.predict import answers, drawn, picture, stream, teaching
from aim.weights import text

OUTPUTS = {
    "out": answers.SUFFIXES,
    "segments": answers.SUFFIXES,
    "picture": picture.SUFFIXES,
    "video_out": drawn.SUFFIXES,
}


@dataclass(frozen=True)
class Settings(Spreading, Question):
    """The keys of configs/predict.yaml."""

    input: Annotated[str | Sequence[str], Mark.PATH]
    batch_size: int
    window: float | None
    stride: float | None
    smooth: float
    json: bool
    out: Annotated[str | None, Mark.PATH]
    segments: Annotated[str | None, Mark.PATH]
    picture: Annotated[str | None, Mark.PATH]
    video_out: Annotated[str | None, Mark.PATH]
    next: int | None
    classes: Annotated[str | Sequence[str] | None, Mark.TEXT]
    prompts: Sequence[str] | None
    clip: Clip

    def __post_init__(self) -> None:
        Spreading.__post_init__(self)
        Question.__post_init__(self)
        alone = isinstance(self.backbone, Backbone)
        if bool(self.checkpoint) == alone:
            raise UserError(
                "give one of checkpoint=FILE, a trained model, and backbone=NAME with classes=A,B,C, a CLIP trunk alone"
            )
        if alone and self.classes is None:
            raise UserError("a trunk alone has no classes; add classes=A,B,C, their names, or give checkpoint=FILE")
        if self.prompts is not None and self.classes is None:
            raise UserError("prompts are for classes=A,B,C; add these, or leave out prompts")
        if self.classes is not None and not (len(self.names_of_classes) == len({*self.names_of_classes}) > 1):
            raise UserError(f"classes={self.classes} must be two names or more, each once; use classes=A,B,C")
        if self.live is not None:
            self._check_live(stream.shown(self.live))
        if (self.is_shared or self.merge) and self.out is None:
            raise UserError("the answers of shards are merged in a file: add out=FILE.jsonl or out=FILE.csv")
        if (self.is_shared or self.merge) and (
            of_one := [name for name in (*OUTPUTS, "next") if name != "out" and getattr(self, name)]
        ):
            raise UserError(f"{' and '.join(of_one)} can't be merged from shards; leave out shard, or these")
        check_least(self, 1, "batch_size", "next")
        if self.window is None and (self.stride is not None or self.smooth):
            name = "stride" if self.stride is not None else "smooth"
            raise UserError(f"{name}={getattr(self, name):g} is of a time line; add window=SECONDS")
        check_smooth(self.smooth)
        if self.next is not None and self.windows:
            raise UserError(f"next={self.next} is for whole videos; leave out window={self.window:g}")
        if self.next is not None and exported.is_exported(self.checkpoint):
            raise UserError(
                f"next={self.next} needs features, and {self.checkpoint} gives probabilities alone; use the checkpoint "
                "that it's from"
            )
        if self.windows and isinstance(self.reader, Frames):
            raise UserError(f"window={self.window:g} is for video files, read by PyAV; leave out reader=frames")
        for name, suffixes in OUTPUTS.items():
            if (path := getattr(self, name)) is not None and Path(path).suffix not in suffixes:
                raise UserError(f"{name}={path} must end in {' or '.join(suffixes)}")
        for name in ("segments", "picture"):
            if (path := getattr(self, name)) is not None and self.windows is None:
                raise UserError(f"{name}={path} is of a time line; add window=SECONDS")

    def _check_live(self, name: str) -> None:
        """Raise UserError for settings without a meaning for endless videos."""
        if len(self.given) > 1:
            raise UserError(f"input={name} is a stream, and {len(self.given)} are named; give it its own process")
        if self.windows is None:
            raise UserError(
                f"input={name} is a stream, answered window by window: add window=SECONDS; a file must be downloaded"
            )
        settings = [*OUTPUTS, "smooth", "shard", "gpus", "merge"]
        if of_files := [key for key in settings if getattr(self, key)]:
            raise UserError(
                f"{' and '.join(of_files)} can't be used for an endless stream; leave it out, and keep the lines by "
                "> FILE.jsonl"
            )

    @property
    def names_of_classes(self) -> list[str]:
        """The zero-shot classes, from a list or a file; none if a model has its own."""
        if not isinstance(self.classes, str):
            return list(self.classes or ())
        if self.classes.endswith(".txt"):
            return [nfc(line.strip()) for line in read_lines(path_of(self.classes)) if line.strip()]
        return [name.strip() for name in self.classes.split(",") if name.strip()]

    def loaded(self) -> Recogniser:
        """The model, with other classes if given."""
        classes = self.names_of_classes or None
        if isinstance(self.backbone, Backbone):
            views = Views(1, 1, self.clip.size)
            text.check(self.backbone.text, self.backbone.weights, self.prompts)
            recogniser = of_trunk(self.backbone, self.clip, views)
            return told_by_names(recogniser, self.backbone, self.names_of_classes, self.prompts)
        weights = self.backbone.weights
        return load(self.checkpoint, weights=weights, trust=self.trust, classes=classes, prompts=self.prompts)

    @property
    def given(self) -> Sequence[str]:
        """The words of the input."""
        return [self.input] if isinstance(self.input, str) else self.input

    @property
    def names(self) -> list[str]:
        """The words that name videos."""
        return [name for name in self.given if name != STDIN]

    @property
    def listens(self) -> bool:
        """Whether a list is read from standard input."""
        return STDIN in self.given

    @property
    def live(self) -> str | None:
        """The stream, the camera or the pipe, if given."""
        return next(filter(stream.is_live, self.given), None)

    @property
    def outputs(self) -> dict[str, Path]:
        """The output files, by their settings; that of `next` beside `out`, or in the current folder."""
        found = {name: path_of(path) for name in OUTPUTS if (path := getattr(self, name))}
        beside = found["out"].parent if "out" in found else Path()
        return found if self.next is None else found | {"next": beside / teaching.FILE}

    @property
    def windows(self) -> Windows | None:
        """The windows of a time line."""
        if self.window is None:
            return None
        return Windows(float(self.window), float(self.window if self.stride is None else self.stride))

    @property
    def of_windows(self) -> str:
        """The windows of a time line, in words; nothing without one."""
        if self.windows is None:
            return ""
        smooth = f", smoothed over {self.smooth:g} s" if self.smooth else ""
        return f"windows of {self.window:g} s every {self.windows.stride:g} s{smooth}"
