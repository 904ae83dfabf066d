"""How a verb starts: its command line, the jobs of a sweep, and errors as one line."""

import argparse
import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from aim import config
from aim.config import CONFIGS, leaves
from aim.errors import RankError, UserError, nearest
from aim.signals import INTERRUPTED, SIGNALS, as_parent, follow_parent, forwarded, interruptible

# Settings that are paths: runs/demo,seed=1/best.safetensors is one, without quotes.
PATHS = ("run_dir", "init", "checkpoint", "input", "out", "data.root", "backbone.weights")

SPINS = "10000"  # of GNU OpenMP, about a tenth of a millisecond

STOPPED = (INTERRUPTED, *(-number for number in SIGNALS))  # exit codes of a job that a signal ended


@dataclass(frozen=True)
class Job:
    """One member of a sweep: its part of the command line, and what is wrong with it."""

    overrides: list[str]
    problem: str | None


def entrypoint(verb: str, config_name: str, settings: str | None = None) -> NoReturn:
    """Run `main` of the module `verb` on the config composed from the command line.

    The module is imported once the config is composed, so that help, a shown config and a misspelt setting don't wait
    for torch. Each job of a sweep runs in a process of its own; all must fit the class `settings` before the first one
    starts. A UserError and Hydra's own errors become one line on stderr and exit code 2; with debug=true, and for every
    other error, the traceback is kept.
    """
    follow_parent()
    debug = "debug=true" in (argument.lower().lstrip("+") for argument in sys.argv[1:])
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors through; they are reported here
    spin_briefly()
    jobs: list[Job] = []

    def task(cfg: DictConfig) -> None:
        if of_sweep():
            jobs.append(Job(own_overrides(), problem_of(cfg, settings)))
        else:
            with reported(debug), interruptible():  # here, too: Hydra has a say of its own about what leaves a job
                importlib.import_module(verb).main(cfg)

    sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]
    with reported(debug), interruptible():
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(task)()
        if jobs:
            sys.exit(sweep(program(verb), jobs))
    sys.exit()


def spin_briefly() -> None:
    """Let torch's threads on a CPU sleep where they would wait for each other for long.

    By default they spin for milliseconds, on cores that decoding processes need, and for threads that these displace.
    OpenMP reads it when torch is imported.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def of_sweep() -> bool:
    """Whether this is a job of a sweep that Hydra would run in this process. Other launchers than its own don't."""
    cfg = HydraConfig.get()
    return cfg.mode == RunMode.MULTIRUN and cfg.launcher._target_.endswith(".BasicLauncher")


def again(verb: str) -> list[str]:
    """The command line that does again what this process was told."""
    return [*program(verb), *own_overrides()]


def own_overrides() -> list[str]:
    """The overrides of this job; none when composed in a notebook."""
    if not HydraConfig.initialized():
        return []
    overrides = HydraConfig.get().overrides
    return [*(text for text in overrides.hydra if not text.startswith("hydra.mode=")), *overrides.task]


def problem_of(cfg: DictConfig, settings: str | None) -> str | None:
    """What would stop a job before it begins."""
    try:
        if settings is None:
            config.resolve(cfg)
        else:
            config.build(cfg, config.locate(settings))
    except (UserError, OmegaConfBaseException) as error:
        return str(error) if isinstance(error, UserError) else explain(error)
    return None


