"""Batches of clips from a pool of decoding processes that survives bad, hanging and killed ones.

torch's DataLoader can't replace a single worker, so the pool is our own. A batch is a block of shared memory,
"b v t c h w": each worker reads one video at a time, directly into its row, so nothing is copied or collated. A thread
assigns the rows and supervises the workers while the consumer trains.
"""

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Pipe

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aim.data.dataset import VideoDataset
from aim.data.lists import Video, targets
from aim.data.loading.feeder import Feeder, Filling, Planned, ReadRow, Row
from aim.data.loading.judge import Judge, Policy
from aim.data.loading.order import LISTED, Order
from aim.data.loading.pool import Pool
from aim.data.readers.interface import BadVideo
from aim.ground.errors import UserError

AHEAD = 2  # least number of batches being filled, while the consumer holds another
ROWS_A_WORKER = 2  # in those batches: the row that a process reads, and its next one
AGAIN = 1_000_003  # epochs between the clips of a video that comes again in one
PREFETCH_BYTES = 4 * 2**30  # of shared memory, a loader of a rank; but never fewer than two batches


@dataclass(frozen=True)
class Batch:
    """The input of a training step; valid until the next batch is asked for. A weight of 0 marks an empty slot."""

    video: Tensor  # uint8 "b v t c h w"; or packed features of a frozen trunk, float "b v m"
    label: Tensor  # int64 "b"
    index: Tensor  # int64 "b", places in the list
    weight: Tensor  # float32 "b"


