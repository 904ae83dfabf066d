"""The checkpoints of a run: `last.pt` to continue from, `best.safetensors` to use; atomic file writes."""

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from aim.data.lists import Lists, nfc, same_classes
from aim.data.pace import UNPACED, Pace
from aim.engine.machine.hardware import Precision
from aim.engine.scores.calibration import UNCALIBRATED, Calibration
from aim.ground.choices import leaves
from aim.ground.errors import UserError, nearest, say
from aim.ground.files import AGAIN, temporary_of, write_atomically, writing
from aim.ground.foreign import reading
from aim.ground.formats import check_format, stamp
from aim.ground.kinds import modern
from aim.models.classifier import VideoClassifier
from aim.models.heads import Trained
from aim.weights.hub import file_here
from aim.weights.trunk import PER_FRAME, check_fit, fingerprint

BEST = "best.safetensors"  # of a run directory
FORMAT = "aim-video 1"
KEPT = "the last good checkpoint"
HAVING = "give a file of this machine, or log in (`hf auth login`) where it is private"
OURS = "give a run directory, or the best.safetensors in one"


def save_last(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of an unfinished run, tensors and plain containers; the one before it becomes `previous.pt`.

    At every moment a whole file stands under one of the names. Raises UserError if it can't be written, and for
    values that are not finite.
    """
    refuse_infinite(path, dict(leaves(state)))
    previous = path.with_name("previous.pt")
    aside = temporary_of(previous)
    with writing(previous, f"{KEPT} is kept: {AGAIN}" if path.exists() else AGAIN):
        try:
            aside.unlink(missing_ok=True)
            if path.exists():
                _link(path, aside)
            write_atomically(path, lambda file: write_torch(file, dict(state)), KEPT)
            if aside.exists():
                aside.replace(previous)
            else:
                previous.unlink(missing_ok=True)  # of a run whose last.pt was deleted
        finally:
            aside.unlink(missing_ok=True)


def write_torch(path: Path, value: Any) -> None:
    """Write a file of torch's; through a stream, as torch says why it failed for that alone."""
    with path.open("wb") as stream:
        torch.save(value, stream)


def _link(path: Path, other: Path) -> None:
    """Give a file another name; a copy on file systems without links."""
    try:
        other.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, other)


def refuse_infinite(path: Path, values: Mapping[str, Any]) -> None:
    """Raise UserError if a tensor among the values holds NaN or infinity: nothing continues from that."""
    floats = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.is_floating_point()}
    # A sum is finite only if all of it is, and takes a tenth of the time; one that overflows is looked at again.
    sums = [tensor.sum().float() for tensor in floats.values()]
    if sums and torch.isfinite(torch.stack([each.to(sums[0].device) for each in sums])).all():
        return
    if name := next((name for name, tensor in floats.items() if not torch.isfinite(tensor).all()), None):
        kept = f" and {KEPT} is kept" if path.exists() else ""
        raise UserError(
            f"{name} is no longer finite, so {path} isn't written{kept}; use a lower optim.lr or precision=fp32 "
            "(that is another run), or repeat the command to continue from there"
        )