def program(verb: str) -> list[str]:
    """The command that starts this verb, with the folders of configs that this one was given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for short, name in (("-cd", "--config-dir"), ("-cn", "--config-name"), ("-cp", "--config-path")):
        parser.add_argument(short, name)
    given = vars(parser.parse_known_args(sys.argv[1:])[0])
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in given.items() if value is not None]
    return [sys.executable, "-m", verb, *flags]


def sweep(command: Sequence[str], jobs: Sequence[Job]) -> int:
    """Run the jobs one after the other, whatever becomes of each; return the exit code of all.

    A signal goes to the job that runs, and no further one starts. Raises UserError if one of them can't run at all.
    """
    common = set.intersection(*(set(job.overrides) for job in jobs))
    names = [" ".join(text for text in job.overrides if text not in common) or "the only one" for job in jobs]
    if problems := [f"{name}: {job.problem}" for name, job in zip(names, jobs, strict=True) if job.problem]:
        raise UserError("; ".join(problems))
    failed: dict[str, int] = {}
    running: list[int] = []
    with forwarded(lambda: running) as stop:
        for i, (name, job) in enumerate(zip(names, jobs, strict=True), 1):
            say(f"job {i} of {len(jobs)}: {name}")
            # Ranks that torchrun has started meet once a job.
            environment = os.environ | as_parent() | {"AIM_JOB": str(i)}
            process = subprocess.Popen([*command, *job.overrides], env=environment, start_new_session=True)
            running[:] = [process.pid]
            if stop:  # it came before there was a job to pass it on to
                process.terminate()
            code = process.wait()
            running.clear()
            if stop and (code in STOPPED or i < len(jobs)):
                say(f"stopped by a signal in job {i} of {len(jobs)}; the same command continues")
                return INTERRUPTED
            if code:
                failed[name] = code
    if failed:
        which = "; ".join(f"{name} ({meaning(code)})" for name, code in failed.items())
        say(f"error: {len(failed)} of {len(jobs)} jobs failed: {which}")
    codes = [code if code > 0 else 1 for code in failed.values()]
    return 2 if 2 in codes else next(iter(codes), 0)


def say(text: str) -> None:
    """A line on stderr, from one rank."""
    if os.environ.get("RANK", "0") == "0":
        print(f"aim: {text}", file=sys.stderr, flush=True)


def meaning(code: int) -> str:
    """The exit code of a process in words."""
    return f"exit code {code}" if code > 0 else f"killed by {signal.Signals(-code).name}"


def quoted(argument: str) -> str:
    """A path setting as Hydra's grammar wants it, which gives `=`, commas and spaces in it a meaning of their own."""
    key, _, value = argument.partition("=")
    if key.lstrip("+") not in PATHS or value[:1] in ("'", '"', "$", "") or value == "null":
        return argument
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


class reported:
    """Turn a user's error inside the block into one line and exit code 2, a second Ctrl-C into 130, unless `debug`."""

    def __init__(self, debug: bool) -> None:
        self.debug = debug

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, KeyboardInterrupt) and not self.debug:
            say("ended by a second Ctrl-C; what was saved before is kept")
            sys.exit(128 + signal.SIGINT)
        if self.debug or not isinstance(error, UserError | HydraException | OmegaConfBaseException):
            return
        text = str(error) if isinstance(error, UserError) else explain(error)
        if isinstance(error, RankError):
            print(f"aim: error: {text}", file=sys.stderr)
            sys.exit(error.code)
        # What is found before the ranks meet, all of a machine find: one of them says it.
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"aim: error: {text}", file=sys.stderr)
        sys.exit(2)


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf: the full key, and the nearest right one."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1].split("@")[0]
        if "No match in the defaults list" in text:
            return f"{key!r} is not in the defaults; to add it write +{key}=NAME"
        known = _all_keys()
        if key in known:
            return f"{key} is a mapping; to add to it write +{key}={{KEY: VALUE}}"
        return f"no setting {key!r}{nearest(key, known)}"
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        group, name = match.groups()
        choices = sorted(
            path.relative_to(CONFIGS / group).with_suffix("").as_posix() for path in (CONFIGS / group).rglob("*.yaml")
        )
        return f"no {group} {name!r}{nearest(name, choices)}; there are: {', '.join(choices)}"
    if match := re.search(r"Multiple values for ([^.]+)\.", text):
        return f"{match[1]} is given twice; write {match[1]}=NAME, without a plus, or name it once"
    if match := re.search(r"Missing mandatory value: .*full_key: (\S+)", text):
        return f"{match[1]} must be given: add {match[1]}=VALUE"
    if match := re.search(r"Environment variable '([^']+)' not found", text):
        return f"the environment variable {match[1]} is not set"
    if "mismatched input" in text or "token recognition" in text:
        reason = re.sub(r"\s*See \S+ for details", "", text)
        hint = "an override is KEY=VALUE, and a VALUE with , = or spaces wants quotes of its own"
        return f"{reason}; {hint}: \"KEY='VALUE'\""
    return text.split(" full_key:")[0]


def _all_keys() -> list[str]:
    """The dotted names of all settings that some config file has."""
    keys = set()
    for path in CONFIGS.rglob("*.yaml"):
        folder = path.relative_to(CONFIGS).parts[:-1]
        cfg = OmegaConf.load(path)
        in_group = folder and folder[0] != "experiment"
        keys |= {".".join((*folder, key)) if in_group else key for key, _ in leaves(OmegaConf.to_container(cfg))}
    keys |= {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    return sorted(key for key in keys if not re.search(r"(^|\.)(defaults|_target_|hydra)", key))
