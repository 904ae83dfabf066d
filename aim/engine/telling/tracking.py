"""Trackers, which get a run's numbers besides `log.jsonl`: TensorBoard, wandb, trackio, a CSV. No other file uses them.

Each is optional. One that fails, at whatever, never stops training: it says so once and is left alone.
"""

import contextlib
import csv
import importlib.util
import io
import json
import netrc
import os
import secrets
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from aim.engine.scores import metrics
from aim.ground import files
from aim.ground.errors import UserError, say

Log = Callable[[int, Mapping[str, float]], None]  # (step, values)

TRAINED = (
    "step", "epoch", "loss", "top1", "gradient_norm", "lr", "clips_per_second", "waiting", "peak_memory_gib", "weight",
)  # fmt: skip
FINISH_SECONDS = 60  # for wandb to send the rest, which without a network it would try for ever


@dataclass(frozen=True)
class Sink:
    """An opened tracker: it takes the numbers of a step, and the result at the end."""

    log: Log
    attach: Callable[[Mapping[str, Any]], None] = lambda found: None


class Tracker(Protocol):
    """The nodes of configs/tracker/."""

    def check(self) -> None:
        """Raise UserError if it can't work, before anything is loaded; by default it can."""
        return

    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> AbstractContextManager[Sink]:
        """Open the tracker for a new or continued run."""


@dataclass(frozen=True)
class NoTracker(Tracker):
    """Only the files of the run directory."""

    @contextmanager
    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> Iterator[Sink]:
        yield Sink(lambda step, values: None)


@dataclass(frozen=True)
class Csv(Tracker):
    """The lines of `log.jsonl` as a table, `run_dir/log.csv`."""

    @contextmanager
    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> Iterator[Sink]:
        from aim.engine.scores import tasks  # late, as torch takes seconds

        with ExitStack() as stack:
            table: csv.DictWriter[str] | None = None

            def log(step: int, values: Mapping[str, float]) -> None:
                nonlocal table
                if table is None:
                    file = stack.enter_context(
                        (run_dir / "log.csv").open("w", encoding="utf-8", newline="", buffering=1)
                    )
                    table = csv.DictWriter(file, columns(several=tasks.named(config.get("task")).several))
                    table.writeheader()
                    table.writerows(logged(run_dir))
                else:
                    table.writerow({"step": step, **values})

            yield Sink(log)


@dataclass(frozen=True)
class TensorBoard:
    """Event files in `run_dir/tensorboard`."""

    def check(self) -> None:
        require("tensorboard")

    @contextmanager
    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> Iterator[Sink]:
        from torch.utils.tensorboard import SummaryWriter

        with ExitStack() as stack:
            writer: SummaryWriter | None = None

            def begun(step: int | None) -> SummaryWriter:
                """A writer from this step on, which hides later lines of a killed run; or of the test."""
                nonlocal writer
                if writer is None:
                    writer = stack.enter_context(SummaryWriter(run_dir / "tensorboard", purge_step=step))
                    writer.add_text("config", as_code(config), step)
                return writer

            def log(step: int, values: Mapping[str, float]) -> None:
                # A run that was stopped while it validated has told of this step's training, which is hidden, too.
                lines = [values] if writer else [line for line in logged(run_dir) if line["step"] == step]
                for line in lines:
                    for key in (key for key in line if key != "step"):
                        begun(step).add_scalar(key, line[key], step)

            yield Sink(log, lambda found: begun(None).add_text("results", as_code(found)))


def logged(run_dir: Path) -> list[dict[str, float]]:
    """The lines of `log.jsonl`: with the newest, and without those that a killed run wrote after its last save."""
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def columns(*, several: bool) -> list[str]:
    """The names of all that `log.jsonl` tells of a task with one label a video, or several."""
    told = metrics.of("several" if several else "one")
    return [*TRAINED, *(f"val_{each.validated}" for each in told if each.validated is not None)]


def tested(found: Mapping[str, Any]) -> dict[str, float]:
    """The percentages of a result."""
    names = [each.name for each in metrics.METRICS if each.unit == "percent"]
    return {f"test_{name}": found[name] for name in names if name in found}


