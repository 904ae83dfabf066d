"""Batches of clips from a pool of decoding processes that outlives bad, hanging and killed ones.

torch's DataLoader can't replace a single worker, so the pool is our own. A batch is a block of shared memory,
"b v t c h w": each worker reads one video at a time, straight into its row, so nothing is copied or collated. A thread
hands out the rows and looks after the workers while the consumer trains.
"""

import contextlib
import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aim.data.dataset import OnError, VideoDataset
from aim.data.lists import Video
from aim.data.pool import Outcome, Pool
from aim.data.readers.interface import BadVideo
from aim.errors import UserError

log = logging.getLogger(__name__)

AHEAD = 2  # batches that are being filled at least, while the consumer holds another
ROWS_A_WORKER = 2  # in those batches: what each process reads, and what it reads next
PREFETCH_BYTES = 4 * 2**30  # of shared memory, a loader of a rank; but never fewer than two batches
SEEN_BEFORE_JUDGING = 1000  # videos after which the share of bad ones counts; a run of only bad ones counts at once
ONLY_BAD = 16


@dataclass(frozen=True)
class Batch:
    """What a training step works on; valid until the next batch is asked for. A weight of 0 marks an empty slot."""

    video: Tensor  # uint8 "b v t c h w"
    label: Tensor  # int64 "b"
    index: Tensor  # int64 "b", places in the list
    weight: Tensor  # float32 "b"


@dataclass
class Filling:
    """A batch on its way: the block it lies in, the videos of its rows, and how many rows are missing."""

    block: int
    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = int(self.weight.sum())


Row = tuple[Filling, int]  # a row of a batch
Task = tuple[int, int, int, int, Video]  # block, row, epoch, index, video


@dataclass(frozen=True)
class ReadRow:
    """What a process of the pool does: it reads a video into a row of a block of shared memory."""

    dataset: VideoDataset
    blocks: list[Tensor]

    def __call__(self, task: Task) -> None:
        block, row, epoch, index, video = task
        self.blocks[block][row] = self.dataset.read_video(video, epoch, index)


