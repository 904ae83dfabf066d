"""Feeds a pool of decoding processes: assigns the rows of batches, and passes complete batches on."""

import queue
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.loading.judge import Judge
from aim.data.loading.pool import Outcome, Pool
from aim.ground.errors import UserError


@dataclass
class Filling:
    """An incomplete batch: its block of shared memory, the videos of its rows, and the number of missing rows."""

    block: int
    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    epochs: NDArray[np.int64]  # of which the rows' clips are drawn
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = int(self.weight.sum())


Row = tuple[Filling, int]  # a row of a batch
Planned = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]  # of a batch: index, weight, epochs
Task = tuple[int, int, int, int, Video]  # block, row, epoch, index, video


@dataclass(frozen=True)
class ReadRow:
    """The task of a process of the pool: read a video into a row of a block of shared memory."""

    dataset: VideoDataset
    blocks: list[Tensor]

    def __call__(self, task: Task) -> NDArray[np.float32] | None:
        block, row, epoch, index, video = task
        self.blocks[block][row], seconds = self.dataset.read_video(video, epoch, index)
        return seconds


class Feeder:
    """Feeds one epoch, in a single thread: rows to the pool and batches to the consumer."""

    def __init__(
        self,
        dataset: VideoDataset,
        judge: Judge,
        pool: Pool[Row],
        blocks: list[Tensor],
        *,
        plan: Iterator[Planned],
        ready: "queue.SimpleQueue[Filling | BaseException | None]",
        consumer: Connection,
        seconds: dict[int, NDArray[np.float32]],
    ) -> None:
        self.dataset, self.judge, self.pool, self.blocks, self.seconds = dataset, judge, pool, blocks, seconds
        self.plan, self.ready, self.consumer = plan, ready, consumer
        self.free = deque(range(len(blocks)))
        self.rows: deque[Row] = deque()  # to be handed out
        self.filling: deque[Filling] = deque()  # in the order of the epoch
        self.planned_all = False

    def __call__(self) -> None:
        """Work until the epoch ends, fails, or the consumer leaves; then leave no process busy."""
        try:
            self._run()
        except BaseException as error:
            self.ready.put(error)
        else:
            self.ready.put(None)
        finally:
            self.consumer.close()
            self.pool.abandon()  # a late writer would spoil the next epoch's rows

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
        videos = self.dataset.videos
        while self.pool.idle and (self.rows or self._open_batch()):
            batch, row = self.rows.popleft()
            index = int(batch.index[row])
            self.pool.give((batch, row), (batch.block, row, int(batch.epochs[row]), index, videos[index]))

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
                elif index in self.judge.lost:
                    self._lose(batch, row)
                else:
                    self.rows.append((batch, row))
        return bool(self.rows)

    def _take(self, place: Row, outcome: Outcome) -> None:
        """Process the outcome of a row."""
        batch, row = place
        index = int(batch.index[row])
        path = str(self.dataset.path(index))
        if outcome.kind == "user":
            raise UserError(outcome.text)
        if outcome.kind == "bug" and self.judge.on_error != "note":
            raise RuntimeError(f"a worker failed on {path}:\n{outcome.text}")
        if outcome.kind == "done":
            batch.missing -= 1
            if outcome.value is not None:
                self.seconds[index] = outcome.value
            self.judge.hung = 0
        else:
            hung = f"no frame after data.timeout={self.pool.timeout:g} seconds"
            if outcome.kind == "hung":
                self.judge.hangs(f"{path}: {hung}")
            why = hung if outcome.kind == "hung" else outcome.text.rstrip().rpartition("\n")[2]  # of a bug's traceback
            self.judge.blame(index, path, why if why.startswith(path) else f"{path}: {why}")
            self._lose(batch, row)
        self.judge.seen += 1

    def _lose(self, batch: Filling, row: int) -> None:
        """Empty a row whose video can't be read."""
        self.blocks[batch.block][row].zero_()
        batch.weight[row] = 0
        batch.missing -= 1