def as_code(values: Mapping[str, Any]) -> str:
    """Values as Markdown that shows them as they are."""
    return textwrap.indent(json.dumps(values, indent=2), "    ")


@dataclass(frozen=True)
class Wandb:
    """A run on wandb, continued under the same id when the training is; `offline` writes to `run_dir/wandb`."""

    project: str
    entity: str | None
    mode: Literal["online", "offline"]

    def check(self) -> None:
        require("wandb")
        if self.mode == "online" and not _has_wandb_key():
            raise UserError(
                "tracker=wandb has no key: set WANDB_API_KEY, run `wandb login`, or use tracker.mode=offline"
            )

    @contextmanager
    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> Iterator[Sink]:
        import wandb

        os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(FINISH_SECONDS))
        run = wandb.init(
            project=self.project, entity=self.entity, mode=self.mode, dir=run_dir, name=name,
            id=own_id(run_dir / "wandb.id"), resume="allow", config=dict(config), settings=wandb.Settings(silent=True),
        )  # fmt: skip
        try:
            # wandb's own steps only grow: it would ignore the validation of a step whose training it knows already.
            run.define_metric("*", step_metric="step")
            yield Sink(
                lambda step, values: run.log({"step": step, **values}), lambda found: run.summary.update(dict(found))
            )
        finally:
            run.finish()


@dataclass(frozen=True)
class Trackio:
    """A run of trackio, on this machine (`trackio show`) or in a Space of Hugging Face's, continued as wandb's is."""

    project: str
    space: str | None  # USER/NAME

    def check(self) -> None:
        require("trackio")

    @contextmanager
    def open(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> Iterator[Sink]:
        import trackio

        with contextlib.redirect_stdout(io.StringIO()):  # how to show it, in six lines
            run = trackio.init(
                project=self.project, space_id=self.space, name=f"{name}-{own_id(run_dir / 'trackio.id')}",
                resume="allow", config=dict(config), embed=False, auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        try:
            yield Sink(
                lambda step, values: run.log(dict(values), step=step),
                lambda found: run.log(tested(found)),
            )
        finally:
            with contextlib.redirect_stdout(io.StringIO()):
                trackio.finish()  # type: ignore[no-untyped-call]


class Guarded:
    """An opened tracker whose errors are reported once and stop nothing."""

    def __init__(self, tracker: Tracker, run_dir: Path, name: str, config: Mapping[str, Any]) -> None:
        self.name, self.failed, self.stack = type(tracker).__name__.lower(), False, ExitStack()
        self.sink: Sink | None = None
        self._try("to start", lambda: self._open(tracker, run_dir, name, config))

    def __enter__(self) -> "Guarded":
        return self

    def __exit__(self, *error: object) -> None:
        self._try("to end", self.stack.close)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on the numbers of a step."""
        if (sink := self.sink) is not None:
            self._try(f"at step {step}", lambda: sink.log(step, values))

    def attach(self, found: Mapping[str, Any]) -> None:
        """Pass on the result."""
        if (sink := self.sink) is not None:
            self._try("to take the result", lambda: sink.attach(found))

    def _open(self, tracker: Tracker, run_dir: Path, name: str, config: Mapping[str, Any]) -> None:
        self.sink = self.stack.enter_context(tracker.open(run_dir, name, config))

    def _try(self, doing: str, action: Callable[[], object]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:  # of a library without a common class for errors of network and disk
            self.failed, self.sink = True, None
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            say(
                f"warning: tracker={self.name} failed {doing} ({reason}) and gets no more data; training continues, "
                "and log.jsonl has it all"
            )


def require(library: str) -> None:
    """Raise UserError if a tracker's library isn't installed."""
    if importlib.util.find_spec(library) is None:
        raise UserError(f"tracker={library} needs {library}: pip install 'aim-video[{library}]'")


def own_id(file: Path) -> str:
    """A run's id with a tracker, drawn once for each run directory: the same path elsewhere or later is another run."""
    found = file.read_text(encoding="utf-8").strip() if file.exists() else ""
    if not found:
        found = secrets.token_hex(6)
        files.write_text(file, f"{found}\n")
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
