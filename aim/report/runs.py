"""The contents of a run directory: of a training, finished or not, and of a test."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from aim.data.lists import read_lines
from aim.engine.run import identity
from aim.engine.run.naming import is_one_of
from aim.engine.scores import predictions
from aim.engine.scores.metrics import Metric
from aim.engine.scores.metrics import main_of as main_of_names
from aim.engine.scores.predictions import Predictions
from aim.engine.telling import bad_list
from aim.ground import choices, config, folds
from aim.ground.errors import UserError
from aim.ground.foreign import read_json
from aim.ground.marks import Mark, marked
from aim.ground.paths import exists

NUMBERS = ("params_tuned", "params_total", "gmacs_per_view", "seconds")
KINDS = {"views": str} | dict.fromkeys(NUMBERS, int | float)  # of results.json
AGAIN = "delete it and repeat the command that wrote it, aim.train or aim.eval"
ELSEWHERE = marked(Mark.ELSEWHERE)
PAPER = re.compile(r"(\d+\.\d) top-1 \(the paper's, (tables? [^)]+)\)")


@dataclass(frozen=True)
class RunData:
    """The contents of a run directory; `results` is None for an unfinished run."""

    path: Path
    results: Mapping[str, Any] | None
    settings: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]] = field(default=(), repr=False)  # the lines of log.jsonl
    found: Predictions | None = field(default=None, repr=False)  # of its test, or of its newest validation
    bad: Mapping[str, str] = field(default_factory=dict, repr=False)  # path -> the reason why it can't be read
    temperature: float | None = None  # of its checkpoint, if it has one
    title: str = ""  # its name among others

    @property
    def name(self) -> str:
        """The directory's, unless given."""
        return self.title or self.path.resolve().name

    @property
    def trains(self) -> bool:
        """Whether it is a training, not a test of aim.eval."""
        return self.results is None or "checkpoint" not in self.results

    @property
    def temperature_of(self) -> str:
        """A warning if the temperature was fitted on the test's own videos, or for other weights."""
        if self.results is None:
            return ""
        validates = self.settings.get("train", {}).get("eval_every", 1)
        apart = "test_hash" in self.results.get("identity", {})
        older = bool(self.results.get("chose")) or (self.trains and not apart)
        own = self.results.get("fits_temperature", older)
        other = self.trains and self.results.get("weights") == "last" and validates
        said = {
            "fitted on these very videos, so that this error is too low": own,
            "for the best epoch's weights": other,
        }
        return ", ".join(text for text, is_so in said.items() if is_so)

    @property
    def deciding(self) -> dict[str, Any]:
        """The dotted settings that affect the result."""
        found = identity.experiment_settings(self.settings)
        if "adapter.kind" in found:
            found["adapter.kind"] = choices.name_of("adapter", self.settings["adapter"])
        return found

    @property
    def progress(self) -> str:
        """The progress of an unfinished training."""
        steps, main = [line for line in self.log if "loss" in line], main_of([self])
        key = f"val_{main.validated}"
        validations = [line for line in self.log if key in line]
        epochs = self.settings.get("train", {}).get("epochs", "?")
        text = f"epoch {steps[-1]['epoch']:.1f} of {epochs}" if steps else "before its first line of log"
        return text + (f", validation {main.words} {validations[-1][key]:.1f} %" if validations else "")

    @property
    def baseline(self) -> Mapping[str, float]:
        """The value of each metric for one answer to all videos, if known."""
        if self.results is None:
            return {} if self.found is None else self.found.baseline
        if "baseline" in self.results:
            known: Mapping[str, float] = self.results["baseline"]
            return known
        from aim.engine.scores import guessing  # late, as torch takes seconds

        return guessing.baseline_of(self.results)


def main_of(runs: Sequence[RunData]) -> Metric:
    """The main score of the first run with one."""
    names = {name for run in runs[:1] for line in ([run.results] if run.results else run.log) for name in line}
    return main_of_names(names)


def read(run_dir: Path, *, whole: bool = False) -> RunData:
    """The contents of a run directory; with `whole` also its log, its predictions and its bad videos.

    Raises UserError if a file is damaged.
    """
    done, said = run_dir / "results.json", run_dir / "config.yaml"
    run = RunData(run_dir, read_results(done) if done.exists() else None, config.load(said) if said.exists() else {})
    if not whole:
        return run
    return replace(
        run,
        log=read_log(run_dir / "log.jsonl"),
        found=read_predictions(run_dir, finished=run.results is not None),
        bad=bad_list.read(run_dir),
        temperature=read_temperature(run_dir, run.results),
    )


