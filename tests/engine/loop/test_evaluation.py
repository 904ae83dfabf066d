"""Batches of a test."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
import torch

from aim.data.loading.loader import Batch
from aim.engine.loop import evaluation
from aim.engine.machine.distributed import World
from aim.engine.run.settings import Run
from aim.ground import config
from aim.models.compiling import compile_blocks
from tests.toy import TOY

CPU = torch.device("cpu")


def toy(*overrides: str) -> Run:
    return config.build(config.compose([*TOY, *overrides]), Run)


@pytest.mark.usefixtures("toy_cache")
def test_compiled_blocks_see_batches_of_one_size_and_score_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy("train.eval_videos=13")
    lists, sizes = run.load_lists(), list[int]()

    def watched(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
        for batch in batches:
            sizes.append(len(batch.video))
            yield batch

    monkeypatch.setattr(evaluation, "on_device", watched)
    found = []
    for compiled in (False, True):
        model = run.model(8)
        if compiled:
            compile_blocks(model, "eager")
        with closing(run.eval_loader(run.val_dataset(lists), World(0, 1, CPU))) as loader:
            found.append(evaluation.evaluate(model, loader, task=run.task, device=CPU, precision="fp32"))
    assert sizes == [8, 5, 8, 8]
    plain, ours = found
    assert ours.index.tolist() == plain.index.tolist() == list(range(13))
    assert ours.num_missing == 0
    torch.testing.assert_close(ours.probability, plain.probability, rtol=1e-5, atol=1e-6)
    torch.compiler.reset()


def test_what_is_added_to_a_batch_holds_nothing() -> None:
    def batch(rows: int, label: Any) -> Batch:
        return Batch(torch.ones(rows, 2, 3), label, torch.arange(rows), torch.ones(rows))

    for label in (torch.tensor([3, 4]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])):
        (full,) = evaluation.filled(iter([batch(2, label)]), 5)
        assert full.video.sum() == 12
        assert full.weight.tolist() == [1, 1, 0, 0, 0]
        assert full.index.tolist() == [0, 1, -1, -1, -1]
        assert full.label.shape == (5, *label.shape[1:])
        assert full.label.dtype == label.dtype
        lies_where_it_lay = batch(5, label)  # in memory that a GPU reads, which no copy is
        assert [*evaluation.filled(iter([lies_where_it_lay]), 5)] == [lies_where_it_lay]


def test_a_gpu_scores_more_clips_at_once_than_it_trains_with() -> None:
    run = toy("train.accumulate=2")
    assert run.clips_of_test(2) == 2
    assert replace(run, device="cuda").clips_of_test(2) == 8