def num_blocks(size: int, rows: int, workers: int) -> int:
    """The number of batches in memory, by `size` in bytes and rows: none is shared without workers."""
    if not workers:
        return 0
    wanted = 1 + max(AHEAD, math.ceil(ROWS_A_WORKER * workers / rows))
    return max(2, min(wanted, PREFETCH_BYTES // size))


class Loader:
    """Iterates a data set in batches of one rank, in the order that `order` gives for the epoch.

    Training has a `step_size`, of videos over all ranks: step i takes the i-th run of so many videos of the order, in
    as many batches of all ranks as that needs; places past the end of the step or the epoch have weight 0. A test has
    none: every video comes exactly once over all ranks, and the last batch of a rank is shorter.

    A video that can't be read, or takes longer than `timeout` seconds, has weight 0, is added to `bad`, and isn't tried
    again. Raises UserError if `on_error` is "raise", and where more than the share `max_bad` of the videos is bad.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        batch_size: int,
        *,
        step_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        order: Order = LISTED,
        workers: int,
        timeout: float = 60.0,
        on_error: Policy,
        max_bad: float,
        register: Callable[[Sequence[Tensor]], Callable[[], None]] | None = None,
    ) -> None:
        """`register` is called with the shared memory of the batches, and its result before that is freed."""
        self.dataset, self.batch_size, self.rank, self.world_size = dataset, batch_size, rank, world_size
        self.order, self.step_size, self.timeout, self.workers = order, step_size, timeout, workers
        setting = "data.eval_on_error" if step_size is None else "data.on_error"
        self._judged: Callable[[list[Video]], Judge] = partial(
            Judge, world_size=world_size, workers=workers,
            on_error=on_error, setting=setting, max_bad=max_bad, known=dataset.bad,
        )  # fmt: skip
        self.waited = 0.0  # seconds that the consumer has waited for batches
        row = math.prod(dataset.shape) * dataset.dtype.itemsize
        self.blocks = num_blocks(batch_size * row, batch_size, workers)
        self.shared_bytes = self.blocks * batch_size * row
        self._open: Generator[Batch, None, None] | None = None  # the newest epoch
        self._pool: Pool[Row] | None = None
        self._blocks: list[Tensor] = []
        self._register = register
        self._release: Callable[[], None] | None = None
        self.parts = 1 if step_size is None else math.ceil(step_size / (batch_size * world_size))  # batches of a step
        self.take(dataset.videos)

    def take(self, videos: list[Video]) -> None:
        """Read other videos from the next epoch on, in the existing processes."""
        self.dataset = replace(self.dataset, videos=videos)
        self._judge = self._judged(videos)
        self.bad = self._judge.bad  # path as listed -> why it could not be read
        self.seconds: dict[int, NDArray[np.float32]] = {}  # of a test: index -> "v 2", see read_video
        if self.step_size is None:
            self.batches_per_epoch = math.ceil(len(range(self.rank, len(videos), self.world_size)) / self.batch_size)
        else:
            steps, rest = divmod(len(videos), self.step_size)
            self.batches_per_epoch = steps * self.parts + math.ceil(rest / (self.batch_size * self.world_size))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the `start`-th on; those before cost nothing."""
        read = self._from_pool if self.workers else self._in_process
        with contextlib.closing(read(epoch, start)) as batches:
            self._open = batches
            while True:
                began = time.monotonic()
                batch = next(batches, None)
                self.waited += time.monotonic() - began
                if batch is None:
                    return
                yield batch

    def close(self) -> None:
        """Stop the workers and free the shared memory of all batches that aren't held."""
        if self._open:
            self._open.close()
        if self._pool:
            self._pool.close()
        if self._release:
            self._release()
        self._pool, self._blocks, self._release = None, [], None

    def _plan(self, epoch: int, start: int) -> Iterator[Planned]:
        """The indices and weights of each of this rank's batches, and the epochs of which their clips are drawn.

        A repeated video of an epoch has other clips, those of an epoch that no run reaches.
        """
        n = len(self.dataset)
        order = self.order(epoch, n)
        for batch in range(start, self.batches_per_epoch):
            places = self._places(batch)
            again, index = np.divmod(order[np.minimum(places, n - 1)], n)
            yield index, (places < n).astype(np.float32), epoch + AGAIN * again

    def _places(self, batch: int) -> NDArray[np.int64]:
        """The places in the epoch's order of this rank's videos in a batch; an empty slot's is past the end."""
        n, b = len(self.dataset), self.batch_size
        if self.step_size is None:
            return np.arange(self.rank, n, self.world_size)[batch * b : (batch + 1) * b]
        step, part = divmod(batch, self.parts)
        within = (part * self.world_size + self.rank) * b + np.arange(b)
        return np.where(within < self.step_size, step * self.step_size + within, n)

    def _batch(self, video: Tensor, index: NDArray[np.int64], weight: NDArray[np.float32]) -> Batch:
        label = targets([self.dataset.videos[i] for i in index], self.dataset.several)
        return Batch(video[: len(index)], torch.from_numpy(label), torch.from_numpy(index), torch.from_numpy(weight))

    def _in_process(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        """Read in this process: hanging readers aren't noticed."""
        for index, weight, epochs in self._plan(epoch, start):
            video = torch.zeros(len(index), *self.dataset.shape, dtype=self.dataset.dtype)
            for row in np.flatnonzero(weight):
                if index[row] in self._judge.lost:
                    weight[row] = 0
                    continue
                try:
                    at = int(index[row])
                    video[row], seconds = self.dataset.read_video(self.dataset.videos[at], int(epochs[row]), at)
                    if seconds is not None:
                        self.seconds[at] = seconds
                except BadVideo as error:
                    self._judge.blame(int(index[row]), str(self.dataset.path(index[row])), str(error))
                    weight[row] = 0
                self._judge.seen += 1
            yield self._batch(video, index, weight)

    # ------------------------------------------------------------------------------------------------ with workers
    def _from_pool(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        pool = self._pool or self._start_pool()
        ready: queue.SimpleQueue[Filling | BaseException | None] = queue.SimpleQueue()
        # The consumer's end sends a free block, and closes when it needs no more.
        mine, feeders = Pipe()
        feeder = Feeder(
            self.dataset, self._judge, pool, self._blocks,
            plan=self._plan(epoch, start), ready=ready, consumer=feeders, seconds=self.seconds,
        )  # fmt: skip
        thread = threading.Thread(target=feeder, daemon=True)
        thread.start()
        try:
            while (filled := ready.get()) is not None:
                if isinstance(filled, BaseException):
                    raise filled
                yield self._batch(feeder.blocks[filled.block], filled.index, filled.weight)
                with contextlib.suppress(OSError):  # the feeder has nothing left to fill
                    mine.send(filled.block)
        finally:
            mine.close()
            thread.join()

    def _start_pool(self) -> Pool[Row]:
        shape = (self.batch_size, *self.dataset.shape)
        try:
            with torch.inference_mode(False):  # a test's is of its own thread; the feeder writes into these, too
                self._blocks = [torch.empty(shape, dtype=self.dataset.dtype) for _ in range(self.blocks)]
            for block in self._blocks:
                block.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise UserError(
                f"no shared memory for {self.blocks} batches of {self.shared_bytes / self.blocks / 2**20:.0f} MiB "
                f"({str(error).splitlines()[0]}); in docker, use --shm-size=8g"
            ) from error
        if self._register:
            self._release = self._register(self._blocks)
        work = ReadRow(replace(self.dataset, videos=[]), self._blocks)
        self._pool = Pool(work, self.workers, self.timeout)
        return self._pool
