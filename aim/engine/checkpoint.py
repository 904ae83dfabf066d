"""What a run leaves on disk: `last.pt` to continue from, `best.safetensors` to use; written whole or not at all."""

import fcntl
import json
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from aim.errors import UserError
from aim.models.classifier import VideoClassifier
from aim.weights.trunk import PER_FRAME, fingerprint


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file, then put it in the place of `path`: a crash leaves the old file or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes its files private
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    write_atomically(path, lambda file: write_text(file, json.dumps(value, indent=2) + "\n"))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8."""
    path.write_text(text, encoding="utf-8")


def save_last(path: Path, state: Mapping[str, Any]) -> None:
    """Write the state of an unfinished run: tensors and plain containers."""
    write_atomically(path, lambda file: torch.save(dict(state), file))


def load_last(path: Path) -> dict[str, Any]:
    """Read `last.pt`; no code in it is executed. Raises UserError when it is damaged."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError) as error:
        raise UserError(f"{path} can't be read ({_first_line(error)}); delete it to train from the start") from error
    if not isinstance(state, dict) or "step" not in state:
        raise UserError(f"{path} is not the state of a run of aim.train; delete it, or choose another run_dir")
    return state


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@dataclass(frozen=True)
class Checkpoint:
    """The content of `best.safetensors`: all that the trunk's own file doesn't hold."""

    path: Path
    tensors: dict[str, Tensor]
    config: dict[str, Any]
    classes: list[str]
    trunk: dict[str, str]  # name, sha256

    @property
    def fingerprint(self) -> str:
        """The sha256 of its tensors."""
        return fingerprint(self.tensors)


def trained_tensors(model: VideoClassifier) -> dict[str, Tensor]:
    """Every tensor of the model that is neither in the trunk's weights nor derived from them, on the CPU."""
    state = model.state_dict()
    return {name: state[name].detach().cpu().contiguous() for name in model.saved_names()}


def save_weights(path: Path, model: VideoClassifier, config: Mapping[str, Any], classes: list[str]) -> None:
    """Write `best.safetensors`, which with the trunk's weights is the whole model."""
    metadata = {
        "format": "aim-video 1",
        "config": json.dumps(config),
        "classes": json.dumps(classes),
        "trunk": json.dumps({"name": model.trunk_name, "sha256": model.fingerprint}),
    }
    write_atomically(path, lambda file: save_file(trained_tensors(model), file, metadata))


def read_weights(path: str | Path) -> Checkpoint:
    """Read a file of `save_weights`, also by its run directory. Raises UserError when it is none."""
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / "best.safetensors"
    if not path.is_file():
        raise UserError(f"checkpoint {path} doesn't exist; it is the best.safetensors of a run directory")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise UserError(f"checkpoint {path} is not a safetensors file ({_first_line(error)})") from error
    if not metadata.get("format", "").startswith("aim-video"):
        raise UserError(f"checkpoint {path} was not written by aim.train: it has no aim-video metadata")
    try:
        config, classes, trunk = (json.loads(metadata[key]) for key in ("config", "classes", "trunk"))
    except (KeyError, ValueError) as error:
        raise UserError(f"checkpoint {path} has damaged metadata ({type(error).__name__}: {error})") from error
    return Checkpoint(path, tensors, config, classes, trunk)


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


def put_tensors(model: VideoClassifier, tensors: Mapping[str, Tensor], source: str, *, head: bool = True) -> None:
    """Put tensors under exactly the names that the model saves. Raises UserError when names or shapes differ."""
    state = model.state_dict()
    wanted = [name for name in model.saved_names() if head or not name.startswith("head.")]
    given = [name for name in tensors if head or not name.startswith("head.")]
    missing, foreign = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or foreign:
        raise UserError(
            f"{source} doesn't fit this model: it lacks {_shortened(missing)} and has {_shortened(foreign)} besides; "
            "use the backbone, adapter and clip settings that it was trained with"
        )
    differ = [name for name in wanted if tensors[name].shape != state[name].shape]
    if differ:
        first, more = differ[0], f" and {len(differ) - 1} more" if differ[1:] else ""
        raise UserError(
            f"{source} doesn't fit this model: {first} has shape {tuple(tensors[first].shape)} there, "
            f"{tuple(state[first].shape)} here{more}; use the settings that it was trained with"
            + ("; for a test on other numbers of frames: stretch_time=true" if first.endswith(PER_FRAME) else "")
        )
    model.load_state_dict({name: tensors[name] for name in wanted}, strict=False)


def _shortened(names: list[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Hold a run directory, so that a second job can't write into it. Raises UserError when another one holds it."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"another job is writing to {run_dir} ({file.read().strip()}); wait for it, or set run_dir=DIR"
            ) from error
        file.truncate(0)
        file.write(f"host {socket.gethostname()}, process {os.getpid()}, job {os.environ.get('SLURM_JOB_ID', '-')}")
        file.flush()
        yield
