"""Where a run's numbers go besides `log.jsonl`: TensorBoard, wandb. The only user of wandb."""

import netrc
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from aim.engine import files
from aim.errors import UserError

Log = Callable[[int, Mapping[str, float]], None]  # (step, values)


class Tracker(Protocol):
    """Where a run's numbers go besides `log.jsonl`: the nodes of configs/tracker/."""

    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> "Any": ...


@dataclass(frozen=True)
class NoTracker:
    """Only the files of the run directory."""

    @contextmanager
    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
        yield lambda step, values: None


@dataclass(frozen=True)
class TensorBoard:
    """Event files in `run_dir/tensorboard`."""

    @contextmanager
    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(run_dir / "tensorboard") as writer:

            def log(step: int, values: Mapping[str, float]) -> None:
                for key, value in values.items():
                    writer.add_scalar(key, value, step)

            yield log


@dataclass(frozen=True)
class Wandb:
    """A run on wandb, continued under the same id when the training is; `offline` writes to `run_dir/wandb`."""

    project: str
    entity: str | None
    mode: Literal["online", "offline"]

    @contextmanager
    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> Iterator[Log]:
        import wandb

        if self.mode == "online" and not _has_wandb_key():
            raise UserError(
                "tracker=wandb has no key: set WANDB_API_KEY, run `wandb login`, or use tracker.mode=offline"
            )
        run = wandb.init(
            project=self.project, entity=self.entity, mode=self.mode, dir=run_dir, name=name, id=wandb_id(run_dir),
            resume="allow", config=dict(config), settings=wandb.Settings(silent=True),
        )  # fmt: skip
        try:
            yield lambda step, values: run.log(dict(values), step=step)
        finally:
            run.finish()


def wandb_id(run_dir: Path) -> str:
    """The run's id on wandb, drawn once for each run directory: the same path elsewhere or later is another run."""
    file = run_dir / "wandb.id"
    found = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if not found:
        found = secrets.token_hex(6)
        files.write_atomically(file, lambda path: files.write_text(path, f"{found}\n"))
    return found


def _has_wandb_key() -> bool:
    """Whether wandb would log in without asking: a batch job must never wait at a prompt."""
    if "WANDB_API_KEY" in os.environ or "WANDB_IDENTITY_TOKEN_FILE" in os.environ:
        return True
    try:
        hosts = netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return any("wandb" in host or host in os.environ.get("WANDB_BASE_URL", "") for host in hosts)
