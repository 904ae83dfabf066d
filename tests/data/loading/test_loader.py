import gc
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import aim.data.loading.loader
from aim.data.dataset import VideoDataset
from aim.data.lists import Video
from aim.data.loading.loader import Batch, Loader, num_blocks
from aim.data.loading.order import Listed, Shuffled
from aim.data.sampling import Clip
from aim.data.transforms import Augment, Views
from aim.ground.errors import UserError
from tests.conftest import ROOT
from tests.data.fakes import Fake, pids
from tests.messages import refused
from tests.programs import command

CLIP = Clip(num_frames=4, stride_frames=2, size=8, sampling="dense")
STILL = Augment(
    area=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, lighting=0.0, color_jitter=0.0,
    rand_augment=0, rand_augment_magnitude=0, erasing=0.0,
)  # fmt: skip
SETTINGS = {"rank": 0, "world_size": 1, "order": Shuffled(7), "workers": 2, "timeout": 30.0, "on_error": "skip"}
TEST = {"order": Listed(), "step_size": None}


@contextmanager
def loader(
    n: int = 13, batch_size: int = 4, *, views: int = 0, reader: Any = None, **settings: Any
) -> Iterator[Loader]:
    transform = Views(temporal=views, spatial=1, resize=8) if views else STILL
    videos = [Video(f"{i}.mp4", i % 3) for i in range(n)]
    dataset = VideoDataset(Path("videos"), videos, reader or Fake(), CLIP, transform, seed=7)
    step = {"step_size": batch_size * settings.get("world_size", 1)}
    with closing(Loader(dataset, batch_size, **{"max_bad": 1.0, **SETTINGS, **step, **settings})) as made:
        yield made


def copies(batches: Iterator[Batch]) -> list[Batch]:
    return [Batch(**{name: tensor.clone() for name, tensor in vars(batch).items()}) for batch in batches]


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, vars(right)[name]) for left, right in zip(a, b, strict=True) for name, x in vars(left).items()
    )


def epochs(**settings: Any) -> list[Batch]:
    with loader(**settings) as made:
        return copies(made.epoch(0)) + copies(made.epoch(1))


@pytest.mark.parametrize(("ranks", "batch_size"), [(1, 6), (1, 4), (2, 3), (3, 1), (4, 2), (5, 2), (8, 1)])
def test_a_step_takes_the_same_videos_at_any_number_of_ranks(ranks: int, batch_size: int) -> None:
    expected = [set(batch.index[batch.weight > 0].tolist()) for batch in epochs(batch_size=6, workers=0)]
    settings: dict[str, Any] = {"batch_size": batch_size, "step_size": 6, "world_size": ranks, "workers": 0}
    found = [set[int]() for _ in expected]
    with loader(**settings) as made:
        parts, batches = made.parts, made.batches_per_epoch
    starts = [0, *range(parts, batches, parts)]  # of steps
    for rank in range(ranks):
        with loader(**settings, rank=rank) as made:
            for epoch in range(2):
                read = copies(made.epoch(epoch))
                assert same(read[parts:], copies(made.epoch(epoch, start=parts)))
                assert len(read) == batches
                for i, batch in enumerate(read):
                    videos = set(batch.index[batch.weight > 0].tolist())
                    step = epoch * len(starts) + i // parts
                    assert not found[step] & videos
                    found[step] |= videos
    assert found == expected


def test_content_and_order_do_not_depend_on_the_workers() -> None:
    alone = epochs(workers=0)
    assert same(alone, epochs(workers=1))
    assert same(alone, epochs(workers=3))
    assert not same(alone, epochs(workers=0, order=Shuffled(8)))


def test_shared_memory_is_registered_before_it_is_filled_and_let_go_before_it_is_freed() -> None:
    events = list[str]()

    def register(blocks: Sequence[torch.Tensor]) -> Callable[[], None]:
        events.append(f"registered {all(block.is_shared() for block in blocks)}")
        return lambda: events.append("let go")

    with loader(8, workers=1, register=register) as made:
        assert events == []
        list(made.epoch(0))
        list(made.epoch(1))
        assert events == ["registered True"]
    assert events == ["registered True", "let go"]


