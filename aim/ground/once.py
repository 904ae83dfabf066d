"""Work for exactly one of several processes."""

import os
from multiprocessing.reduction import DupFd
from typing import Any


class Once:
    """Something that is done once, by this process or by one that it sends this object to.

    It is a pipe that holds a single byte: who reads it has the right.
    """

    def __init__(self) -> None:
        self._end, writing = os.pipe()
        os.write(writing, b"1")
        os.close(writing)

    def take(self) -> bool:
        """Whether it's this caller who does it."""
        return bool(os.read(self._end, 1))

    def __reduce__(self) -> Any:
        return _received, (DupFd(self._end),)

    def __del__(self) -> None:
        os.close(self._end)


def _received(end: Any) -> Once:
    once = Once.__new__(Once)
    once._end = end.detach()
    return once
