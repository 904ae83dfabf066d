"""The unreadable videos, and whether a run may continue without them."""

import logging
import math
from collections.abc import Mapping
from typing import Literal

from aim.data.lists import Video
from aim.ground.errors import UserError

log = logging.getLogger(__name__)

OnError = Literal["skip", "raise"]
Policy = OnError | Literal["note"]  # note: the caller reports unreadable videos itself, in any number
SEEN_BEFORE_JUDGING = 1000  # videos after which the share of bad ones counts; a run of only bad ones counts at once
ONLY_BAD = 16
STALLED = 4  # videos in a row at least, and as many as there are processes: then it isn't the videos that hang


class Judge:
    """Keeps the bad videos of a rank's loader, which aren't retried; messages name the policy by `setting`.

    Those `known` to be bad, by path, are never tried, and were judged before.
    """

    def __init__(
        self,
        videos: list[Video],
        world_size: int,
        workers: int,
        *,
        on_error: Policy,
        setting: str,
        max_bad: float,
        known: Mapping[str, str],
    ) -> None:
        self.videos, self.on_error, self.setting, self.max_bad = videos, on_error, setting, max_bad
        self.own = math.ceil(len(videos) / world_size)  # videos of this rank
        self.lost = {index for index, video in enumerate(videos) if video.path in known}
        self.bad = {videos[i].path: known[videos[i].path] for i in self.lost}  # path as listed -> why it can't be read
        self.known = len(self.lost)
        self.seen = 0
        self.hung, self.stalled = 0, max(STALLED, workers)  # videos since one was read

    def hangs(self, reason: str) -> None:
        """Count a video that hangs. Raises UserError if all do."""
        self.hung += 1
        if self.hung >= self.stalled and self.on_error != "note":
            raise UserError(
                f"the disk or data server stalls: {self.hung} videos hung one after the other, the last one {reason}; "
                "the same command continues from the last save once it answers, and a larger data.timeout waits longer"
            )

    def blame(self, index: int, path: str, reason: str) -> None:
        """Add a bad video, or raise UserError if the policy forbids it or there are too many."""
        total = len(self.videos)
        self.bad[self.videos[index].path] = reason.removeprefix(f"{path}: ")
        if self.on_error == "raise":
            share = "" if self.max_bad * total >= 1 else f" data.max_bad={math.ceil(200 / total) / 100}"
            raise UserError(
                f"{reason}; fix it, or continue without such videos: the same command with {self.setting}=skip{share}"
            )
        self.lost.add(index)
        if self.on_error == "note":
            return
        log.warning("skipped, it could not be read: %s", reason)
        lost, seen = len(self.lost) - self.known, min(self.seen + 1, total)
        enough = max(seen, min(SEEN_BEFORE_JUDGING, self.own))
        only_bad = seen == lost >= ONLY_BAD
        if lost > self.max_bad * enough or (only_bad and self.max_bad < 1):
            raise UserError(
                f"{lost} of the first {seen} videos could not be read (of {total} in all), more than "
                f"data.max_bad={self.max_bad}; the newest: {reason}; is the data set complete, and does reader=pyav "
                "read it? a larger data.max_bad continues without them; aim.prepare with verify=true names all bad ones"
            )
