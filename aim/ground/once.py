"""Work for exactly one of several processes."""

import os
from multiprocessing import reduction
from typing import Any


class Once:
    """Something that is done once, by this process or by one that it sends this object to.

    It is a pipe that holds a single byte: who reads it has the right. Windows can't send its end: there each process
    that gets the object does it once.
    """

    def __init__(self) -> None:
        self._end, writing = os.pipe()
        os.write(writing, b"1")
        os.close(writing)

    def take(self) -> bool:
        """Whether it's this caller who does it."""
        return bool(os.read(self._end, 1))

    def __reduce__(self) -> Any:
        if not hasattr(reduction, "DupFd"):
            return Once, ()
        return _received, (reduction.DupFd(self._end),)

    def __del__(self) -> None:
        os.close(self._end)


def _received(end: Any) -> Once:
    once = Once.__new__(Once)
    once._end = end.detach()
    return once
