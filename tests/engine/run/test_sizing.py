"""Run lengths by the number of videos, and runs continued to more epochs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from aim.engine.loop.optim import learning_rate
from aim.engine.run import identity, sizing
from aim.engine.run.settings import Run
from aim.ground import choices, config
from aim.train import verb as train
from tests.messages import named, refused
from tests.toy import TOY, journal, killed_at, run, weights

FIVE = ("train.batch_size", "train.epochs", "train.eval_every", "train.log_every", "optim.warmup_epochs")


def numbers(videos: int, *overrides: str, before: dict[str, Any] | None = None) -> list[float]:
    """The values of the five settings."""
    asked = config.resolve(config.compose(["+experiment=finetune", "adapter=none", "data.root=x", *overrides]))
    leaves = dict(choices.leaves(sizing.settled(asked, videos, before)))
    return [leaves[key] for key in FIVE]


@pytest.mark.parametrize(
    ("videos", "expected"),
    [
        (6, [8, 100, 5, 1, 5.0]),
        (32, [8, 100, 5, 4, 5.0]),  # 400 steps, where batches of 32 in 20 epochs are 20
        (127, [8, 25, 1, 10, 1.25]),
        (128, [16, 50, 2, 8, 2.5]),
        (256, [32, 50, 2, 8, 2.5]),
        (620, [32, 20, 1, 10, 1.0]),
        (20_000, [32, 20, 1, 10, 1.0]),
    ],
)
def test_finetuning_takes_hundreds_of_steps_however_few_videos_there_are(videos: int, expected: list[float]) -> None:
    assert numbers(videos) == expected


def test_what_the_user_says_wins_and_the_rest_follows_it() -> None:
    assert numbers(32, "train.epochs=10") == [8, 10, 1, 4, 0.5]
    assert numbers(32, "train.batch_size=32", "train.log_every=7") == [32, 100, 5, 7, 5.0]
    assert numbers(32, "train.clips_per_video=4") == [16, 50, 2, 8, 2.5]


@pytest.mark.parametrize("adapter", sorted(path.stem for path in (choices.CONFIGS / "adapter").glob("*.yaml")))
def test_an_adapter_brings_its_rate_along_and_the_user_wins(adapter: str) -> None:
    recipe = config.resolve(config.compose([f"adapter={adapter}", "data.root=x"]))["adapter"].get("recipe") or {}

    def optim(*overrides: str, before: dict[str, Any] | None = None) -> tuple[Any, ...]:
        words = ["+experiment=finetune", "data.root=x", f"adapter={adapter}", *overrides]
        settings = sizing.settled(config.resolve(config.compose(words)), 32, before)
        optim = config.build(settings, Run).optim
        return optim.lr, optim.weight_decay, optim.schedule, optim.warmup_epochs / settings["train"]["epochs"]

    own = (recipe.get("lr", 3e-4), recipe.get("weight_decay", 0.05), recipe.get("schedule", "step"))
    assert optim() == (*own, recipe.get("warmup", 0.05))
    words = (
        "optim.lr=0.5",
        "optim.weight_decay=0.0",
        "optim.schedule=epoch",
        "optim.warmup_epochs=10",
        "train.epochs=20",
    )
    assert optim(*words) == (0.5, 0.0, "epoch", 0.5)
    before = {"lr": 0.25, "weight_decay": 0.125, "schedule": "epoch", "warmup_epochs": 10.0}
    assert optim("train.epochs=40", before={"optim": before}) == (0.25, 0.125, "epoch", 0.25)


def test_what_reproduces_a_paper_keeps_its_rate_whatever_the_adapter_says() -> None:
    for path in sorted((choices.CONFIGS / "experiment").rglob("*.yaml")):
        name = path.relative_to(choices.CONFIGS / "experiment").with_suffix("").as_posix()
        settings = config.resolve(config.compose([f"+experiment={name}", "data.root=x"]))
        assert (settings["optim"]["lr"] == "auto") == (name in ("finetune", "finetune_video", "probe")), name
        if settings["adapter"]["kind"] == "aim" and name.startswith(("k400", "k700", "ssv2", "diving48")):
            assert (settings["optim"]["lr"], settings["optim"]["weight_decay"]) == (3e-4, 0.05), name


def test_a_run_with_another_recipe_is_no_other_run() -> None:
    with_one, without = (
        config.resolve(config.compose([*TOY, "adapter=none", *words])) for words in ([], ["~adapter.recipe"])
    )
    assert "recipe" in with_one["adapter"]
    assert "recipe" not in without["adapter"]
    assert identity.config_hash(with_one) == identity.config_hash(without)
    assert identity.changes(without, with_one, Path("run")) == []


def test_a_run_that_goes_on_keeps_what_auto_was_when_it_began() -> None:
    before = {"train": {"epochs": 30, "batch_size": 16, "eval_every": 0}, "optim": {"warmup_epochs": 2.0}}
    assert numbers(32, before=before) == [16, 30, 0, 2, 2.0]
    assert numbers(32, "train.epochs=40", before=before) == [16, 40, 0, 2, 2.0]


def test_only_finetuning_follows_the_data_and_says_so() -> None:
    features = {"finetune": "computed", "finetune_video": "computed", "probe": "cached"}
    recipes = {"finetune": ("0.001", 20), "finetune_video": ("0.003", 20), "probe": ("0.0003", 5)}  # rate, warm-up
    for name in (path.stem for path in (choices.CONFIGS / "experiment").glob("*.yaml")):
        asked = config.resolve(config.compose([f"+experiment={name}", "data.root=x"]))
        settings = sizing.settled(asked, 32, None)
        assert (settings == asked) == (name not in features)
        said = sizing.said(asked, settings, 32)
        if name in features:
            rate, warmup = recipes[name]
            assert said == (
                "for 32 training videos, auto is train.epochs=100 train.batch_size=8 train.eval_every=5 "
                f"train.features={features[name]} train.log_every=4 optim.lr={rate} optim.weight_decay=0.05 "
                f"optim.warmup_epochs={warmup} optim.schedule=step"
            )
        else:
            assert said is None
        run = config.build(asked, Run)  # also where nobody knows the number of videos
        assert (run.train.epochs, run.train.batch_size) == (20, 32) or name != "finetune"


def test_a_benchmark_settles_what_a_training_does() -> None:
    """Though it has settings of its own."""
    asked = config.resolve(config.compose(["+experiment=probe", "data.root=x"], "benchmark"))
    assert sizing.settled(asked, 32, None)["train"]["features"] == "cached"


def test_only_numbers_that_may_be_auto_may_be_auto() -> None:
    refusals = {"optim.warmup_start": ["number"], "train.accumulate": ["whole", "number"], "train.epochs": None}
    for setting, kind in refusals.items():
        cfg = config.compose(["+experiment=k400", f"{setting}=auto"])
        if kind is None:
            config.build(cfg, Run)
            continue
        with refused(f"{setting}='auto'", *kind):
            config.build(cfg, Run)
    with refused("train.epochs='many'"):
        config.build(config.compose(["train.epochs=many"]), Run)


AUTO = [text for text in TOY if not text.startswith(("train.epochs", "train.log_every"))]
AUTO += ["train.epochs=auto", "train.log_every=auto", "optim.warmup_epochs=auto"]


def test_a_run_of_auto_leaves_numbers_and_goes_on_with_them(
    tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sizing, "STEPS", 6)
    monkeypatch.setattr(sizing, "EPOCHS", 1)
    killed_at(4, tmp_path, toy=AUTO)
    named(capsys.readouterr().err, "24", "train.epochs=2", "train.log_every=3", "optim.warmup_epochs=0.4")
    monkeypatch.setattr(sizing, "STEPS", 60)  # another version of us
    found = run(tmp_path, toy=AUTO)
    saved = config.load(tmp_path / "config.yaml")
    assert (found["epochs"], saved["train"]["epochs"], saved["optim"]["warmup_epochs"]) == (2, 2, 0.4)
    assert found["config_hash"] == run(tmp_path, "train.epochs=2", "optim.warmup_epochs=0.4")["config_hash"]


@pytest.fixture
def finished(tmp_path: Path, unbroken: Path) -> Path:
    """A copy of a finished run of two epochs, three steps each."""
    shutil.copytree(unbroken, tmp_path / "runs" / "demo")
    return tmp_path / "runs" / "demo"


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory, unbroken: Path) -> Path:
    """Another copy, continued to three epochs at once. No test may change it."""
    folder = tmp_path_factory.mktemp("longer") / "run"
    shutil.copytree(unbroken, folder)
    run(folder, "train.epochs=3")
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rates(run_dir: Path) -> dict[int, float]:
    """The log's learning rate at each step."""
    lines = [json.loads(line) for line in (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["step"]: line["lr"] for line in lines if "lr" in line}


def test_a_finished_run_goes_on_to_more_epochs(unbroken: Path, longer: Path) -> None:
    found = read(longer / "results.json")
    assert (found["epochs"], found["schedule"]) == (3, [[0, 2], [6, 3]])
    assert read(longer / "results_2_epochs.json") == read(unbroken / "results.json")
    optim = config.build(config.compose(TOY), Run).optim
    expected = {step + 1: learning_rate(step, optim, steps_per_epoch=3, epochs=3) for step in (6, 7, 8)}
    assert rates(longer) == rates(unbroken) | expected
    before, after = weights(unbroken), weights(longer)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in after.items())