def load_last(path: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Read `last.pt`, or `previous.pt` where it is damaged, which is said unless `quiet`; no code in it is executed.

    Raises UserError when there is no whole one.
    """
    try:
        return _load_state(path)
    except UserError as error:
        previous = path.with_name("previous.pt")
        if not previous.exists():
            raise UserError(f"{error}; delete it to train from the start, or choose another run_dir") from error
        try:
            state = _load_state(previous)
        except UserError as also:
            raise UserError(f"{error}; {also}; delete both to train from the start") from also
        if not quiet:
            say(f"{error}; continuing from {previous}, the save before it")
        return state


def _load_state(path: Path) -> dict[str, Any]:
    with reading(path, "the state of a run", "it may be cut short"):
        with zipfile.ZipFile(path) as file:  # torch doesn't compare the checksums that it writes
            if (damaged := file.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "step" not in state:
        raise UserError(f"{path} is not the state of a run of aim.train")
    return state


@dataclass(frozen=True)
class Checkpoint:
    """The content of `best.safetensors`: all that the trunk's own file doesn't hold."""

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    classes: list[str]
    trunk: dict[str, str]  # name, sha256
    precision: Precision | None = None  # of the training; None in files from before it was written down
    calibration: Calibration = UNCALIBRATED  # fitted on the validation set
    chosen_by: str | None = None  # data_hash of the videos that chose it, empty where none did; None: it isn't known
    calibrated_by: str | None = None  # data_hash of the videos that the temperature was fitted on; None: not known
    pace: Pace = UNPACED  # of the training videos

    @property
    def run(self) -> str:
        """The name of its run directory, or of its repository on the hub: of its copy's folder in the hub's cache."""
        folder = self.path.parent
        if folder.parent.name == "snapshots":
            return folder.parents[1].name.removeprefix("models--")
        return self.path.resolve().parent.name

    @property
    def fingerprint(self) -> str:
        """The sha256 of its tensors."""
        return fingerprint(self.tensors)


def check_classes(saved: Checkpoint, lists: Lists) -> None:
    """Raise UserError if the checkpoint was trained for other classes than the data has."""
    if not same_classes(saved.classes, lists.classes):
        pairs = enumerate(zip_longest(saved.classes, lists.classes, fillvalue="nothing"))
        i, (theirs, ours) = next((i, pair) for i, pair in pairs if nfc(pair[0]) != nfc(pair[1]))
        raise UserError(
            f"{saved.path} knows {len(saved.classes)} classes and the data has {len(lists.classes)}; class {i} is "
            f"{theirs!r} there and {ours!r} here; use the data that it was trained for"
        )


def trained_tensors(model: Trained) -> dict[str, Tensor]:
    """Every tensor of the model that is neither in the trunk's weights nor derived from them."""
    state = model.state_dict()
    return {name: state[name].detach() for name in model.saved_names()}


def save_weights(
    path: Path,
    model: VideoClassifier,
    config: Mapping[str, Any],
    classes: list[str],
    precision: Precision | None = None,
    calibration: Calibration = UNCALIBRATED,
    chosen_by: str | None = None,
    pace: Pace = UNPACED,
) -> None:
    """Write `best.safetensors`, which with the trunk's weights is the whole model.

    Raises UserError if it can't be written, and for values that are not finite.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in trained_tensors(model).items()}
    refuse_infinite(path, tensors)
    metadata = stamp(FORMAT) | {
        "config": json.dumps(config),
        "classes": json.dumps(classes),
        "trunk": json.dumps({"name": model.trunk_name, "sha256": model.fingerprint}),
        "precision": json.dumps(precision),
        **calibration.as_text(),
        "chosen_by": json.dumps(chosen_by),
        "calibrated_by": json.dumps(chosen_by or None),
        "pace": pace.text,
    }
    write_atomically(path, lambda file: save_file(tensors, file, metadata), KEPT)


def set_calibration(path: Path, calibration: Calibration, by: str) -> None:
    """Write a calibration, and whose it is, into a file of `save_weights`, of which nothing else changes."""
    copy(path, path, calibration.as_text() | {"calibrated_by": json.dumps(by)})


def copy(path: Path, out: Path, changes: Mapping[str, str]) -> None:
    """Write a file of `save_weights` to `out`, with other metadata."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | changes
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    write_atomically(out, lambda file: save_file(tensors, file, metadata), KEPT)


def file_of(path: str | Path) -> Path:
    """The file that a run directory, a file's name or hf://USER/NAME means. Raises UserError if there is none."""
    path = file_here(path, "checkpoint", BEST, HAVING)
    if path.is_dir():
        if not (path / BEST).exists():
            begun = (path / "config.yaml").exists()
            why = "its run has saved no weights yet" if begun else "it is not the directory of a run"
            raise UserError(f"checkpoint {path} has no best.safetensors: {why}")
        path = path / BEST
    if not path.is_file():
        folder = path.absolute().parent
        beside = [other.name for other in folder.glob("*")] if folder.name else []  # what lies in / is no near name
        raise UserError(
            f"checkpoint {path} doesn't exist{nearest(path.name, beside)}; it is a run directory, or the "
            "best.safetensors in one"
        )
    return path


def read_weights(path: str | Path) -> Checkpoint:
    """Read a file of `save_weights`, also by its run directory. Raises UserError when it is none."""
    path = file_of(path)
    with reading(path, "a checkpoint, a safetensors file", OURS), safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    check_format(metadata, FORMAT, path, "aim.train")
    with reading(path, "a checkpoint, for its metadata are damaged", OURS):
        config, classes, trunk = (json.loads(metadata[key]) for key in ("config", "classes", "trunk"))
        config = modern(config)
        if not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
            raise TypeError("classes that are no list of names")
        if not all(isinstance(trunk[key], str) for key in ("name", "sha256")):
            raise TypeError("a trunk without a name")
        precision = json.loads(metadata.get("precision", "null"))
        if precision not in (None, *get_args(Precision)):
            raise ValueError(f"precision {precision!r}")
        calibration, pace = Calibration.of_text(metadata, len(classes)), Pace.of_text(metadata.get("pace"))
        by = {key: json.loads(metadata.get(key, "null")) for key in ("chosen_by", "calibrated_by")}
        if not all(isinstance(value, str | None) for value in by.values()):
            raise TypeError(str(by))
    by["calibrated_by"] = by["calibrated_by"] or by["chosen_by"] or None
    return Checkpoint(path, tensors, config, classes, trunk, precision, calibration, pace=pace, **by)


def load_weights(model: VideoClassifier, checkpoint: Checkpoint, *, head: bool = True) -> None:
    """Put the checkpoint's tensors into a model whose trunk already has its weights.

    `head=False` leaves the model's own head, for another set of classes. Raises UserError when the trunk is another
    one, or names or shapes differ.
    """
    if checkpoint.trunk["sha256"] != model.fingerprint:
        raise UserError(
            f"{checkpoint.path} was trained on the trunk {checkpoint.trunk['name']} with sha256 "
            f"{checkpoint.trunk['sha256'][:12]}, this is {model.trunk_name} with {model.fingerprint[:12]}; "
            "give the trunk's file with backbone.weights=PATH"
        )
    put_tensors(model, checkpoint.tensors, str(checkpoint.path), head=head)


def put_tensors(model: Trained, tensors: Mapping[str, Tensor], source: str, *, head: bool = True) -> None:
    """Put tensors under exactly the names that the model saves. Raises UserError when names or shapes differ."""
    state = model.state_dict()
    own = {name: state[name] for name in model.saved_names() if head or not name.startswith("head.")}
    given = {name: tensor for name, tensor in tensors.items() if head or not name.startswith("head.")}
    way_out = "use the backbone, adapter and clip settings that it was trained with"
    if any(name.endswith(PER_FRAME) and own[name].shape != given[name].shape for name in own.keys() & given.keys()):
        way_out += "; for a test on other numbers of frames: stretch_time=true"
    check_fit(own, given, source, way_out)
    model.load_state_dict(given, strict=False)
