"""Warnings about runs that learn nothing, wait for data or have a slow rank, from handmade log lines."""

import math
from types import SimpleNamespace

import pytest
import torch

from aim.engine.scores.guessing import Chance
from aim.engine.telling import watching
from aim.engine.telling.watching import ENOUGH, Pace, Watch, cure_for_waiting, slow_rank

EPOCH = 100  # steps of 64 clips


def watch() -> Watch:
    return Watch(
        step=0,
        chance=Chance(0.1, math.log(10)),
        clips=64,
        warm_up=2.5 * EPOCH,
        steps_per_epoch=EPOCH,
        total=20 * EPOCH,
        cure="use more",
    )


def said(losses: list[float], top1: list[float], to: Watch | None = None) -> list[tuple[int, str]]:
    """The warnings by epoch, for epochs with these losses and accuracies; two lines an epoch."""
    found, watched = list[tuple[int, str]](), to or watch()
    for epoch, (loss, share) in enumerate(zip(losses, top1, strict=True)):
        for half in (1, 2):
            weight = 64.0 * EPOCH / 2
            step = epoch * EPOCH + half * EPOCH // 2
            texts = watched.line(step, [loss * weight, weight, share * weight, 1.0, 1.0], waited=0.0, seconds=1.0)
            found += [(step, text) for text in texts]
    return found


def test_chance_after_the_warm_up_is_said_once_with_what_to_look_at() -> None:
    ((step, text),) = said([2.3] * 10, [0.1] * 10)
    assert step == 350  # the warm-up ends at 250
    assert text.startswith("training top-1 is 10.0%, not clearly above always answering the largest class (10.0%)")
    assert "from step 250 to 350" in text
    assert "optim.lr" in text


@pytest.mark.parametrize("top1", [0.09, 0.1, 0.105])
def test_chance_has_a_width(top1: float) -> None:
    """6,400 clips at 10 %: a standard deviation is 0.375 %."""
    assert len(said([2.3, 2.3, 2.3, 2.3], [top1] * 4)) == 1


def test_a_run_that_learns_is_left_alone() -> None:
    assert said([2.3 * 0.95**epoch for epoch in range(20)], [0.1 + 0.02 * epoch for epoch in range(20)]) == []
    assert said([2.3] * 3, [0.1] * 3) == []  # within the warm-up, and half an epoch


def test_the_first_of_several_labels_is_no_sign_of_nothing_learnt() -> None:
    watched = watch()
    watched.chance = Chance(0.8, 2.0, several=True)
    assert said([2.3 * 0.95**epoch for epoch in range(10)], [0.8] * 10, watched) == []
    ((_, text),) = said([2.3] * 10, [0.8] * 10, watched)
    assert text.startswith("the loss")


def test_a_run_that_goes_on_tells_of_its_own_steps() -> None:
    watched = Watch(
        step=1000, chance=Chance(0.1, 2.3), clips=64, warm_up=250, steps_per_epoch=EPOCH, total=2000, cure=""
    )
    ((_, text),) = [(step, text) for step in range(1010, 1111, 10) for text in watched.line(
        step, [1472.0, 640.0, 64.0, 10.0, 10.0], 0.0, 1.0
    )]  # fmt: skip
    assert "from step 1000 to 1100" in text


@pytest.mark.parametrize(("share", "warned"), [(0.70, True), (0.74, True), (0.85, False)])
def test_a_short_run_is_told_at_its_end_that_it_only_knows_the_largest_class(share: float, warned: bool) -> None:
    """240 clips, all within the warm-up, 70 % of one class."""
    watched = Watch(step=0, chance=Chance(0.7, 0.6), clips=8, warm_up=30, steps_per_epoch=10, total=30, cure="")
    texts = [(step, text) for step in range(1, 31) for text in watched.line(
        step, [8.0, 8.0, 8 * share, 1.0, 1.0], 0.0, 1.0
    )]  # fmt: skip
    assert [step for step, _ in texts] == [30] * warned
    assert all("(70.0%)" in text and "from step 15 to 30" in text for _, text in texts)


def test_a_few_clips_say_nothing() -> None:
    watched = Watch(step=0, chance=Chance(0.125, 2.1), clips=8, warm_up=0, steps_per_epoch=3, total=6, cure="")
    texts = [watched.line(step, [16.0, 8.0, 1.0, 1.0, 1.0], 0.0, 1.0) for step in range(1, 100)]
    assert [text for each in texts for text in each] == []


def test_a_loss_that_stays_is_said_in_the_first_half_and_while_it_is_high() -> None:
    ((step, text),) = said([2.0] * 20, [0.4] * 20)
    assert step == 450
    assert text.startswith("the loss has stayed at 2.000 from step 350 to 450")
    assert said([0.5] * 20, [0.9] * 20) == []
    assert said([2.3 * 0.9**epoch for epoch in range(11)] + [2.0] * 9, [0.4] * 20) == []


def test_waiting_for_data_is_said_after_a_minute_of_it_and_not_for_the_start() -> None:
    def over(shares: list[float]) -> list[str]:
        watched = watch()
        lines = [watched.line(step, [0.0] * 5, 20.0 * share, 20.0) for step, share in enumerate(shares, 1)]
        return [text for line in lines for text in line]

    assert over([1.0, 0.1, 0.1, 0.1]) == []
    assert over([0.0, 0.3, 0.3]) == []
    assert over([0.0, 0.3, 0.3, 0.3]) == ["training waits for data 30% of the time: use more"]
    assert over([0.0, 0.9, 0.1, 0.1, 0.9, 0.9, 0.9]) == ["training waits for data 37% of the time: use more"]


def test_the_cure_names_the_setting_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "num_cores", lambda: 16)
    assert cure_for_waiting(0, 1).startswith("set data.workers, or prepare the videos")
    assert cure_for_waiting(4, 2).startswith("raise data.workers=4 (16 cores here, 2 ranks), or")


@pytest.mark.parametrize(
    ("seconds", "slow"),
    [
        ([1.0], None),
        ([0.0, 0.0], None),
        ([1.0, 1.3], None),
        ([1.4, 1.0], 0),
        ([0.002, 0.001], None),
        ([1.0, 1.0, 1.0, 1.5], 3),
    ],
)
def test_a_rank_is_slow_by_a_third(seconds: list[float], slow: int | None) -> None:
    text = slow_rank([(f"node{rank}", pace) for rank, pace in enumerate(seconds)])
    assert (text is None) == (slow is None)
    assert text is None or text.startswith(f"rank {slow} on node{slow} takes {seconds[slow or 0]:.2f} s a step")


def test_a_slow_rank_is_said_once() -> None:
    watched = watch()
    assert watched.ranks([("a", 1.0), ("b", 2.0)])
    assert watched.ranks([("a", 2.0), ("b", 1.0)]) is None


def test_the_pace_is_what_a_rank_does_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step: 2 seconds of waiting for data, 3 of work, then 95 of waiting for the others."""
    now = [0.0]
    monkeypatch.setattr(watching, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    pace = Pace(torch.device("cpu"))
    assert pace.seconds == 0.0
    for step in range(1, 200):
        pace.begins(waited=2.0 * step)
        now[0] += 3.0
        pace.meets()
        now[0] += 95.0
        assert pace.seconds == (5.0 if step >= ENOUGH else 0.0)
