"""What a run shows while it works, on rank 0: a progress bar or lines, `log.jsonl`, TensorBoard, wandb.

The only user of wandb.
"""

import json
import netrc
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from aim.clock import clock
from aim.engine import files
from aim.engine.console import plain_console
from aim.errors import UserError

Log = Callable[[int, Mapping[str, float]], None]  # (step, values)

LINE_SECONDS = 30.0  # without a terminal


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


class Report:
    """What training says while it goes on: the display, `log.jsonl` and the tracker; only rank 0's is heard."""

    def __init__(
        self,
        run_dir: Path,
        log: Log,
        *,
        step: int,
        validated: int,
        total: int,
        steps_per_epoch: int,
        batch_size: int,
        visible: bool,
    ) -> None:
        self.log, self.step, self.steps_per_epoch, self.batch_size = log, step, steps_per_epoch, batch_size
        self.display = Display("train", total, visible=visible, start=step)
        self.journal = Journal(run_dir / "log.jsonl", step, validated) if visible else None
        self.time: float | None = time.monotonic()  # since when the clock goes; None in a pause
        self.seconds, self.waited, self.text = 0.0, 0.0, ""  # seconds since the last line, up to `time`

    def __enter__(self) -> "Report":
        self.display.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.display.__exit__(*error)
        if self.journal:
            self.journal.close()

    def line(self, step: int, lr: float, waited: float, window: Sequence[float]) -> None:
        """Tell of the steps since the last line: `window` sums loss, weight and hits, `waited` is in seconds so far."""
        now = time.monotonic()
        seconds = self._passed(now)
        loss, weight, hits = window
        values = {
            "epoch": round(step / self.steps_per_epoch, 3),
            "loss": loss / max(1.0, weight),
            "top1": 100 * hits / max(1.0, weight),
            "lr": lr,
            "clips_per_second": (step - self.step) * self.batch_size / seconds if seconds else 0.0,
            "waiting": min(1.0, (waited - self.waited) / seconds) if seconds else 0.0,
            "weight": weight,
        }
        self.step, self.waited, self.seconds, self.time = step, waited, 0.0, now
        self._write(step, values)
        self.text = (
            f"loss {values['loss']:.3f}  top-1 {values['top1']:.1f} %  lr {lr:.1e}  "
            f"{values['clips_per_second']:.1f} clips/s  waiting for data {values['waiting']:.0%}"
        )

    def tick(self, step: int) -> None:
        """A step is done."""
        self.display.update(step, self.text)

    def validated(self, step: int, epoch: int, top1: float, best_epoch: int) -> None:
        """Tell of a validation."""
        self._write(step, {"epoch": epoch, "val_top1": top1})
        self.display.say(
            f"epoch {epoch}: validation top-1 {top1:.2f} %{' (best so far)' if best_epoch == epoch else ''}"
        )

    def pause(self) -> None:
        """Leave what follows, up to `resume`, out of the speed; the steps before it keep their time."""
        self.seconds, self.time = self._passed(time.monotonic()), None

    def resume(self) -> None:
        """Training goes on."""
        self.time = time.monotonic()

    def _passed(self, now: float) -> float:
        """The seconds of training since the last line."""
        return self.seconds + (0.0 if self.time is None else now - self.time)

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self.journal:
            self.journal(step, values)
            self.log(step, values)


class Journal:
    """Appends to `log.jsonl`; continuing drops what an interrupted run wrote later than its last save.

    That save holds the `step`, and the epochs that were `validated`: a validation's line stands at the step before it.
    """

    def __init__(self, path: Path, step: int, validated: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    break  # the line that the crash cut short
                if entry["step"] <= step and ("val_top1" not in entry or entry["epoch"] <= validated):
                    kept.append(f"{line}\n")
        files.write_atomically(path, lambda file: files.write_text(file, "".join(kept)))
        self.path, self.file = path, path.open("a", encoding="utf-8")

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        with self._writing():
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()

    def close(self) -> None:
        with self._writing():
            self.file.close()

    def _writing(self) -> AbstractContextManager[None]:
        return files.writing(self.path, f"the last good checkpoint is kept, {files.AGAIN}")


class Display:
    """A bar on a terminal, a line every half minute elsewhere; silent on other ranks than the first."""

    def __init__(self, title: str, total: int, *, visible: bool, start: int = 0) -> None:
        self.console = plain_console(quiet=not visible)
        self.title, self.total, self.done, self.start = title, total, start, start
        self.began = self.last_line = time.monotonic()
        self.bar: Progress | None = None
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}", markup=False),
            )
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task(title, total=total, completed=start, text="")

    def __enter__(self) -> "Display":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, done: int, text: str) -> None:
        """Show that `done` of all steps are behind us."""
        self.done = done
        text = f"{text}  {clock(self.seconds_left)} left"
        if self.bar:
            self.bar.update(self.task, completed=done, text=text)
        elif time.monotonic() - self.last_line >= LINE_SECONDS:
            self.last_line = time.monotonic()
            self.say(f"{self.title} {done}/{self.total}  {text}")

    @property
    def seconds_left(self) -> float:
        pace = (time.monotonic() - self.began) / max(1, self.done - self.start)
        return pace * (self.total - self.done)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text)
