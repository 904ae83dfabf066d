"""Division of a step's batch over another number of ranks than before, in as many parts as memory needs."""

import math
from dataclasses import replace

from aim.engine.machine.distributed import say_once
from aim.engine.run.settings import Run


def followed(run: Run, ranks: int, clips: int | None) -> Run:
    """The run with the `train.accumulate` by which no rank works through more than `clips` at once, as it did before.

    Global batches stay what they were: where they can't be divided, places of a step are empty. Rank 0 says what has
    changed. Raises UserError if the batch can't be divided and the run begins, or mixes the clips of a part.
    """
    if clips is None:
        run.check_batch(ranks)
        return run
    parts = math.ceil(run.train.batch_size / (ranks * clips))
    split = replace(run, train=replace(run.train, accumulate=parts))
    if run.train.mixup or run.train.cutmix:
        split.check_batch(ranks)
    empty = ranks * parts * split.train.clips_at_once(ranks) - run.train.batch_size
    if empty or parts != run.train.accumulate:
        say_once(
            f"train.accumulate={parts} on {ranks} rank{'s' * (ranks > 1)}, as none has worked through more than "
            f"{clips} clips at once before{f'; {empty} places of a step stay empty' if empty else ''}"
        )
    return split