def test_it_is_done_after_that(longer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(longer, "train.epochs=3")
    named(capsys.readouterr().out.replace("\n", ""), str(longer), "run_dir=DIR")
    with refused("train.epochs=2", "3", "train.epochs=3", "run_dir=DIR"):
        run(longer)


def test_more_epochs_may_be_interrupted_like_any(
    finished: Path, longer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (0, 2):
        killed_at(step, finished, "train.epochs=3")
        assert not (finished / "results.json").exists()
        told = [line for line in capsys.readouterr().err.splitlines() if "train.epochs" in line]
        assert len(told) == (step == 0)
        for line in told:
            named(line, "2", "3", "6", "9")
    found = run(finished, "train.epochs=3")
    assert found["schedule"] == read(longer / "results.json")["schedule"]
    expected = weights(longer)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(finished).items())


def test_a_run_becomes_shorter_but_not_than_it_is(tmp_path: Path, toy_cache: Path) -> None:
    killed_at(4, tmp_path, "train.epochs=3")
    with refused("train.epochs=1", "1.33", "train.epochs=2", "run_dir=DIR"):
        run(tmp_path, "train.epochs=1")
    assert config.load(tmp_path / "config.yaml")["train"]["epochs"] == 3  # the refused command has changed nothing
    assert run(tmp_path)["schedule"] == [[0, 3], [4, 2]]


def test_a_run_that_becomes_as_short_as_it_is_is_validated(tmp_path: Path, toy_cache: Path) -> None:
    late = ["train.eval_every=2", "train.epochs=3"]
    killed_at(3, tmp_path, *late)
    assert not (tmp_path / "best.safetensors").exists()
    run(tmp_path, *late, "train.epochs=1")
    assert [line["step"] for line in journal(tmp_path) if "val_top1" in line] == [3]
    assert (tmp_path / "best.safetensors").exists()


def test_a_finished_run_without_its_state_is_not_taken_further(finished: Path) -> None:
    for name in ("last.pt", "previous.pt"):
        (finished / name).unlink()
    with refused("last.pt", "read", "delete", "run_dir"):
        run(finished, "train.epochs=3")
    assert (finished / "results.json").exists()


def test_another_number_of_epochs_names_the_run_that_would_go_on(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name of a run directory has `train.epochs`, so that a sweep over it gives several."""
    monkeypatch.chdir(finished.parent.parent)
    monkeypatch.setattr(config, "task_overrides", lambda: ["train.epochs=1"])
    monkeypatch.setattr(train, "train_and_test", lambda *_: None)
    train.main(config.compose([*TOY, "train.epochs=1"]))
    named(capsys.readouterr().err, "run_dir=runs/demo")
