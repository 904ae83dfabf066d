"""Programs that tests start as processes."""

import sys


def command(name: str, *arguments: object) -> list[str]:
    """The command line of one of them; it is found from the project's root, or with that in PYTHONPATH."""
    return [sys.executable, "-m", f"{__name__}.{name}", *map(str, arguments)]
