"""The start of a verb: its command line, and errors as one line."""

import argparse
import codecs
import importlib
import io
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TextIO

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from aim.ground import config, folds, mistakes
from aim.ground.choices import CONFIGS
from aim.ground.errors import RankError, UserError, printable, say
from aim.ground.foreign import reason
from aim.ground.kinds import locate
from aim.ground.signals import SIGPIPE, follow_parent, interruptible
from aim.ground.threads import spin_briefly
from aim.shell import verbs, words
from aim.shell.sweep import Job, sweep


def entrypoint(
    verb: str,
    config_name: str,
    settings: str | None = None,
    *,
    wants: str | None = None,
    flags: Sequence[str] = (),
) -> NoReturn:
    """Run `main` of the package `verb`, in its verb.py, on the config composed from the command line.

    That is imported once the config is composed, so that help, a shown config and a misspelt setting don't wait
    for torch. Each job of a sweep runs in a process of its own; all must fit the class `settings` before the first one
    starts. A verb that `wants` a file of a group, an experiment say, lists them where it is told nothing; --FLAG is
    FLAG=true. A UserError and Hydra's own errors become one line on stderr and exit code 2; with debug=true, and for
    every other error, the traceback is kept.
    """
    in_utf8()
    follow_parent()
    debug = "debug=true" in (argument.lower().lstrip("+") for argument in sys.argv[1:])
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors through; they are reported here
    spin_briefly()
    take_any_name()
    jobs: list[Job] = []
    composed = False

    def task(cfg: DictConfig) -> None:
        nonlocal composed
        composed = True
        if of_sweep():
            jobs.append(job_of(verb, cfg, settings))
        else:
            with reported(debug), interruptible():  # here, too: Hydra reports errors of a job itself
                require_all(cfg)
                if "AIM_STARTED" not in os.environ:  # whose launcher has said it
                    say(f"{verb}{f' {cfg.name}' if 'name' in cfg else ''}: loading PyTorch, for some seconds")
                importlib.import_module(f"{verb}.verb").main(cfg)

    with reported(debug), interruptible():
        answer_version()
        if wants and not sys.argv[1:]:
            print(verbs.wanted_text(verb, wants))
            article = "an" if wants[0] in "aeiou" else "a"
            raise UserError(f"there is nothing to start without {article} {wants}: add +{wants}=NAME")
        given = [f"{word[2:]}=true" if word in [f"--{flag}" for flag in flags] else word for word in sys.argv[1:]]
        sys.argv[1:] = folds.expanded(words.checked(given, config_name))
        try:
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config_name)(task)()
        except (YAMLError, ValueError, TypeError, AssertionError) as error:  # of a file that is none
            if composed or isinstance(error, UserError | OmegaConfBaseException):
                raise
            folder = folders_of_configs().get("config_dir", CONFIGS)
            raise UserError(f"a YAML in {folder} is no config ({reason(error)}); fix it, or take it away") from error
        if jobs:
            sys.exit(sweep(program(verb), jobs))
    sys.exit()


def in_utf8() -> None:
    """Start this program again where Python takes names of files for ASCII, as in a cluster job without a locale.

    In its UTF-8 mode it reads and prints all of them, as it does elsewhere, and so do the processes that it starts.
    """
    is_ascii = codecs.lookup(sys.getfilesystemencoding()).name == "ascii"
    if is_ascii and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def require_all(cfg: DictConfig) -> None:
    """Raise UserError for settings without a value: all of them at once, before the slow imports."""
    if absent := sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(f"{' and '.join(absent)} must be given: add {' '.join(f'{key}=VALUE' for key in absent)}")
    if not cfg.get("checkpoint", "none") and "name" not in cfg.backbone:
        raise UserError("give one of checkpoint=FILE, a trained model, and backbone=NAME, a trunk alone")


def take_any_name() -> None:
    """Read names of files that aren't UTF-8 as the system gives them, and print them escaped, as JSON does."""
    for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def answer_version() -> None:
    """Print the versions and exit, if --version is given."""
    if "--version" in sys.argv[1:]:
        print(verbs.version_text())
        sys.exit(0)


