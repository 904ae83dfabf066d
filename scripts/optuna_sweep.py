"""One sweep on many machines: each takes the next trial of an Optuna study in a shared folder.

    python scripts/optuna_sweep.py OUT --trials 40 --try optim.lr=1e-5..1e-2 --try adapter.ratio=0.125,0.25,0.5 \
        +experiment=k400 data.root=DIR

Start it on as many machines as you like, now or later: `sbatch --array=0-15`, a Kubernetes Job, a loop of a shell.
A..B is a range, of whole numbers if both are, else logarithmic; commas separate values. The study is
OUT/study.journal (Optuna's JournalStorage), each trial's run OUT/TRIED. No values are tried twice: a worker holds the
lease of its run, and a finished run keeps its result. The trial of a killed worker is continued by the next worker that
starts a minute later. Exit codes: 0 done, 1 a run failed, 2 an error to fix, 75 interrupted: start it again.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from aim.ground import files, jobs, lease
from aim.ground.errors import UserError, say
from aim.ground.foreign import read_json
from aim.ground.signals import INTERRUPTED

try:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ImportError:
    sys.exit("aim: error: this takes Optuna: pip install 'aim-video[optuna]'")

TRAIN = (sys.executable, "-m", "aim.train")
LOST = timedelta(minutes=1)  # the age of a trial without a worker that isn't a new one
REPEATED = 100  # repeated suggestions in a row that end the search


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("words", nargs="*", help="of aim.train")
    parser.add_argument("--trials", type=int, required=True, help="of all machines together")
    parser.add_argument("--try", dest="ranges", action="append", required=True, help="KEY=A..B or KEY=A,B,C")
    args = parser.parse_intermixed_args(arguments)
    try:
        ranges = dict(map(range_of, args.ranges))
        files.make_folder(args.out)
        return work(args.out, args.trials, ranges, args.words)
    except UserError as error:
        say(f"error: {error}")
        return 2


def range_of(text: str) -> tuple[str, Any]:
    """A setting and its values."""
    key, _, values = text.partition("=")
    low, dots, high = values.partition("..")
    try:
        if not dots:
            return key, optuna.distributions.CategoricalDistribution(values.split(","))
        if low.isdecimal() and high.isdecimal():
            return key, optuna.distributions.IntDistribution(int(low), int(high))
        return key, optuna.distributions.FloatDistribution(float(low), float(high), log=True)
    except ValueError as error:
        raise UserError(f"--try {text}: {error}; write KEY=A..B with 0 < A < B, or KEY=A,B,C") from error


def work(out: Path, trials: int, ranges: Mapping[str, Any], words: Sequence[str]) -> int:
    """Run trials until there are enough: the exit code."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(out / "study.journal")))
    study = optuna.create_study(storage=storage, study_name="aim", direction="maximize", load_if_exists=True)
    take_up(study, out)
    repeated = 0
    while repeated < REPEATED and len(begun(study)) < trials:
        trial = study.ask(dict(ranges))
        folder = folder_of(out, trial.params)
        earlier = [each for each in begun(study) if each.number < trial.number]
        if len(earlier) >= trials:  # of all machines at once
            study.tell(trial, state=TrialState.PRUNED)
            break
        try:
            with lease.held(folder):
                known = any(each.params == trial.params for each in earlier if each.state == TrialState.COMPLETE)
                repeated = repeated + 1 if known else 0
                code = 0 if known else train(folder, trial.params, words)
                if known:
                    study.tell(trial, state=TrialState.PRUNED)
                elif not code:
                    study.tell(trial, score(folder))
                else:
                    study.tell(trial, state=TrialState.FAIL)
                    if code == INTERRUPTED:
                        study.enqueue_trial(trial.params)
                    return code
        except UserError:  # another worker has it
            study.tell(trial, state=TrialState.PRUNED)
            repeated += 1
    best = study.best_trial
    say(f"{len(begun(study))} trials; the best, {best.value:g}: {folder_of(out, best.params)}")
    return 0


def begun(study: Any) -> list[Any]:
    """The finished and running trials."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))


def take_up(study: Any, out: Path) -> None:
    """Release the trials of killed workers."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if datetime.now() - trial.datetime_start < LOST:
            continue
        with suppress(UserError), lease.held(folder_of(out, trial.params)):  # nobody has it
            study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            study.enqueue_trial(trial.params)


def folder_of(out: Path, params: Mapping[str, Any]) -> Path:
    """The directory of the trial of these values."""
    return out / files.fitting(",".join(f"{key}={value}" for key, value in params.items()) or "none")


def train(folder: Path, params: Mapping[str, Any], words: Sequence[str]) -> int:
    """Train, or continue a killed worker's run: the exit code. A finished run takes no time."""
    if (folder / "run" / "results.json").exists():
        return 0
    values = [f"{key}={value}" for key, value in params.items()]
    codes, stopped = jobs.run([[*TRAIN, *words, *values, f"run_dir={folder / 'run'}"]])
    return INTERRUPTED if stopped else codes[0]


def score(folder: Path) -> float:
    """The main score of a run."""
    found = read_json(folder / "run" / "results.json", dict, "the result of a run", "delete it")
    return float(found[found["headline"][0]["name"]])


if __name__ == "__main__":
    sys.exit(main())
