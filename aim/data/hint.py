"""A line about videos, printed once, by the first few of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aim.ground.errors import say

LOOKED_AT = 16  # videos


@dataclass
class Hint:
    """Says, once, what is found `about` a video; an empty text says nothing. The first few videos are looked at."""

    about: Callable[[Path], str]
    left: int = LOOKED_AT

    def of(self, path: Path) -> None:
        """Look at a video that could be read."""
        self.left -= 1
        if self.left >= 0 and path.is_file() and (text := self.about(path)):
            self.left = 0
            say(text)