def of_sweep() -> bool:
    """Whether this is a job of a sweep that Hydra would run in this process. Other launchers than its own don't."""
    cfg = HydraConfig.get()
    return cfg.mode == RunMode.MULTIRUN and cfg.launcher._target_.endswith(".BasicLauncher")


def again(verb: str) -> list[str]:
    """The command line that repeats this process."""
    return [*program(verb), *own_overrides()]


def own_overrides() -> list[str]:
    """The overrides of this job; none when composed in a notebook."""
    if not HydraConfig.initialized():
        return []
    given = HydraConfig.get().overrides
    return [*(text for text in given.hydra if not text.startswith("hydra.mode=")), *given.task]


def job_of(verb: str, cfg: DictConfig, settings: str | None) -> Job:
    """A job of a sweep, with the error that would stop it before it begins. Folds have folders inside of `run_dir`."""
    run_dir = None
    given = own_overrides()
    data = cfg.get("data") or {}
    if cfg.get("run_dir") is not None and data.get("fold") is not None:
        cfg.run_dir = str(Path(cfg.run_dir) / folds.name_of(data["fold"]))
        given = [text for text in given if not text.startswith("run_dir=")]
        given.append(words.quoted(f"run_dir={cfg.run_dir}"))
    try:
        if settings is None:
            config.resolve(cfg)
        else:
            built = config.build(cfg, locate(settings))
            run_dir = built.directory() if verb == "aim.train" else None
    except (UserError, OmegaConfBaseException) as error:
        return Job(given, None, str(error) if isinstance(error, UserError) else mistakes.explain(error))
    return Job(given, run_dir, None)


def program(verb: str) -> list[str]:
    """The command that starts this verb, with the folders of configs that this one was given."""
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in folders_of_configs().items()]
    return [sys.executable, "-m", verb, *flags]


def folders_of_configs() -> dict[str, str]:
    """The options of this command line that say where configs are."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for short, name in (("-cd", "--config-dir"), ("-cn", "--config-name"), ("-cp", "--config-path")):
        parser.add_argument(short, name)
    given = vars(parser.parse_known_args(sys.argv[1:])[0])
    return {key: value for key, value in given.items() if value is not None}


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Turn a user's error inside the block into one line and exit code 2, a second Ctrl-C into 130, unless `debug`.

    So is the system's refusal of a file, which no check has foreseen: but for ranks, which are started again.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not debug:
            say("ended by a second Ctrl-C; the last save is kept")
            sys.exit(128 + signal.SIGINT)
        if isinstance(error, BrokenPipeError) and unread(sys.stdout):
            sys.exit(128 + SIGPIPE)
        if debug:
            raise
        if isinstance(error, HydraException | OmegaConfBaseException):
            text = mistakes.explain(error)
        elif isinstance(error, UserError):
            text = str(error)
        elif isinstance(error, OSError) and error.filename is not None and "RANK" not in os.environ:
            text = f"{error.filename}: {error.strerror}; debug=true shows where"
        else:
            raise
        _tell_torchrun(text)
        # An error before the ranks meet is found by all of a machine: one of them reports it.
        if isinstance(error, RankError) or os.environ.get("LOCAL_RANK", "0") == "0":
            print(printable(f"aim: error: {text}"), file=sys.stderr)
        sys.exit(error.code if isinstance(error, RankError) else 2)


def unread(stream: TextIO) -> bool:
    """Whether nobody reads it any more, as after `| head`; it then leads nowhere, for Python closes it at the end."""
    gone = not hasattr(select, "poll")  # on Windows nothing tells which pipe is broken
    if not gone:
        poll = select.poll()
        poll.register(stream, 0)  # which still tells of errors
        gone = bool(poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return gone


def _tell_torchrun(text: str) -> None:
    """Leave an error where torchrun looks for it: it ends with that, below the pages that it prints itself."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        shown = {"py_callstack": text, "timestamp": str(int(time.time()))}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": {"message": text, "extraInfo": shown}}), encoding="utf-8")