def num_blocks(size: int, rows: int, workers: int) -> int:
    """How many batches of `size` bytes and so many rows are in memory at once: none is shared without workers."""
    if not workers:
        return 0
    wanted = 1 + max(AHEAD, math.ceil(ROWS_A_WORKER * workers / rows))
    return max(2, min(wanted, PREFETCH_BYTES // size))


class Loader:
    """Iterates a data set in batches of one rank, in an order that depends on (seed, epoch) alone.

    Training (`shuffle`): global batch i is the i-th run of batch_size * world_size videos of the epoch's permutation,
    of which each rank takes its part; slots past the end have weight 0. Otherwise every video comes exactly once over
    all ranks, and the last batch of a rank is shorter.

    A video that can't be read, or takes longer than `timeout` seconds, has weight 0, stands in `bad`, and isn't tried
    again. Raises UserError where `on_error` is "raise", and where more than the share `max_bad` of the videos is bad.
    """

    def __init__(
        self,
        dataset: VideoDataset,
        batch_size: int,
        *,
        rank: int,
        world_size: int,
        seed: int,
        shuffle: bool,
        workers: int,
        timeout: float,
        on_error: OnError,
        max_bad: float,
    ) -> None:
        self.dataset, self.batch_size, self.rank, self.world_size = dataset, batch_size, rank, world_size
        self.seed, self.shuffle, self.timeout, self.on_error, self.max_bad = seed, shuffle, timeout, on_error, max_bad
        self.bad: dict[str, str] = {}  # path as listed -> why it could not be read
        self.waited = 0.0  # seconds that the consumer has waited for batches
        self.seen = 0
        row = math.prod(dataset.shape)
        self.blocks = num_blocks(batch_size * row, batch_size, workers)
        self.shared_bytes = self.blocks * batch_size * row
        self._lost = set[int]()  # videos on the bad list; they aren't tried again
        self.workers = workers
        self._open: Generator[Batch, None, None] | None = None  # the newest epoch
        self._pool: Pool[Row] | None = None
        self._blocks: list[Tensor] = []
        if shuffle:
            self.steps_per_epoch = math.ceil(len(dataset) / (batch_size * world_size))
        else:
            self.steps_per_epoch = math.ceil(len(range(rank, len(dataset), world_size)) / batch_size)

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
        """Stop the workers and free the shared memory, as far as no batch is held any more."""
        if self._open:
            self._open.close()
        if self._pool:
            self._pool.close()
        self._pool, self._blocks = None, []

    def _plan(self, epoch: int, start: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """The indices and weights of each of this rank's batches."""
        n, b = len(self.dataset), self.batch_size
        order = np.random.default_rng([self.seed, epoch]).permutation(n) if self.shuffle else np.arange(n)
        for step in range(start, self.steps_per_epoch):
            if self.shuffle:
                places = (step * self.world_size + self.rank) * b + np.arange(b)
            else:
                places = np.arange(self.rank, n, self.world_size)[step * b : (step + 1) * b]
            yield order[np.minimum(places, n - 1)].astype(np.int64), (places < n).astype(np.float32)

    def _batch(self, video: Tensor, index: NDArray[np.int64], weight: NDArray[np.float32]) -> Batch:
        label = np.array([self.dataset.videos[i].label for i in index], dtype=np.int64)
        return Batch(video[: len(index)], torch.from_numpy(label), torch.from_numpy(index), torch.from_numpy(weight))

    def _in_process(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        """Read in this process: no second opinion on a reader that hangs."""
        for index, weight in self._plan(epoch, start):
            video = torch.zeros(len(index), *self.dataset.shape, dtype=torch.uint8)
            for row in np.flatnonzero(weight):
                if index[row] in self._lost:
                    weight[row] = 0
                    continue
                try:
                    video[row] = self.dataset.read(epoch, int(index[row]))
                except BadVideo as error:
                    self._blame(int(index[row]), str(error))
                    weight[row] = 0
                self.seen += 1
            yield self._batch(video, index, weight)

    def _blame(self, index: int, reason: str) -> None:
        """Put a video on the bad list, or raise UserError if that is not wanted or the list is too long."""
        self.bad[self.dataset.videos[index].path] = reason.removeprefix(f"{self.dataset.path(index)}: ")
        if self.on_error == "raise":
            policy = "data.on_error" if self.shuffle else "data.eval_on_error"
            share = (
                ""
                if self.max_bad * len(self.dataset) >= 1
                else f" data.max_bad={math.ceil(200 / len(self.dataset)) / 100}"
            )
            raise UserError(
                f"{reason}; mend it, or go on without such videos: the same command with {policy}=skip{share}"
            )
        log.warning("skipped, it could not be read: %s", reason)
        self._lost.add(index)
        lost, seen = len(self._lost), min(self.seen + 1, len(self.dataset))
        own = math.ceil(len(self.dataset) / self.world_size)  # videos of this rank
        enough = max(seen, min(SEEN_BEFORE_JUDGING, own))
        only_bad = seen == lost >= ONLY_BAD
        if lost > self.max_bad * enough or (only_bad and self.max_bad < 1):
            raise UserError(
                f"{lost} of the first {seen} videos could not be read (of {len(self.dataset)} in all), more than "
                f"data.max_bad={self.max_bad}; the newest: {reason}; is the data set complete, and does reader=pyav "
                "read it? a larger data.max_bad goes on without them; aim.prepare with verify=true names all bad ones"
            )

    # ------------------------------------------------------------------------------------------------ with workers
    def _from_pool(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        pool = self._pool or self._start_pool()
        ready: queue.SimpleQueue[Filling | BaseException | None] = queue.SimpleQueue()
        # The consumer's end names a block that is free, and by closing says that it wants no more.
        mine, feeders = Pipe()
        feeder = _Feeder(self, pool, epoch, start, ready, feeders)
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
                self._blocks = [torch.empty(shape, dtype=torch.uint8) for _ in range(self.blocks)]
            for block in self._blocks:
                block.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise UserError(
                f"no shared memory for {self.blocks} batches of {math.prod(shape) / 2**20:.0f} MiB "
                f"({str(error).splitlines()[0]}); in docker, use --shm-size=8g"
            ) from error
        work = ReadRow(replace(self.dataset, videos=[]), self._blocks)
        self._pool = Pool(work, self.workers, self.timeout)
        return self._pool


class _Feeder:
    """The feeding of one epoch, all in one thread: it hands rows to the pool and batches to the consumer."""

    def __init__(
        self,
        loader: Loader,
        pool: Pool[Row],
        epoch: int,
        start: int,
        ready: "queue.SimpleQueue[Filling | BaseException | None]",
        consumer: Connection,
    ) -> None:
        self.loader, self.pool, self.epoch, self.ready, self.consumer = loader, pool, epoch, ready, consumer
        self.blocks = loader._blocks
        self.free = deque(range(len(self.blocks)))
        self.plan = loader._plan(epoch, start)
        self.rows: deque[Row] = deque()  # to be handed out
        self.filling: deque[Filling] = deque()  # in the order of the epoch
        self.planned_all = False

    def __call__(self) -> None:
        """Work until the epoch is over, fails, or the consumer leaves; then leave no process busy."""
        try:
            self._run()
        except BaseException as error:
            self.ready.put(error)
        else:
            self.ready.put(None)
        finally:
            self.consumer.close()
            self.pool.abandon()  # who still writes would spoil the next epoch's rows

    def _run(self) -> None:
        while True:
            self._hand_out()
            while self.filling and self.filling[0].missing == 0:
                self.ready.put(self.filling.popleft())
            if self.planned_all and not self.filling:
                return
            for row, outcome in self.pool.wait(self.consumer):
                self._take(row, outcome)
            try:
                while self.consumer.poll():
                    self.free.append(self.consumer.recv())
            except EOFError:
                return

    def _hand_out(self) -> None:
        videos = self.loader.dataset.videos
        while self.pool.idle and (self.rows or self._open_batch()):
            batch, row = self.rows.popleft()
            index = int(batch.index[row])
            self.pool.give((batch, row), (batch.block, row, self.epoch, index, videos[index]))

    def _open_batch(self) -> bool:
        """Queue the rows of the next batch that has any, if a block is free for it."""
        while self.free and not self.rows:
            planned = next(self.plan, None)
            if planned is None:
                self.planned_all = True
                return False
            batch = Filling(self.free.popleft(), *planned)
            self.filling.append(batch)
            for row, index in enumerate(batch.index.tolist()):
                if not batch.weight[row]:
                    self.blocks[batch.block][row].zero_()
                elif index in self.loader._lost:
                    self._lose(batch, row)
                else:
                    self.rows.append((batch, row))
        return bool(self.rows)

    def _take(self, place: Row, outcome: Outcome) -> None:
        """Account for what became of a row."""
        batch, row = place
        index = int(batch.index[row])
        path = str(self.loader.dataset.path(index))
        if outcome.kind == "user":
            raise UserError(outcome.text)
        if outcome.kind == "bug":
            raise RuntimeError(f"a worker failed on {path}:\n{outcome.text}")
        if outcome.kind == "done":
            batch.missing -= 1
        else:
            hung = f"no frame after data.timeout={self.loader.timeout:g} seconds"
            why = hung if outcome.kind == "hung" else outcome.text
            self.loader._blame(index, why if why.startswith(path) else f"{path}: {why}")
            self._lose(batch, row)
        self.loader.seen += 1

    def _lose(self, batch: Filling, row: int) -> None:
        """Empty a row whose video can't be read."""
        self.blocks[batch.block][row].zero_()
        batch.weight[row] = 0
        batch.missing -= 1
