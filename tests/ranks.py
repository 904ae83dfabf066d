"""Real ranks of a program that ends in one way or another."""

import os
import subprocess

from tests.conftest import ROOT
from tests.programs import command


def start(case: str, ranks: int = 2, restarts: int = 0) -> "subprocess.Popen[str]":
    """Launch ranks of `programs/ranks.py`."""
    return subprocess.Popen(
        command("launches", ranks, restarts, "tests.programs.ranks", case),
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # as a shell starts it: Ctrl-Z suspends only jobs of a shell
    )
