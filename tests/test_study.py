"""aim.study: from a grid of cells to its findings."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from aim.ground import config, lease
from aim.ground.errors import UserError
from aim.ground.signals import INTERRUPTED, Interrupted
from aim.study import verb as study
from aim.study.cells.running import left
from tests.conftest import ROOT
from tests.messages import refused
from tests.study.small import COMMON, NUM_CELLS, SMALL, made_up, run, told
from tests.toy import TOY

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, toy_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_study_runs_its_cells_once_and_says_what_they_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    ran = made_up(monkeypatch)
    assert run(tmp_path / "s") == 0
    assert len(set(ran)) == len(ran) == NUM_CELLS
    assert re.search(r"cell 12 of 12, 0s left: \S+: top-1 \d", capsys.readouterr().err)
    found = told(tmp_path / "s")
    assert (found["name"], found["machine"], found["seconds"]) == ("small", "a CPU", 9.5 * NUM_CELLS)
    cells = {cell["name"]: cell for cell in found["cells"]}
    assert set(cells) == set(ran)
    best, half = cells["b,aim,share=1,seed=0"], cells["a,aim,share=0.5,seed=1"]
    assert (best["trunk"], best["adapter"], best["share"], best["seed"], best["videos"]) == ("b", "aim", 1.0, 0, 24)
    assert (best["state"], best["why"]) == ("done", None)
    assert half["videos"] == 16  # half of three a class, rounded to even, is two
    # The same steps: 24 videos in 2 epochs, 16 in 3.
    assert half["flops"] == pytest.approx(cells["a,aim,share=1,seed=0"]["flops"])
    assert best["flops"] > cells["a,aim,share=1,seed=0"]["flops"] > cells["a,none,share=1,seed=0"]["flops"]
    value, low, high = best["scores"]["top1"]
    assert low < value < high
    drawn = {(curve["axis"], curve["series"], curve["task"]) for curve in found["curves"]}
    assert {("parameters", "aim", "all"), ("videos", "aim, a", "all"), ("parameters", "none", "grow/shrink")} <= drawn
    assert ("videos", "aim, b", "all") not in drawn  # which has one share
    assert all(curve["seeds"] == [0, 1] for curve in found["curves"])
    assert found["summary"]

    again = made_up(monkeypatch)
    assert run(tmp_path / "s") == 0
    assert again == []
    assert told(tmp_path / "s") == found


def test_difficulty_is_an_axis_and_mixes_with_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = made_up(monkeypatch)
    assert run(tmp_path / "s", "study.difficulties=[0.4,0.2,0.1]", "study.cells=[{difficulties: [0.4]}, {trunks: [b]}]",
               "study.shares=[1.0]") == 0  # fmt: skip
    assert len(ran) == (2 * 2 + 2 * 2) * 2
    found = told(tmp_path / "s")
    cells = {cell["name"]: cell for cell in found["cells"]}
    assert cells["b,aim,share=1,difficulty=0.1,seed=0"]["difficulty"] == 0.1
    top1 = {(c["axis"], c["series"]): c for c in found["curves"] if (c["task"], c["score"]) == ("all", "top1")}
    assert top1["difficulty", "aim, b"]["scale"] == [0.1, 0.2, 0.4]
    assert ("difficulty", "aim, a") not in top1  # which has one
    one = [cells[f"b,aim,share=1,difficulty=0.4,seed={seed}"]["scores"]["top1"][0] for seed in (0, 1)]
    assert top1["parameters", "aim"]["mean"][-1] == pytest.approx(sum(one) / 2)
    assert "<th>difficulty of the videos" in re.sub(r"<th[^>]*>", "<th>", (tmp_path / "s" / "study.html").read_text())
    config_of = yaml.safe_load((tmp_path / "s" / "b,aim,share=1,difficulty=0.1,seed=0" / "config.yaml").read_text())
    assert config_of["data"]["lists"]["difficulty"] == 0.1


def test_a_failed_cell_is_named_left_out_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    made_up(monkeypatch, fails={"a,aim,share=1,seed=1": "the loss became nan"})
    assert run(tmp_path / "s") == 2
    said = capsys.readouterr().err
    assert (
        "error: 1 of 12 cells failed and are left out: a,aim,share=1,seed=1: the loss became nan (exit code 2)" in said
    )
    cells = {cell["name"]: cell for cell in told(tmp_path / "s")["cells"]}
    failed = cells.pop("a,aim,share=1,seed=1")
    assert (failed["state"], failed["why"], failed["scores"]) == ("failed", "the loss became nan (exit code 2)", {})
    assert all(cell["state"] == "done" for cell in cells.values())
    again = made_up(monkeypatch)
    assert run(tmp_path / "s", "jobs=0") == 1  # it only draws
    assert again == []
    assert [cell["why"] for cell in told(tmp_path / "s")["cells"] if cell["why"]] == ["the loss became nan"]
    assert run(tmp_path / "s") == 0
    assert again == ["a,aim,share=1,seed=1"]


@pytest.mark.slow
def test_a_signal_stops_the_study_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made_up(monkeypatch, stops_after=5)
    cfg = config.compose([*SMALL, f"run_dir={tmp_path / 's'}"], "study")
    with refused("5", "12", "cells", error=Interrupted):
        study.main(cfg)
    assert not (tmp_path / "s" / "study.json").exists()
    assert run(tmp_path / "s", "jobs=0") == 0  # finished cells can be viewed
    states = [cell["state"] for cell in told(tmp_path / "s")["cells"]]
    assert (states.count("done"), states.count("missing")) == (5, 7)
    second = made_up(monkeypatch)
    assert run(tmp_path / "s") == 0
    assert len(second) == 7
    assert not set(first) & set(second)


def test_one_scale_only_is_said_and_draws_no_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch)
    assert run(tmp_path / "s", "study.shares=[1.0]", "study.cells=[{trunks: [a]}]") == 0
    curves = told(tmp_path / "s")["curves"]
    assert {curve["axis"] for curve in curves} == {"parameters"}
    assert {curve["kind"] for curve in curves} == {"too few"}


def test_a_second_job_on_the_same_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch)
    cfg = config.compose([*SMALL, f"run_dir={tmp_path / 's'}"], "study")
    with lease.held(tmp_path / "s"), refused("host", "process", "run_dir=DIR"):
        study.main(cfg)


def test_dry_lists_cells_and_costs_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("AIM_CACHE", str(tmp_path / "cache"))
    study.main(config.compose([*SMALL, "dry=true", "jobs=3"], "study"))
    head, *lines, last = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["cell", "state", "videos", "epochs", "training"]
    assert len(lines) == NUM_CELLS
    assert all(" to run " in line and line.endswith("  FLOPs") for line in lines)
    said = r"12 cells, 0 done; the other 12 take about \d+s, 3 at once \(an estimate, by FLOPs; beside each other .*\)"
    assert re.fullmatch(said, last)
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_is_by_what_cells_were_expected_to_take() -> None:
    """Ten cells, the long one done: it took twice the expected time, as the others will."""
    expected = [100.0] + [10.0] * 9
    assert left(expected, {0: 0.0, 1: 195.0}, {0: 200.0}, now=200.0) == pytest.approx(9 * 20 - 5)
    assert left([1.0, 1.0], {0: 0.0, 1: 0.0}, {0: 1.0, 1: 1.0}, now=2.0) == 0


def test_finished_cells_tell_what_others_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    made_up(monkeypatch)
    assert run(tmp_path / "s", "study.seeds=[0]", "study.cells=[{shares: [1.0], adapters: [aim]}]") == 0
    capsys.readouterr()
    study.main(config.compose([*SMALL, f"run_dir={tmp_path / 's'}", "dry=true"], "study"))
    lines = {line.split()[0]: line.split()[-3:] for line in capsys.readouterr().out.splitlines()[1:-1]}
    assert lines["b,aim,share=1,seed=0"][1:] == ["10", "measured"]
    assert lines["b,aim,share=1,seed=1"] == ["10", "other", "seeds"]
    assert lines["b,none,share=1,seed=0"][1:] == ["finished", "cells"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["study.seeds=[]"], "study.seeds is empty; name one or more"),
        (["study.adapters=null"], "study.adapters=None is not"),
        (["study.shares=[0.5,nan]"], "study.shares: nan isn't a share of the videos above 0 and up to 1"),
        (["study.shares=[0.5,1.5]"], "study.shares: 1.5 isn't a share"),
        (["study.difficulties=[0,0.5]"], "study.difficulties: 0 is neither null nor above 0 and up to 1"),
        (["study.seeds=[1,1]"], "study.seeds=[1, 1] names one twice"),
        (["study.cells=[{trunk: [a]}]"], "study.cells: no axis 'trunk'; nearest: trunks"),
        (["study.cells=[{trunks: [aa]}]"], "study.cells names aa, which study.trunks=['a', 'b'] lacks; nearest: a"),
        (["study.cells=[]"], "study.cells is empty"),
        (["study.pairs=[[grow, grow]]"], "study.pairs: ['grow', 'grow'] isn't a pair of two classes"),
        (["+study.adapters={none: ['adapter=nine']}"], "a,none,share=1,seed=0: no adapter 'nine'; nearest: none, side"),
        (["+study.trunks={a: ['trian.epochs=3']}"], "no setting 'trian.epochs'; nearest: train.epochs"),
        (["+study.adapters={too: []}"], "are the same training"),
        (["study.experiment=null"], "there is nothing to study: add +study=NAME, one of demo, "),
        (["study.trunk_errors=nowhere.json"], "nowhere.json can't be read as study.trunk_errors"),
        (["jobs=-1"], "jobs=-1 isn't a number of cells"),
        (["input=nowhere.csv"], "nowhere.csv can't be read"),
    ],
)
def test_what_is_wrong_is_one_line_before_the_first_cell_starts(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], expected: str
) -> None:
    ran = made_up(monkeypatch)
    with pytest.raises(UserError) as caught:
        study.main(config.compose([*SMALL, *overrides], "study"))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ran == []


def test_other_settings_in_the_folder_of_a_study_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(monkeypatch)
    one = ["study.shares=[1.0]", "study.cells=[{trunks: [a], adapters: [none]}]", "study.seeds=[0]"]
    assert run(tmp_path / "s", *one) == 0
    for override, said in (("optim.lr=1e-2", ["optim.lr"]), ("train.epochs=9", ["train.epochs", "2", "9"])):
        common = f"study.common=[{COMMON},'{override}']"
        with refused(*said):
            study.main(config.compose([*SMALL, *one, common, f"run_dir={tmp_path / 's'}"], "study"))


def test_a_table_of_anybody_is_analysed(tmp_path: Path, capsys: Capture) -> None:
    rows = [f"{10**i},{0.1 + 0.2 * i},{seed},arithmetic" for i in range(5) for seed in range(2)]
    (tmp_path / "table.csv").write_text("\n".join(["scale,score,seed,task", *rows]))
    study.main(config.compose(["input=table.csv", "chance=0.1"], "study"))
    found = told(tmp_path / "table")
    assert (found["cells"], found["axes"]) == ([], {"scale": "scale"})
    assert [(curve["task"], curve["chance"]) for curve in found["curves"]] == [("arithmetic", 0.1)]
    assert capsys.readouterr().out.startswith("No emergence was found: of 1 curve ")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cells_are_processes_and_a_study_killed_in_the_middle_goes_on(tmp_path: Path, toy_cache: Path) -> None:
    """Four cells, two at once, two that can't train; Ctrl-C after the first one's end."""
    (tmp_path / "study").mkdir()
    common = [text for text in TOY if not text.startswith("+experiment")]
    text = {
        "name": "four", "title": "Four cells", "experiment": "demo", "trunks": {"a": []},
        "adapters": {"none": ["adapter=none"], "lost": ["adapter=none", "optim.lr=1e30", "optim.warmup_epochs=0"]},
        "seeds": [0, 1], "common": common,
    }  # fmt: skip
    (tmp_path / "study" / "four.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    command = [sys.executable, "-m", "aim.study", f"--config-dir={tmp_path}", "+study=four", "train.epochs=40"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "AIM_CACHE": str(toy_cache)}

    def start() -> "subprocess.Popen[str]":
        line, pipe = [*command, "jobs=2"], subprocess.PIPE
        return subprocess.Popen(line, cwd=tmp_path, env=environment, stderr=pipe, stdout=pipe, text=True)

    process = start()
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("aim: cell 1 of 4"):
            break
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=200)
    assert process.returncode == INTERRUPTED, said
    assert "of 4 cells are done in runs/study/four,train.epochs=40; the same command continues" in said
    _, said = (process := start()).communicate(timeout=400)
    assert process.returncode == 2, said
    assert "2 of 4 cells failed and are left out: a,lost,share=1,seed=0: " in said
    cells = told(tmp_path / "runs" / "study" / "four,train.epochs=40")["cells"]
    assert [cell["state"] for cell in cells] == ["done", "done", "failed", "failed"]
    assert all("became" in cell["why"] for cell in cells[2:])
