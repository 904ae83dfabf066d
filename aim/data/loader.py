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
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aim.data.dataset import OnError, VideoDataset
from aim.data.video import BadVideo
from aim.data.worker import Outcome, Worker
from aim.errors import UserError

log = logging.getLogger(__name__)

BLOCKS = 3  # one that the consumer holds, two that are being filled
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
class Job:
    """One row of a batch that is being filled."""

    batch: "Filling"
    row: int
    index: int
    retried: bool = False


@dataclass
class Filling:
    """A batch on its way: the block it lies in, the videos of its rows, and how many rows are missing."""

    block: int
    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = int(self.weight.sum())


class Loader:
    """Iterates a data set in batches of one rank, in an order that depends on (seed, epoch) alone.

    Training (`shuffle`): global batch i is the i-th run of batch_size * world_size videos of the epoch's permutation,
    of which each rank takes its part; slots past the end have weight 0. Otherwise every video comes exactly once over
    all ranks, and the last batch of a rank is shorter. Raises UserError for a bad video where `on_error` is "raise",
    and where more than the share `max_bad` of the videos is bad.
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
        self.bad: dict[str, str] = {}  # path -> why it could not be read
        self.waited = 0.0  # seconds that the consumer has waited for batches
        self.seen = 0
        self._num_workers = workers
        self._workers: list[Worker] = []
        self._memory: list[SharedMemory] = []
        if shuffle:
            self.steps_per_epoch = math.ceil(len(dataset) / (batch_size * world_size))
        else:
            self.steps_per_epoch = math.ceil(len(range(rank, len(dataset), world_size)) / batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from the `start`-th on; those before cost nothing."""
        read = self._from_pool if self._num_workers else self._in_process
        with contextlib.closing(read(epoch, start)) as batches:
            while True:
                began = time.monotonic()
                batch = next(batches, None)
                self.waited += time.monotonic() - began
                if batch is None:
                    return
                yield batch

    def close(self) -> None:
        """Stop the workers and free the shared memory."""
        for worker in self._workers:
            worker.kill()
        for memory in self._memory:
            with contextlib.suppress(BufferError):  # the consumer still holds a batch; its memory goes with it
                memory.close()
            memory.unlink()
        self._workers, self._memory = [], []

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
                try:
                    video[row] = self.dataset.read(epoch, int(index[row]))
                except BadVideo as error:
                    self._blame(int(index[row]), str(error))
                    weight[row] = 0
                self.seen += 1
            yield self._batch(video, index, weight)

    def _blame(self, index: int, reason: str) -> None:
        """Put a video on the bad list, or raise UserError if that is not wanted or the list is too long."""
        if self.on_error == "raise":
            raise UserError(f"{reason}; mend or remove it, or go on without such videos: data.on_error=skip, "
                            "or data.eval_on_error=skip in a test")  # fmt: skip
        path = str(self.dataset.path(index))
        if path not in self.bad:
            log.warning("skipped, it could not be read: %s", reason)
        self.bad[path] = reason
        judged = max(self.seen + 1, min(SEEN_BEFORE_JUDGING, len(self.dataset)))
        only_bad = self.seen + 1 == len(self.bad) >= ONLY_BAD
        if len(self.bad) > self.max_bad * judged or (only_bad and self.max_bad < 1):
            raise UserError(
                f"{len(self.bad)} of {self.seen + 1} videos could not be read, more than data.max_bad={self.max_bad}; "
                f"the newest: {reason}; is the data set complete, and does reader=pyav read it? python -m aim.prepare "
                "with verify=true checks it all"
            )

    # ------------------------------------------------------------------------------------------------ with workers
    def _from_pool(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        self._start_workers()
        shape = (self.batch_size, *self.dataset.shape)
        blocks = [torch.from_numpy(np.ndarray(shape, np.uint8, memory.buf)) for memory in self._memory]
        ready: queue.SimpleQueue[Filling | BaseException | None] = queue.SimpleQueue()
        free: deque[int] = deque(range(BLOCKS))
        # The consumer's end says "a block is free" with a byte, and by closing that it wants no more.
        mine, feeders = Pipe()
        thread = threading.Thread(target=self._feed, args=(epoch, start, blocks, ready, free, feeders), daemon=True)
        thread.start()
        try:
            while (filled := ready.get()) is not None:
                if isinstance(filled, BaseException):
                    raise filled
                yield self._batch(blocks[filled.block], filled.index, filled.weight)
                free.append(filled.block)
                with contextlib.suppress(BrokenPipeError):  # the feeder has nothing left to fill
                    mine.send_bytes(b" ")
        finally:
            mine.close()
            thread.join()

    def _start_workers(self) -> None:
        if self._workers:
            return
        size = self.batch_size * math.prod(self.dataset.shape)
        try:
            self._memory = [SharedMemory(create=True, size=size) for _ in range(BLOCKS)]
            for memory in self._memory:
                np.ndarray(size, np.uint8, memory.buf).fill(0)  # claim the pages now, not in the middle of an epoch
        except OSError as error:
            raise UserError(f"no shared memory for {BLOCKS} batches of {size / 2**20:.0f} MiB ({error}); "
                            "in docker, use --shm-size=8g") from error  # fmt: skip
        names = [memory.name for memory in self._memory]
        self._workers = [Worker(self.dataset, names, self.batch_size) for _ in range(self._num_workers)]

    def _feed(
        self,
        epoch: int,
        start: int,
        blocks: list[Tensor],
        ready: "queue.SimpleQueue[Filling | BaseException | None]",
        free: deque[int],
        consumer: Connection,
    ) -> None:
        """Hand rows to workers until the epoch is over, fails, or the consumer leaves; then leave no worker busy."""
        try:
            _Feeder(self, epoch, start, blocks, ready, free, consumer).run()
        except BaseException as error:
            ready.put(error)
        else:
            ready.put(None)
        finally:
            consumer.close()
            # A worker that still writes would spoil the next epoch's rows.
            for worker in self._workers:
                if worker.job is not None:
                    worker.restart()
                    worker.job = None


class _Feeder:
    """The state of one epoch's feeding, all in one thread."""

    def __init__(
        self,
        loader: Loader,
        epoch: int,
        start: int,
        blocks: list[Tensor],
        ready: "queue.SimpleQueue[Filling | BaseException | None]",
        free: deque[int],
        consumer: Connection,
    ) -> None:
        self.loader, self.number, self.blocks = loader, epoch, blocks
        self.ready, self.free, self.consumer = ready, free, consumer
        self.plan = loader._plan(epoch, start)
        self.rows: deque[Job] = deque()  # to be handed out
        self.filling: deque[Filling] = deque()  # in the order of the epoch
        self.planned_all = False

    def run(self) -> None:
        while True:
            self._hand_out()
            while self.filling and self.filling[0].missing == 0:
                self.ready.put(self.filling.popleft())
            if self.planned_all and not self.filling:
                return
            busy = {worker.pipe: worker for worker in self.loader._workers if worker.job is not None}
            first = min((worker.began for worker in busy.values()), default=math.inf)
            seconds = max(0.0, first + self.loader.timeout - time.monotonic())
            answered = wait([*busy, self.consumer], seconds if math.isfinite(seconds) else None)
            if self.consumer in answered:
                try:
                    self.consumer.recv_bytes()
                except EOFError:
                    return
            for pipe, worker in busy.items():
                if pipe in answered:
                    self._take(worker, worker.answer())
                elif time.monotonic() - worker.began >= self.loader.timeout:
                    worker.restart()
                    why = f"no frame after data.timeout={self.loader.timeout:g} seconds"
                    self._take(worker, Outcome("bad", why))

    def _hand_out(self) -> None:
        idle = [worker for worker in self.loader._workers if worker.job is None]
        while idle:
            if not self.rows and not self._open_batch():
                return
            job = self.rows.popleft()
            idle.pop().give(job, (job.batch.block, job.row, self.number, job.index))

    def _open_batch(self) -> bool:
        """Put the rows of the next batch into the queue, if there is one and a block is free."""
        while not self.rows:
            if self.planned_all or not self.free:
                return False
            planned = next(self.plan, None)
            if planned is None:
                self.planned_all = True
                return False
            batch = Filling(self.free.popleft(), *planned)
            self.filling.append(batch)
            for row, index in enumerate(batch.index.tolist()):
                if batch.weight[row]:
                    self.rows.append(Job(batch, row, index))
                else:
                    self.blocks[batch.block][row].zero_()
        return True

    def _take(self, worker: Worker, outcome: Outcome) -> None:
        """Account for what a worker made of its job."""
        if outcome.kind == "started":
            return
        job = worker.job
        assert isinstance(job, Job)
        worker.job = None
        path = self.loader.dataset.path(job.index)
        if outcome.kind == "died" and not job.retried:
            job.retried = True  # the kernel kills whom it likes when memory runs out; the file may be innocent
            self.rows.appendleft(job)
            return
        if outcome.kind == "user":
            raise UserError(outcome.text)
        if outcome.kind == "bug":
            raise RuntimeError(f"a worker failed on {path}:\n{outcome.text}")
        if outcome.kind != "ok":
            reason = outcome.text if outcome.text.startswith(str(path)) else f"{path}: {outcome.text}"
            self.loader._blame(job.index, reason)
            job.batch.weight[job.row] = 0
            self.blocks[job.batch.block][job.row].zero_()
        self.loader.seen += 1
        job.batch.missing -= 1
