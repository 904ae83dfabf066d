"""The test at the end of a training: its videos, none tested twice with the same weights and views."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from aim.data.lists import data_hash
from aim.data.rows import read_list
from aim.engine.loop import testing
from aim.engine.run.settings import Run
from aim.engine.scores import predictions
from aim.ground import config
from tests.toy import OWN, TOY, Died, evaluate, journal, run

pytestmark = pytest.mark.usefixtures("toy_cache")


def dies(*args: Any, **kwargs: Any) -> None:
    raise Died


@pytest.mark.parametrize("choice", ["last", "best"])
def test_a_validation_of_the_same_weights_and_views_is_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, choice: str
) -> None:
    monkeypatch.setattr(testing, "evaluate", dies)
    found = run(tmp_path / "same", f"test={choice}")
    validations = [line for line in journal(tmp_path / "same") if "val_top1" in line]
    wanted = max(validations, key=lambda line: line["val_top1"]) if choice == "best" else validations[-1]
    assert found["top1"] == pytest.approx(wanted["val_top1"], abs=1e-3)
    assert found["cross_entropy"] == pytest.approx(wanted["val_loss"], abs=1e-4)
    assert (found["part"], found["fits_temperature"]) == ("validation", True)
    assert found["chose"] == ["weights (test=best)"] * (choice == "best")
    assert "epoch" not in predictions.read(tmp_path / "same" / "predictions.npz").about
    with pytest.raises(Died):
        run(tmp_path / "other", f"test={choice}", "train.epochs=1", "views.temporal=2")


def test_a_third_list_is_what_is_tested_and_has_chosen_nothing(tmp_path: Path, toy_cache: Path) -> None:
    config.build(config.compose(TOY), Run).load_lists()
    folder = Path(shutil.copytree(next(toy_cache.glob("moving_shapes_*")), tmp_path / "data"))
    lines = (folder / "val.txt").read_text(encoding="utf-8").splitlines()
    for name, part in (("val", lines[:12]), ("test", lines[12:])):
        (folder / f"{name}.txt").write_text("\n".join(part), encoding="utf-8")
    own = [f"data.root={folder}", "train.epochs=1"]
    found = run(tmp_path / "run", *own, "test=best", toy=OWN)
    assert (found["num_videos"], found["chose"], found["lists"]) == (4, [], {"train": 24, "val": 12, "test": 4})
    assert (found["part"], found["fits_temperature"]) == ("test", False)
    classes = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert (
        found["data_hash"]
        == data_hash(read_list(folder / "test.txt", classes), classes)
        != found["identity"]["data_hash"]
    )
    again = evaluate(tmp_path / "run", tmp_path / "third", f"data.root={folder}", toy=OWN)
    assert (again["part"], again["chose"], again["fits_temperature"]) == ("test", [], False)
    (folder / "test.txt").unlink()
    again = evaluate(tmp_path / "run", tmp_path / "val", f"data.root={folder}", toy=OWN)
    assert (again["part"], again["chose"], again["fits_temperature"]) == ("validation", ["weights"], True)


def test_without_validations_the_tested_videos_are_those_of_a_test_and_calibrate(tmp_path: Path) -> None:
    found = run(tmp_path / "run", "train.epochs=1", "train.eval_every=0")
    again = evaluate(tmp_path / "run", tmp_path / "test")
    for each in (found, again):
        assert (each["part"], each["chose"], each["fits_temperature"]) == ("test", [], True)
