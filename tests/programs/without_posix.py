"""Import all of aim and run verbs without the modules and names that Windows lacks.

`without_posix 'VERB ARGUMENTS' ...`. Other libraries keep them: they have their own ways on Windows.
"""

import builtins
import ctypes
import importlib
import multiprocessing.context
import pkgutil
import runpy
import select
import shlex
import signal
import sys
from multiprocessing import reduction
from types import ModuleType
from typing import Any

import torch.distributed.elastic.agent.server.local_elastic_agent  # noqa: F401 - which looks for some when imported

import aim

MODULES = ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty")
NAMES: tuple[tuple[Any, str], ...] = (
    *(
        (signal, f"SIG{name}")
        for name in ("ALRM", "CONT", "HUP", "KILL", "PIPE", "QUIT", "STOP", "TSTP", "USR1", "USR2")
    ),
    (signal, "pthread_sigmask"),
    (select, "poll"),
    (reduction, "DupFd"),
    (multiprocessing.context, "ForkServerContext"),
)
plain_import, plain_library = builtins.__import__, ctypes.CDLL


def found(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> ModuleType:
    """Import a module, unless a module of aim asks for one of POSIX."""
    if name in MODULES and str((globals or {}).get("__name__")).startswith("aim"):
        raise ModuleNotFoundError(f"No module named {name!r}")
    return plain_import(name, globals, locals, fromlist, level)


def library(name: str | None, *arguments: Any, **options: Any) -> Any:
    """Open a library by its name; Windows has none without."""
    if name is None:
        raise TypeError("expected a name")
    return plain_library(name, *arguments, **options)


def main(*commands: str) -> None:
    """Take away, import, run."""
    builtins.__import__ = found
    ctypes.CDLL = library  # type: ignore[assignment, misc]
    for place, name in NAMES:
        delattr(place, name)
    for module in pkgutil.walk_packages(aim.__path__, "aim."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for command in commands:
        sys.argv[:] = ["aim", *shlex.split(command)]
        try:
            runpy.run_module("aim", run_name="__main__")
        except SystemExit as end:
            print(command.split()[0], "ended with", end.code or 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
