import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from aim.engine.run import identity
from aim.engine.scores import predictions
from aim.ground import config
from aim.report.runs import comparable, distinct, paper, read, reportable
from aim.report.table import columns_of
from tests.messages import refused
from tests.report.made import RESULT, random_predictions, run_directory


def test_a_run_that_still_trains_tells_how_far_it_is(tmp_path: Path) -> None:
    run_dir = run_directory(tmp_path / "run", None, "train: {epochs: 20}", random_predictions(9, 3))
    log = run_dir / "log.jsonl"
    log.write_text(log.read_text(encoding="utf-8") + '{"step": 31, "epo', encoding="utf-8")
    run = read(run_dir, whole=True)
    assert run.results is None
    assert run.progress == "epoch 3.0 of 20, validation top-1 80.0 %"
    assert run.found is not None
    assert read(run_directory(tmp_path / "new", None, "train: {epochs: 20}", epochs=0)).progress.startswith("before")


def test_a_run_that_goes_on_is_told_by_its_validation_and_a_finished_one_by_its_test(tmp_path: Path) -> None:
    old, new = random_predictions(9, 3), random_predictions(5, 3)
    for results, expected in (({}, 9), (None, 5)):
        run_dir = run_directory(tmp_path / str(expected), results, "seed: 0")
        predictions.write(run_dir / "predictions.npz", old)
        predictions.write(run_dir / "validation.npz", new)
        found = read(run_dir, whole=True).found
        assert found is not None
        assert len(found.index) == expected


@pytest.mark.parametrize(
    ("results", "every", "expected", "these", "best"),
    [
        ({"weights": "best"}, 1, 1.5, True, False),
        ({"weights": "last"}, 1, 1.5, True, True),  # the file has the weights of another epoch
        ({"weights": "last"}, 0, 1.5, True, False),
        ({"weights": "last", "checkpoint": "ELSEWHERE"}, 1, 2.5, False, False),
        ({"weights": "last", "checkpoint": "/nowhere/best.safetensors"}, 1, None, False, False),
        ({"weights": "last", "checkpoint": "ELSEWHERE", "fits_temperature": True}, 1, 2.5, True, False),
        ({"weights": "best", "identity": {"test_hash": "c"}}, 1, 1.5, False, False),
        ({"weights": "best", "fits_temperature": False}, 1, 1.5, False, False),
        (None, 1, None, False, False),
    ],
    ids=str,
)
def test_the_temperature_is_that_of_the_checkpoint(
    tmp_path: Path, results: dict[str, Any] | None, every: int, expected: float | None, these: bool, best: bool
) -> None:
    save_file({}, tmp_path / "other.safetensors", {"temperature": "2.5"})
    if results and results.get("checkpoint") == "ELSEWHERE":
        results = results | {"checkpoint": str(tmp_path / "other.safetensors")}
    run_dir = run_directory(tmp_path / "run", results, f"train: {{eval_every: {every}}}", random_predictions(9, 3))
    save_file({}, run_dir / "best.safetensors", {"temperature": "1.5"})
    run = read(run_dir, whole=True)
    assert run.temperature == expected
    assert ("these" in run.temperature_of, "best" in run.temperature_of) == (these, best)


def test_a_test_is_told_from_a_training(tmp_path: Path) -> None:
    assert read(run_directory(tmp_path / "a", {}, "seed: 0")).trains
    assert not read(run_directory(tmp_path / "b", {"checkpoint": "x"}, "seed: 0")).trains


def test_a_result_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps(RESULT))
    run = read(tmp_path, whole=True)
    assert (run.settings, run.log, run.found, run.bad) == ({}, [], None, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", ["results.json", "result", "delete", "aim.train", "aim.eval"]),
        ("{}", ["results.json", "views", "params_tuned", "aim.eval"]),
        ("{", ["results.json", "Expecting", "delete", "aim.eval"]),
        ('{"views": "8x1x1", "params_tuned": null}', ["results.json", "params_tuned", "params_total"]),
        (b"\xff\xfe", ["results.json", "'utf-8'", "aim.eval"]),
    ],
)
def test_results_of_the_wrong_kind_are_named(tmp_path: Path, text: str | bytes, expected: list[str]) -> None:
    run_dir = run_directory(tmp_path / "run", {}, "seed: 0")
    (run_dir / "results.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(*expected):
        read(run_dir)


def test_damaged_settings_and_predictions_are_named(tmp_path: Path) -> None:
    with refused("config.yaml", "delete", "run_dir"):
        read(run_directory(tmp_path / "a", {}, "a: [1"))
    run_dir = run_directory(tmp_path / "b", {}, "seed: 0")
    (run_dir / "predictions.npz").write_bytes(b"PK")
    with refused("predictions.npz", "aim.eval"):
        read(run_dir, whole=True)


def test_a_run_is_read_once_and_those_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [run_directory(tmp_path / name, {}, "seed: 0") for name in ("a/x/demo", "b/x/demo", "c/demo", "c/other")]
    found = reportable([paths[0], *paths, paths[0].parent / ".." / "x" / "demo"])
    assert found == paths
    assert [run.name for run in distinct([read(path) for path in found])] == ["a/x/demo", "b/x/demo", "c/demo", "other"]
    assert [run.name for run in distinct([read(paths[0])])] == ["demo"]


@pytest.mark.parametrize(
    ("name", "expected"), [(".", ["results.json", "directories"]), ("nowhere", ["nowhere", "directories"])]
)
def test_no_results_at_all_are_an_error(tmp_path: Path, name: str, expected: list[str]) -> None:
    with refused(*expected):
        reportable([tmp_path / name])


def test_a_folder_of_runs_is_answered_with_what_names_them(tmp_path: Path) -> None:
    run_directory(tmp_path / "runs" / "demo", {}, "seed: 0")
    with refused(f"{tmp_path}/runs/*"):
        reportable([tmp_path / "runs"])


def test_the_papers_number_stands_beside_its_experiments_and_what_is_otherwise() -> None:
    settings = config.resolve(config.compose(["+experiment=k400"]))
    assert paper("k400", settings) == "83.9 % (table 2)"
    assert paper("k400", settings | {"seed": 7}) == "83.9 % (table 2)"
    changed = settings | {"optim": settings["optim"] | {"lr": 1.0}}
    assert paper("k400", changed) == "83.9 % (table 2), with another optim.lr"
    assert paper("demo", {}) == paper("custom", {}) == ""


def test_a_training_and_its_test_differ_in_no_setting_that_only_one_of_them_has_written(tmp_path: Path) -> None:
    written = config.resolve(config.compose(["+experiment=finetune", "backbone=demo", "adapter=none"]))
    assert "tubelet" not in written["backbone"]
    training = run_directory(tmp_path / "run", {}, json.dumps(written))
    of_test = identity.of_today(written) | {"stretch_time": False}
    test = run_directory(tmp_path / "test", {"checkpoint": "b"}, json.dumps(of_test))
    other = run_directory(tmp_path / "other", {}, json.dumps({**written, "adapter": {"kind": "somebodys"}}))
    assert columns_of(comparable([read(training), read(test)])) == {}
    assert columns_of(comparable([read(training), read(other)])) == {"adapter": ["none", "somebodys"]}


@pytest.mark.parametrize("name", ["none", "full", "aim", "probe"])
def test_an_adapter_is_called_as_a_command_calls_it(tmp_path: Path, name: str) -> None:
    settings = config.resolve(config.compose(["+experiment=finetune", "backbone=demo", f"adapter={name}"]))
    assert read(run_directory(tmp_path / "run", {}, json.dumps(settings))).deciding["adapter.kind"] == name
