"""The age of a command, and durations as text."""

import os
import time
from pathlib import Path


def clock(seconds: float) -> str:
    """Seconds as a person says them: 42s, 3m05s, 2h17m, 1d04h."""
    seconds = round(seconds)
    for unit, smaller, size, small in (("d", "h", 86400, 3600), ("h", "m", 3600, 60), ("m", "s", 60, 1)):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // small:02d}{smaller}"
    return f"{seconds}s"


def seconds_since_start() -> float:
    """Seconds since the user's command started: of this process, or of the one that launched it as a rank."""
    began = os.environ.get("AIM_STARTED")
    return time.time() - (float(began) if began else _process_start())


def _process_start() -> float:
    """When this process started, as Unix time."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - (uptime - int(after_name[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError, ValueError):
        return _IMPORTED


_IMPORTED = time.time()
