"""Output during training: a progress bar or lines, `log.jsonl`, and the trackers' values."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from aim.engine.machine.hardware import peak_memory
from aim.engine.scores.guessing import OneAnswer
from aim.engine.telling.tracking import Log
from aim.engine.telling.watching import Watch
from aim.ground import files
from aim.ground.console import SLOW, Display
from aim.ground.errors import say


class Report:
    """The output of training: the display, `log.jsonl` and the tracker; only rank 0 writes."""

    def __init__(
        self,
        run_dir: Path,
        log: Log,
        *,
        step: int,
        rested: int,
        total: int,
        steps_per_epoch: int,
        batch_size: int,
        device: torch.device,
        watch: Watch,
        visible: bool,
    ) -> None:
        self.log, self.step, self.steps_per_epoch, self.batch_size = log, step, steps_per_epoch, batch_size
        self.device, self.watch = device, watch
        self.display = Display("train", total, visible=visible, start=step, hint=SLOW, concludes=True)
        self.journal = Journal(run_dir / "log.jsonl", step, rested) if visible else None
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
        """Tell of the steps since the last line: `window` is that of State, `waited` is in seconds so far."""
        now = time.monotonic()
        seconds = self._passed(now)
        for text in self.watch.line(step, window, waited - self.waited, seconds):
            self.warn(text)
        loss, weight, hits, norms, steps = window
        values = {
            "epoch": self.epoch(step),
            "loss": loss / max(1.0, weight),
            "top1": 100 * hits / max(1.0, weight),
            "gradient_norm": norms / max(1.0, steps),
            "lr": lr,
            "clips_per_second": (step - self.step) * self.batch_size / seconds if seconds else 0.0,
            "waiting": min(1.0, (waited - self.waited) / seconds) if seconds else 0.0,
            "peak_memory_gib": round(peak_memory(self.device) / 2**30, 3),
            "weight": weight,
        }
        self.step, self.waited, self.seconds, self.time = step, waited, 0.0, now
        self._write(step, values)
        chance = self.watch.chance
        right, always = ("likeliest label right", "one answer") if chance.several else ("top-1", "largest class")
        self.text = (
            f"loss {values['loss']:.3f}  {right} {values['top1']:.1f} %  {values['clips_per_second']:.1f} clips/s  "
            f"{values['waiting']:.0%} waiting for data  lr {lr:.1e}  {always} {chance.hits:.1%}"
        )

    def warn(self, text: str) -> None:
        """Print a warning on stderr."""
        if self.journal:
            say(f"warning: {text}")

    def tick(self, step: int) -> None:
        """A step is done."""
        self.display.update(step, self.text)

    def epoch(self, step: int) -> float:
        """The number of epochs of these steps."""
        return round(step / self.steps_per_epoch, 3)

    def validated(
        self, step: int, scores: Mapping[str, float], told: str, *, improved: bool, one_answer: OneAnswer | None
    ) -> None:
        """Tell of a validation: to a person its main scores, as they are `told`."""
        self._write(step, {"epoch": self.epoch(step), **{f"val_{name}": value for name, value in scores.items()}})
        more = [*(["best so far"] if improved else []), *([f"but {one_answer}"] if one_answer else [])]
        self.display.say("; ".join([f"epoch {self.epoch(step):g}: validation {told}", *more]))

    def pause(self) -> None:
        """Leave what follows, up to `resume`, out of the speed; the steps before it keep their time."""
        self.seconds, self.time = self._passed(time.monotonic()), None
        self.display.pause()

    def resume(self) -> None:
        """Training continues."""
        self.time = time.monotonic()
        self.display.resume()

    def _passed(self, now: float) -> float:
        """The seconds of training since the last line."""
        return self.seconds + (0.0 if self.time is None else now - self.time)

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self.journal:
            self.journal(step, values)
            self.log(step, values)


class Journal:
    """Appends to `log.jsonl`; continuing drops an interrupted run's lines after its last save.

    That save holds the `step`, and the one up to which what follows epochs and validations is done (`rested`).
    """

    def __init__(self, path: Path, step: int, rested: int) -> None:
        kept = []
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    if entry["step"] <= (rested if any(key.startswith("val_") for key in entry) else step):
                        kept.append(f"{line}\n")
                except (ValueError, TypeError, KeyError, RecursionError):
                    break  # the line that the crash cut short
        files.write_text(path, "".join(kept))
        self.path, self.file = path, path.open("a", encoding="utf-8")

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        with self._writing():
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            self.file.flush()

    def close(self) -> None:
        with self._writing():
            self.file.close()

    def _writing(self) -> AbstractContextManager[None]:
        return files.writing(self.path, files.AGAIN)