def test_an_epoch_holds_every_video_once_and_fills_up_with_weight_zero() -> None:
    with loader(workers=0) as made:
        batches = copies(made.epoch(0))
    index, weight = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("index", "weight"))
    assert made.batches_per_epoch == len(batches) == 4
    assert sorted(index[weight > 0].tolist()) == list(range(13))
    assert weight.sum() == 13
    assert all(len(batch.video) == 4 for batch in batches)
    for batch in batches:
        real = batch.weight > 0
        assert torch.equal(batch.video[real][:, 0, 0, 0, 0, 0].long(), batch.index[real])
        assert torch.equal(batch.label, batch.index % 3)
        assert not batch.video[~real].any()


def test_epochs_differ() -> None:
    with loader(workers=0) as made:
        first, second = copies(made.epoch(0)), copies(made.epoch(1))
    assert not torch.equal(first[0].index, second[0].index)


def test_ranks_share_the_global_batches() -> None:
    alone = epochs(batch_size=6, workers=0)
    ranks = [epochs(batch_size=2, workers=0, rank=rank, world_size=3) for rank in range(3)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        for name in vars(whole):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_a_test_counts_every_video_exactly_once_at_any_number_of_ranks(world_size: int) -> None:
    seen = []
    for rank in range(world_size):
        with loader(views=2, rank=rank, world_size=world_size, workers=0, **TEST) as made:
            batches = copies(made.epoch(0))
        assert len(batches) == made.batches_per_epoch
        seen += [i for batch in batches for i in batch.index.tolist()]
        assert all(batch.video.shape[1:] == (2, 4, 3, 8, 8) for batch in batches)
    assert sorted(seen) == list(range(13))


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_later_gives_the_rest_of_the_epoch(workers: int) -> None:
    with loader(workers=workers) as made:
        assert same(copies(made.epoch(3))[2:], copies(made.epoch(3, start=2)))


def test_an_epoch_left_half_way_does_not_spoil_the_next() -> None:
    with loader(n=40) as made:
        expected = copies(made.epoch(1))
        for _ in range(3):
            batches = made.epoch(0)
            next(batches)
            batches.close()
            assert same(expected, copies(made.epoch(1)))
        assert made.bad == {}


MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize(
    ("size", "rows", "workers", "expected"),
    [
        (2 * MIB, 16, 0, 0),  # no memory is shared
        (2 * MIB, 16, 4, 3),  # the consumer's, and two that are being filled
        (2 * MIB, 4, 12, 7),  # each process has a row to read, and the next
        (GIB, 64, 12, 3),
        (GIB, 4, 12, 4),  # more bytes than that are too many
        (3 * GIB, 64, 12, 2),  # never fewer
    ],
)
def test_batches_ahead_are_bounded_by_their_bytes(size: int, rows: int, workers: int, expected: int) -> None:
    assert num_blocks(size, rows, workers) == expected


@pytest.mark.parametrize(("limit", "blocks"), [(1, 2), (2**30, 5)])
def test_a_loader_shares_as_much_memory_as_it_says(monkeypatch: pytest.MonkeyPatch, limit: int, blocks: int) -> None:
    monkeypatch.setattr(aim.data.loading.loader, "PREFETCH_BYTES", limit)
    with loader(batch_size=1, workers=2) as made:
        assert same(copies(made.epoch(0)), copies(made.epoch(0)))
        assert made.blocks == len(made._blocks) == blocks
        assert made.shared_bytes == sum(block.numel() for block in made._blocks)
    assert same(epochs(batch_size=1, workers=2), epochs(batch_size=1, workers=0))


def test_a_batch_stays_as_it_is_until_the_next_one_is_asked_for() -> None:
    with loader(n=60) as made:
        for batch in made.epoch(0):
            before = batch.video.clone()
            torch.ones(400, 400) @ torch.ones(400, 400)  # the workers fill other blocks meanwhile
            assert torch.equal(batch.video, before)


def others_unchanged(broken: list[Batch], bad: set[int]) -> bool:
    """Whether the bad videos have weight 0 and the others a good reader's frames."""
    good = epochs(workers=0)
    for ours, theirs in zip(broken, good, strict=True):
        kept = torch.tensor([int(i) not in bad for i in ours.index])
        real = kept & (theirs.weight > 0)
        if not torch.equal(ours.index, theirs.index) or not torch.equal(ours.video[real], theirs.video[real]):
            return False
        if not torch.equal(ours.weight, theirs.weight * kept) or ours.video[~kept].any():
            return False
    return True


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_video_keeps_its_slot_with_weight_zero(workers: int) -> None:
    with loader(reader=Fake(bad=(3, 5)), workers=workers) as made:
        batches = copies(made.epoch(0)) + copies(made.epoch(1))
    assert others_unchanged(batches, {3, 5})
    assert made.bad == {f"{i}.mp4": "it is bad" for i in (3, 5)}


@pytest.mark.slow
def test_a_server_that_stalls_ends_the_epoch() -> None:
    """After two batches of a reader that then hangs."""
    with loader(reader=Fake(hang=tuple(range(8, 13))), timeout=1.0, max_bad=1.0, **TEST) as made:
        batches = made.epoch(0)
        next(batches)
        with refused("4", "videos/11.mp4", "data.timeout=1", "data.timeout"):
            for _ in batches:
                pass


def test_a_reader_that_never_returns_costs_its_timeout_and_its_file() -> None:
    with loader(reader=Fake(hang=(4,)), timeout=2.0) as made:
        batches = copies(made.epoch(0))
        again = time.monotonic()
        batches += copies(made.epoch(1))
        assert time.monotonic() - again < 2.0  # it isn't tried again
    assert others_unchanged(batches, {4})
    assert made.bad == {"4.mp4": "no frame after data.timeout=2 seconds"}


def test_a_killed_worker_is_replaced_and_its_file_tried_again(tmp_path: Path) -> None:
    with loader(reader=Fake(die_once=(2, 9), scratch=str(tmp_path))) as made:
        batches = copies(made.epoch(0)) + copies(made.epoch(1))
    assert len(list(tmp_path.iterdir())) == 2
    assert others_unchanged(batches, set())
    assert made.bad == {}


def test_a_file_that_kills_every_worker_is_blamed(tmp_path: Path) -> None:
    with loader(reader=Fake(die=(2,), scratch=str(tmp_path))) as made:
        batches = copies(made.epoch(0)) + copies(made.epoch(1))
    assert others_unchanged(batches, {2})
    assert "signal 9" in made.bad["2.mp4"]


@pytest.mark.parametrize("workers", [0, 2])
def test_raise_names_the_file_and_the_way_out(workers: int) -> None:
    with (
        loader(reader=Fake(bad=(3,)), workers=workers, on_error="raise") as made,
        refused("videos/3.mp4", "data.on_error=skip"),
    ):
        copies(made.epoch(0))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("settings", [{}, {"views": 2, **TEST}])
def test_what_stops_a_run_is_named_among_the_bad(workers: int, settings: dict[str, Any]) -> None:
    with loader(reader=Fake(bad=(3,)), workers=workers, on_error="raise", **settings) as made:
        with pytest.raises(UserError):
            copies(made.epoch(0))
        assert made.bad == {"3.mp4": "it is bad"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_test_names_bad_videos_as_training_does(workers: int) -> None:
    with loader(reader=Fake(bad=(3, 5)), views=2, workers=workers, **TEST) as made:
        weight = torch.cat([batch.weight for batch in copies(made.epoch(0))])
    assert made.bad == {f"{i}.mp4": "it is bad" for i in (3, 5)}
    assert weight.tolist() == [float(i not in (3, 5)) for i in range(13)]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_bad_videos_stop_the_run(workers: int) -> None:
    with (
        loader(n=100, reader=Fake(bad=tuple(range(0, 100, 2))), workers=workers, max_bad=0.1) as made,
        refused("11", "100", "data.max_bad=0.1", "verify=true"),
    ):
        copies(made.epoch(0))


def test_a_broken_reader_is_found_out_at_once() -> None:
    with (
        loader(n=1000, reader=Fake(bad=tuple(range(1000))), workers=0, max_bad=0.5) as made,
        refused("16", "1000", "data.max_bad=0.5"),
    ):
        copies(made.epoch(0))


def test_the_share_of_bad_videos_is_that_of_a_ranks_own() -> None:
    """A quarter is bad, and each of four ranks has 4 of 16 videos."""
    for rank in range(4):
        with (
            loader(
                n=16, reader=Fake(bad=(0, 1, 2, 3)), workers=0, max_bad=0.13, rank=rank, world_size=4, **TEST
            ) as made,
            refused("data.max_bad=0.13", "1", "16"),
        ):
            copies(made.epoch(0))


def test_other_videos_are_read_by_the_same_processes() -> None:
    with loader(n=0, views=1, **TEST | {"on_error": "note"}, reader=Fake(bug=(3,))) as made:
        found = []
        for n in (1, 5, 2):
            made.take([Video(f"{i}.mp4", 0) for i in range(n)])
            index, weight = ([each for batch in made.epoch(0) for each in getattr(batch, name).tolist()]
                             for name in ("index", "weight"))  # fmt: skip
            assert index == list(range(n))
            assert [i for i, value in enumerate(weight) if not value] == [3] * (n == 5)
            assert [why for path, why in made.bad.items() if "a bug" in why] == ["ZeroDivisionError: a bug"] * (n == 5)
            assert made._pool is not None
            found.append(pids(made._pool))
    assert found[0] == found[1] == found[2]


def test_a_bug_in_a_worker_reaches_us_with_its_traceback() -> None:
    with loader(reader=Fake(bug=(3,))) as made, pytest.raises(RuntimeError, match=r"3\.mp4:\n.*Traceback(.|\n)*a bug"):
        copies(made.epoch(0))


def test_videos_that_fail_once_in_many_epochs_stay_below_the_limit_and_more_do_not() -> None:
    with loader(n=50, reader=Fake(bad=(7,)), workers=0, max_bad=0.02) as made:
        assert sum(1 for epoch in range(3) for _ in made.epoch(epoch)) == 39
    with (
        loader(n=50, reader=Fake(bad=(7, 8)), workers=0, max_bad=0.02) as made,
        refused("2", "50", "data.max_bad=0.02"),
    ):
        copies(made.epoch(0))


def test_batches_that_do_not_fit_into_shared_memory_are_an_error_at_once() -> None:
    with loader(batch_size=2**36) as made, refused("2", "MiB", "--shm-size=8g"):
        next(made.epoch(0))


def test_a_reader_that_no_worker_can_import_is_the_users_to_mend() -> None:
    @dataclass(frozen=True)
    class Local(Fake):
        pass

    with loader(reader=Local()) as made, refused("reader", "worker"):
        next(made.epoch(0))
    assert len(epochs(reader=Local(), workers=0)) == 8


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path("/proc", str(pid)).exists()]


def test_nothing_is_left_after_closing() -> None:
    with loader() as made:
        batches = made.epoch(0)
        batch = next(batches)
        own = pids(made._pool)
        assert len(alive(own)) == 2
    assert not alive(own)
    assert batch.video.sum() >= 0  # the consumer's block stays readable


def test_a_forgotten_loader_leaves_nothing() -> None:
    with loader() as made:
        copies(made.epoch(0))
        made.close = lambda: None
        own = pids(made._pool)
    del made
    gc.collect()
    assert not alive(own)


@pytest.mark.slow
def test_a_program_that_ends_in_the_middle_leaves_nothing() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = {}
    for end in ("error", "kill"):
        running[end] = subprocess.Popen(
            command("loader_ends", end), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
    for end, process in running.items():
        out, err = process.communicate(timeout=60)
        pids = [int(pid) for pid in out.split()]
        assert len(pids) == 2, err
        deadline = time.monotonic() + 10
        while alive(pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not alive(pids)
        assert ("KeyboardInterrupt" in err) == (end == "error")
        assert "Exception ignored" not in err
