"""Runs, checkpoints and results of older versions still work.

v1762bce/ is the toy (tests/toy.py) as commit 1762bce trained it: one run finished, one was killed after step 4.
oldest/ holds committed results of the demo, from before classes moved and settings were added.
"""

import json
import shutil
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

from aim.engine.run import identity, settings
from aim.engine.run.recipe import Training
from aim.engine.run.settings import Run
from aim.engine.trained import checkpoint
from aim.engine.trained.recogniser import load
from aim.export import verb as export
from aim.ground import choices, config
from aim.ground.marks import Before
from aim.report.runs import read
from aim.report.table import table
from aim.train import verb as train
from tests.messages import refused
from tests.toy import TOY, evaluate, killed_at, run, videos, weights

HERE = Path(__file__).parent
OF_TODAYS_NAMES = HERE / "v1762bce"
OLDEST = sorted((HERE / "oldest").iterdir())

MULTIPLIED = "+optim.lr_mult={backbone.*:0.1}"  # a name of a run has no braces

pytestmark = pytest.mark.usefixtures("toy_cache")


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A copy of the runs of 1762bce."""
    return Path(shutil.copytree(OF_TODAYS_NAMES, tmp_path / "older"))


def result_of(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    return found


def test_a_finished_run_shows_its_result(older: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in (older / "finished").iterdir()}
    found = run(older / "finished")
    assert found == result_of(OF_TODAYS_NAMES / "finished")
    assert {path.name: path.read_bytes() for path in (older / "finished").iterdir() if path.name in before} == before
    assert f"{found['top1']:.2f} %" in capsys.readouterr().out


def test_an_unfinished_run_goes_on_to_the_end_of_an_unbroken_one(older: Path) -> None:
    started = torch.load(older / "unfinished" / "last.pt", weights_only=True)["step"]
    run(older / "unfinished")
    state = torch.load(older / "unfinished" / "last.pt", weights_only=True)
    assert (started, state["step"]) == (4, 6)
    expected = weights(OF_TODAYS_NAMES / "finished")
    assert weights(older / "unfinished").keys() == expected.keys()
    for name, tensor in weights(older / "unfinished").items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-4, atol=1e-6
        )  # another processor may round differently
    assert "_target_" not in (older / "unfinished" / "config.yaml").read_text(encoding="utf-8")


def test_a_finished_run_goes_on_to_more_epochs(older: Path) -> None:
    assert run(older / "finished", "train.epochs=3")["epochs"] == 3


def test_another_value_is_still_another_run(older: Path) -> None:
    with refused("adapter.ratio", "0.25", "0.5", "run_dir=DIR"):
        run(older / "unfinished", "adapter.ratio=0.5")


def test_a_checkpoint_is_tested_and_predicts_as_it_did(older: Path, tmp_path: Path, toy_cache: Path) -> None:
    trained = result_of(OF_TODAYS_NAMES / "finished")
    found = evaluate(older / "finished", tmp_path / "eval")
    assert [found[key] for key in ("top1", "top5", "data_hash")] == [
        trained[key] for key in ("top1", "top5", "data_hash")
    ]
    recogniser = load(older / "finished" / "best.safetensors")
    assert recogniser.predict_file(videos(toy_cache)[0]).sum().item() == pytest.approx(1.0, abs=1e-5)


def test_a_test_in_the_folder_of_an_older_version_is_shown(older: Path, tmp_path: Path) -> None:
    evaluate(older / "finished", tmp_path / "eval")
    place = tmp_path / "eval" / "results.json"
    hashed_otherwise = result_of(tmp_path / "eval")
    hashed_otherwise["identity"]["settings"] = "of Python paths"
    place.write_text(json.dumps(hashed_otherwise), encoding="utf-8")
    assert evaluate(older / "finished", tmp_path / "eval") == hashed_otherwise


def test_a_checkpoint_starts_another_run(older: Path, tmp_path: Path) -> None:
    killed_at(1, tmp_path / "new", f"init={older / 'finished'}")


def test_a_checkpoint_is_exported(older: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    checkpoint_file = older / "finished" / "best.safetensors"
    words = [f"checkpoint={checkpoint_file}", f"out={tmp_path / 'model.onnx'}"]
    export.main(config.compose(words, "export"))
    assert (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("run_dir", OLDEST, ids=[path.name for path in OLDEST])
def test_the_oldest_results_are_those_of_todays_commands(run_dir: Path) -> None:
    words = [word.replace("optim.lr_mult=_backbone._0.1_", MULTIPLIED) for word in run_dir.name.split(",")[1:]]
    now = config.resolve(config.compose(["+experiment=demo", "reader=decord", *words]))
    before = config.load(run_dir / "config.yaml")
    assert identity.config_hash(before) == identity.config_hash(now)
    identity.changes(before, now, run_dir)
    config.build(identity.of_today(before), Run)


def test_the_oldest_results_are_reported() -> None:
    text = table([read(path) for path in OLDEST])
    for run_dir in OLDEST:
        assert f"{result_of(run_dir)['top1']:.1f}" in text
    assert "aim.adapters" not in text


@pytest.mark.slow
def test_a_finished_oldest_run_shows_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By today's command; it draws the demo's 2,880 videos."""
    copied = Path(shutil.copytree(HERE / "oldest" / "demo,seed=0", tmp_path / "run"))
    before = result_of(copied)
    train.main(config.compose(["+experiment=demo", "reader=decord", "seed=0", f"run_dir={copied}"]))
    assert result_of(copied) == before
    assert f"{before['top1']:.2f} %" in capsys.readouterr().out


def with_a_new_setting() -> type:
    """The settings of a run in a later version: training has one more."""
    longer = make_dataclass("Training", [("warp", Annotated[float, Before(1.0)])], bases=(Training,), frozen=True)

    @dataclass(frozen=True)
    class Later(Run):
        train: longer  # type: ignore[valid-type]

    Later.__annotations__["train"] = longer
    return Later


def test_a_new_setting_makes_older_runs_no_other_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    before = config.load(OF_TODAYS_NAMES / "finished" / "config.yaml")
    now = config.resolve(config.compose(TOY))
    monkeypatch.setattr(settings, "Run", with_a_new_setting())
    said = identity.changes(before, now, Path("run"))
    assert not any("warp" in text for text in said)
    same, other = (now | {"train": now["train"] | {"warp": value}} for value in (1.0, 2.0))
    identity.changes(before, same, Path("run"))
    with refused("train.warp", "1.0", "2.0"):
        identity.changes(before, other, Path("run"))
    assert identity.config_hash(same) == identity.config_hash(before) != identity.config_hash(other)


def test_every_setting_is_known_of_older_runs() -> None:
    """A new setting needs a default or `Before`."""
    for path in (OF_TODAYS_NAMES / "finished", *OLDEST):
        config.build(identity.of_today(config.load(path / "config.yaml")), Run)


def test_no_file_of_ours_names_a_python_path(tmp_path: Path) -> None:
    run(tmp_path)
    assert "aim." not in (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert "_target_" not in json.dumps(checkpoint.read_weights(tmp_path / "best.safetensors").config)
    for path in choices.CONFIGS.rglob("*.yaml"):
        assert "_target_" not in path.read_text(encoding="utf-8"), path
