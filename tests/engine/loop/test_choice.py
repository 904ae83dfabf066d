"""Several rates are tried; the best on videos outside the test is kept."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from aim.data.lists import Lists, Video, set_apart
from aim.engine.loop import choice
from aim.engine.loop.selection import foremost
from aim.engine.run.settings import Run
from aim.engine.scores.metrics import METRICS, of_validation
from aim.ground import config
from aim.ground.signals import Stop
from aim.report.page import render
from aim.report.runs import read
from tests.messages import named, refused
from tests.toy import OWN, TOY, evaluate, journal, killed_at, run, weights

pytestmark = pytest.mark.usefixtures("toy_cache")

PROBE = [*TOY, "adapter=none", "train.clip_grad=0.5", "train.ema=0.5", "dropout=0.5"]
SEVERAL = ["optim.lr=[1e-3,1e-1]", "optim.weight_decay=[0.0,0.5]"]
TRUNK = "backbone.trunk."
SECONDS = {"seconds": 0, "seconds_before": 0}


@pytest.fixture
def three_lists(toy_cache: Path, tmp_path: Path) -> list[str]:
    """The toy's videos as a user's own, half of the validation's in a third list."""
    config.build(config.compose(TOY), Run).load_lists()
    folder = Path(shutil.copytree(next(toy_cache.glob("moving_shapes_*")), tmp_path / "data"))
    lines = (folder / "val.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "val.txt").write_text("".join(lines[::2]), encoding="utf-8")
    (folder / "test.txt").write_text("".join(lines[1::2]), encoding="utf-8")
    return [*OWN, f"data.root={folder}", *(item for item in PROBE if item not in TOY)]


@pytest.mark.parametrize("features", ["computed", "cached"])
@pytest.mark.parametrize("adapter", ["none", "attentive_probe"])
def test_each_head_ends_as_it_would_alone(tmp_path: Path, three_lists: list[str], adapter: str, features: str) -> None:
    """With weight decay, clipped gradients, dropout and the mean of the weights; the best becomes the model."""
    toy = [*three_lists, f"adapter={adapter}", f"train.features={features}", "train.epochs=1"]
    found = run(tmp_path / "all", *SEVERAL, toy=toy)
    assert found["chose"] == []
    heads, best = found["choice"]["heads"], found["choice"]["best"]
    assert (found["choice"]["of"], found["choice"]["videos"]) == ("validation", 8)
    pairs = [(head["lr"], head["weight_decay"]) for head in heads]
    assert pairs == [(1e-3, 0.0), (1e-3, 0.5), (1e-1, 0.0), (1e-1, 0.5)]
    other = next(place for place in (3, 1) if place != best)
    tensors = torch.load(tmp_path / "all" / choice.FOLDER / "last.pt", weights_only=True)["model"]
    for place, run_dir in ((best, tmp_path / "all"), (other, tmp_path / "alone")):
        if place == other:
            run(run_dir, f"optim.lr={pairs[other][0]}", f"optim.weight_decay={pairs[other][1]}", toy=toy)
        assert heads[place]["loss"] == pytest.approx(journal(run_dir)[-1]["val_loss"], rel=1e-4)
        trained = {name: tensor for name, tensor in weights(run_dir).items() if not name.startswith(TRUNK)}
        assert len(trained) == len(tensors) / 4
        for number, tensor in enumerate(trained.values()):
            torch.testing.assert_close(tensors[f"copies.{place}.{number}"], tensor, rtol=1e-4, atol=1e-6)
    assert heads[other]["loss"] != pytest.approx(heads[best]["loss"], rel=1e-4)


def test_a_list_of_one_is_the_plain_run_whose_checkpoint_is_an_ordinary_one(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", "optim.lr=1e-2", toy=PROBE)
    one = run(tmp_path / "one", "optim.lr=[1e-2]", toy=PROBE)
    assert journal(tmp_path / "one") == journal(tmp_path / "plain")
    assert (one["top1"], one["choice"]["videos"], one["choice"]["of"]) == (plain["top1"], 8, "training")
    assert "choice" not in plain
    assert evaluate(tmp_path / "one", tmp_path / "test", toy=PROBE)["top1"] == one["top1"]


def untimed(found: dict) -> dict:
    """A choice without its time."""
    heads = [{key: value for key, value in head.items() if key != "seconds"} for head in found["choice"]["heads"]]
    return found["choice"] | SECONDS | {"heads": heads}


IN_TURN = [*TOY, "optim.lr=[1e-3,1e-2]", "optim.warmup_epochs=0"]


@pytest.mark.parametrize(
    ("toy", "kills", "tries"), [([*PROBE, *SEVERAL], (1, 2, 3, 5), 4), (IN_TURN, (1, 3, 5, 7, 9), 8)]
)
def test_a_choice_that_was_killed_ends_as_an_unbroken_one(
    tmp_path: Path, toy: list[str], kills: tuple[int, ...], tries: int
) -> None:
    toy = [*toy, "test=best"]
    whole = run(tmp_path / "whole", toy=toy)
    for step in kills:  # of the steps in which rates are tried; then follow 6
        killed_at(step, tmp_path / str(step), toy=toy)
        assert (tmp_path / str(step) / "last.pt").exists() == (step > tries)
        again = run(tmp_path / str(step), toy=toy)
        assert untimed(again) == untimed(whole)
        assert 0 <= again["choice"]["seconds_before"] <= again["choice"]["seconds"]
        assert journal(tmp_path / str(step)) == journal(tmp_path / "whole")


def test_what_changes_the_trunk_is_trained_in_turn_and_each_ends_as_it_would_alone(
    tmp_path: Path, three_lists: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    toy = [item for item in three_lists if item != "adapter=none"]
    found = run(tmp_path / "all", "optim.lr=[1e-3,1e37,1e-2]", "optim.warmup_epochs=0", toy=toy)
    named("".join(capsys.readouterr()), "optim.lr=1e+37", "optim.weight_decay")
    first, lost, last = found["choice"]["heads"]
    assert (lost["diverged"], found["choice"]["of"]) == (True, "validation")
    for place, head in ((0, first), (2, last)):
        run(tmp_path / str(place), f"optim.lr={head['lr']}", "optim.warmup_epochs=0", toy=toy)
        assert head["loss"] == journal(tmp_path / str(place))[-1]["val_loss"]
    best = str(found["choice"]["best"])
    assert journal(tmp_path / "all") == journal(tmp_path / best)  # nothing is left of the others
    assert [path.name for path in (tmp_path / "all" / choice.FOLDER).iterdir() if path.is_dir()] == ["2"]
    with refused("2", "optim.lr"):
        run(tmp_path / "none", "optim.lr=[1e37,2e37]", "optim.warmup_epochs=0", toy=toy)


def test_a_choice_that_was_killed_is_of_one_run_and_tells_of_replaced_videos(
    tmp_path: Path, three_lists: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    killed_at(1, tmp_path / "run", *SEVERAL, toy=three_lists)
    written = {name: (tmp_path / "run" / name).read_bytes() for name in ("config.yaml", "videos.json")}
    for other in ("seed=1", "optim.lr=[1e-3,1e-2]"):
        with refused(str(tmp_path / "run"), other.partition("=")[0], "run_dir=DIR"):
            run(tmp_path / "run", *SEVERAL, other, toy=three_lists)
    folder = tmp_path / "data"
    first, second = (folder / line.split()[0] for line in (folder / "train.txt").read_text().splitlines()[:2])
    first.write_bytes(second.read_bytes())
    lines = (folder / "val.txt").read_text()
    (folder / "val.txt").write_text(lines + lines.splitlines()[0].replace("0", "1") + "\n")
    with refused(str(tmp_path / "run"), "run_dir=DIR"):
        run(tmp_path / "run", *SEVERAL, toy=three_lists)
    (folder / "val.txt").write_text(lines)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in written} == written
    capsys.readouterr()
    run(tmp_path / "run", *SEVERAL, toy=three_lists)
    named(capsys.readouterr().err, str(tmp_path / "run"), first.relative_to(folder).as_posix())
    assert (tmp_path / "run" / "videos.json").read_bytes() == written["videos.json"]


def test_trainings_of_other_lengths_are_not_compared(tmp_path: Path) -> None:
    run = config.build(config.compose([*IN_TURN, "train.epochs=5"]), Run)
    job: Any = SimpleNamespace(run=run, run_dir=tmp_path / choice.FOLDER)
    heads = [{"lr": 1e-3, "top1": 50.0, "seconds": 1.0, "epochs": 2}, {"lr": 1e-2}]
    with refused(str(job.run_dir), "train.epochs=2", "train.epochs=5", "delete"):
        choice.in_turn(job, Any, choice.Scores(job, {}, heads), Stop(lambda *_: None))


def test_a_head_that_diverges_is_lost_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others end as they would without it, killed and continued or not; the best is one of them."""
    toy = [*PROBE, "optim.warmup_epochs=0", "train.clip_grad=null"]
    alone = run(tmp_path / "alone", "optim.lr=[1e-3,1e-2]", toy=toy)["choice"]
    capsys.readouterr()
    found = run(tmp_path / "whole", "optim.lr=[1e-3,1e37,1e-2]", toy=toy)["choice"]
    named("".join(capsys.readouterr()), "optim.lr=1e+37", "diverged")
    first, lost, last = found["heads"]
    assert lost == {"lr": 1e37, "weight_decay": 0.05, "diverged": True}
    for head, other in zip((first, last), alone["heads"], strict=True):
        assert head == pytest.approx(other, rel=1e-4)
    assert found["best"] == (0, 2)[alone["best"]]
    assert "diverged" in render([read(tmp_path / "whole", whole=True)])
    killed_at(3, tmp_path / "killed", "optim.lr=[1e-3,1e37,1e-2]", toy=toy)
    assert run(tmp_path / "killed", "optim.lr=[1e-3,1e37,1e-2]", toy=toy)["choice"] | SECONDS == found | SECONDS
    with refused("loss", "step", "optim.lr"):
        run(tmp_path / "none", "optim.lr=[1e37,2e37]", toy=toy)


def test_the_report_and_the_result_show_the_heads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(tmp_path / "run", *SEVERAL, "train.epochs=1", "train.best_by=loss", toy=PROBE)
    best = found["choice"]["heads"][found["choice"]["best"]]
    named(capsys.readouterr().out, f"optim.lr={best['lr']:g}", f"optim.weight_decay={best['weight_decay']:g}")
    page = render([read(tmp_path / "run", whole=True)])
    for head in found["choice"]["heads"]:
        assert f"{head['loss']:.3f}" in page


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optim.lr=[1e-3,1e-3]"], ["optim.lr=[0.001, 0.001]"]),
        (["optim.lr=[]"], ["optim.lr=[]"]),
        (["optim.lr=[nan,1e-3]"], ["optim.lr=[nan, 0.001]"]),
        (["optim.lr=-1e-3"], ["optim.lr=-0.001"]),
        (["optim.weight_decay=inf"], ["optim.weight_decay=inf"]),
        (["optim.lr=[0.0,1e-3]"], ["optim.lr=[0.0, 0.001]"]),
        (["optim.weight_decay=[-1,0]"], ["optim.weight_decay=[-1, 0]"]),
        (["optim.lr=[1e-3]", "train.choose=0.6"], ["train.choose=0.6", "0.5"]),
        (["optim.lr=[1e-3]", "train.shard=true"], ["train.shard=true"]),
    ],
)
def test_heads_that_cannot_be_are_refused(tmp_path: Path, overrides: list[str], expected: list[str]) -> None:
    with refused(*expected):
        run(tmp_path, *overrides, toy=PROBE)
    assert not (tmp_path / "config.yaml").exists()


def test_of_each_class_a_share_is_set_apart_and_something_is_left() -> None:
    videos = [Video(f"{label}/{i}", label) for label, count in enumerate((1, 2, 10)) for i in range(count)]
    rest, apart = set_apart(videos, 0.2)
    assert [[video.label for video in part].count(2) for part in (rest, apart)] == [8, 2]
    assert sorted(video.label for video in apart) == [1, 2, 2]
    assert sorted(rest + apart) == videos
    assert [sorted(part) for part in set_apart(videos[::-1], 0.2)] == [rest, apart]
    assert {video.label for video in set_apart(videos, 0.5)[0]} == {0, 1, 2}
    with refused("optim.lr", "optim.weight_decay"):
        choice.choosing(Lists(videos[:1], [], ["a"]), 0.2)


def test_videos_that_test_do_not_choose() -> None:
    train, val = [Video(f"{i}", i % 2) for i in range(10)], [Video("v", 0)]
    for third in (None, val):
        lists, about = choice.choosing(Lists(train, val, ["a", "b"], third=third), 0.2)
        assert about["of"] == "training"
        assert not set(lists.val) & set(val)
    lists, about = choice.choosing(Lists(train, val, ["a", "b"], third=[Video("t", 0)]), 0.2)
    assert (lists.train, lists.val, about["of"]) == (train, val, "validation")


def test_of_two_heads_alike_that_with_the_lower_loss_is_better() -> None:
    scores = [{"top1": 50.0, "loss": 2.0}, {"top1": 50.0, "loss": 1.0}, {"top1": 40.0, "loss": 0.5}]
    assert foremost(scores, of_validation(METRICS, "top1")) == 1
    assert foremost(scores, of_validation(METRICS, "loss")) == 2