def comparable(runs: Sequence[RunData]) -> list[RunData]:
    """The runs with this version's settings, unless all have the same: versions differ, and tests have more."""
    if len({frozenset(run.deciding) for run in runs}) <= 1:
        return list(runs)
    found = list[RunData]()
    for run in runs:
        settings = run.settings
        with suppress(UserError):  # a class missing here
            settings = identity.of_today(settings) if settings else settings
        found.append(replace(run, settings=settings))
    return found


def distinct(runs: Sequence[RunData]) -> list[RunData]:
    """The runs; equal directory names get as many parent folders as distinguish them."""
    places = [run.path.resolve().parts for run in runs]

    def ending(own: tuple[str, ...]) -> tuple[str, ...]:
        ends = (own[-count:] for count in range(1, len(own)))
        return next((end for end in ends if sum(other[-len(end) :] == end for other in places) == 1), own)

    return [replace(run, title="/".join(ending(own))) for run, own in zip(runs, places, strict=True)]


def read_results(file: Path) -> dict[str, Any]:
    """The results for a report. Raises UserError if the file is damaged."""
    results: dict[str, Any] = read_json(file, dict, "the result of a run", AGAIN)
    main = {main_of_names(results).name: int | float}
    lacking = [key for key, kind in (KINDS | main).items() if not isinstance(results.get(key), kind)]
    if lacking:
        raise UserError(f"{file} lacks {', '.join(lacking)}; {AGAIN}")
    return results


def read_log(file: Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl; the last one may be incomplete."""
    found = []
    for line in read_lines(file) if file.exists() else ():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict) and isinstance(entry.get("epoch"), int | float):
            found.append({key: value for key, value in entry.items() if isinstance(value, int | float)})
    return found


def read_predictions(run_dir: Path, *, finished: bool) -> Predictions | None:
    """Those of a finished run's test, else of the newest validation. Raises UserError if they are damaged."""
    for name in (predictions.TEST, predictions.VALIDATION) if finished else (predictions.VALIDATION,):
        if (run_dir / name).exists():
            return predictions.read(run_dir / name)
    return None


def read_temperature(run_dir: Path, results: Mapping[str, Any] | None) -> float | None:
    """That of the tested checkpoint, or a training's; None if it is missing or has none."""
    if results is None:
        return None
    file = Path(results.get("checkpoint", run_dir / "best.safetensors"))
    try:
        with safe_open(file, "np") as opened:
            found = json.loads((opened.metadata() or {}).get("temperature", "null"))
    except (OSError, ValueError, SafetensorError):
        return None
    return found if isinstance(found, int | float) and 0 < found < math.inf else None


def reportable(paths: Sequence[Path]) -> list[Path]:
    """The run directories among them, finished or not, once. Raises UserError for a missing one, or without any."""
    folders = dict[Path, Path]()
    for path in paths:
        if not exists(path):
            raise UserError(f"{path} doesn't exist; give the directories of runs")
        folders.setdefault(path.resolve(), path)
    files = ("results.json", "config.yaml")
    for path in [path for path in folders.values() if not any((path / name).is_file() for name in files)]:
        folders |= {fold.resolve(): fold for fold in folds_in(path)}
    found = [path for path in folders.values() if any((path / name).is_file() for name in files)]
    if not found:
        names = ", ".join(map(str, paths))
        above = [path for path in paths if any(file for name in files for file in path.glob(f"*/{name}"))]
        hint = f": {' '.join(f'{path}/*' for path in above)}" if above else ""
        raise UserError(f"{names}: no results.json, and no running training; give the directories of runs{hint}")
    return found


def folds_in(path: Path) -> list[Path]:
    """The folds in the folder of a sweep, by their numbers; none in another folder."""
    there = [each for each in path.glob("fold*") if folds.is_fold(each) and each.is_dir()]
    return sorted(there, key=lambda each: (len(each.name), each.name))


def paper(name: str, settings: Mapping[str, Any]) -> str:
    """The paper's top-1 for the experiment of this name, and the differing settings; empty if it has none."""
    folder = choices.CONFIGS / "experiment"
    file = next((file for file in folder.rglob("*.yaml") if file.stem == name), None)
    match = PAPER.search(file.read_text(encoding="utf-8").partition("defaults:")[0]) if file else None
    if file is None or match is None:
        return ""
    place = file.relative_to(folder).with_suffix("").as_posix()
    published = identity.experiment_settings(config.resolve(config.compose([f"+experiment={place}"])))
    ours = identity.experiment_settings(settings)
    differ = [
        key.removesuffix(".kind")
        for key in sorted(published.keys() & ours.keys())
        if published[key] != ours[key] and not is_one_of(key, ELSEWHERE)
    ]
    more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
    return f"{match[1]} % ({match[2]})" + (f", with another {', '.join(differ[:3])}{more}" if differ else "")
