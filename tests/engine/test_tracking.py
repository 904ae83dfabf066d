import json
from pathlib import Path

import pytest

from aim.engine.tracking import Display, Journal, TensorBoard, Wandb
from aim.errors import UserError


def test_wandb_writes_offline_without_a_key_or_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with Wandb(project="p", entity=None, mode="offline").open(tmp_path, "toy", {"seed": 1}) as log:
        log(1, {"loss": 2.0})
        log(2, {"loss": 1.0})
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 1
    assert files[0].stat().st_size > 0


def test_wandb_without_a_key_is_an_error_and_never_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "nothing"))
    with (
        pytest.raises(UserError, match=r"WANDB_API_KEY, .*tracker\.mode=offline"),
        Wandb(project="p", entity=None, mode="online").open(tmp_path, "toy", {}),
    ):
        pass


def test_tensorboard_writes_what_its_own_reader_reads(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoard().open(tmp_path, "toy", {}) as log:
        log(3, {"loss": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(3, 0.5)]


def test_the_journal_drops_what_came_after_the_step_it_continues_from(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    first = Journal(path, 0)
    for step in (1, 2, 3):
        first(step, {"loss": float(step)})
    first.close()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # a crash in the middle of a line
    second = Journal(path, 2)
    second(3, {"loss": 30.0})
    second.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 30.0},
    ]


def test_the_display_prints_lines_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aim.engine.tracking.LINE_SECONDS", 0.0)
    with Display("train", 10, visible=True) as display:
        display.update(4, "loss 1.000")
    assert capsys.readouterr().out.startswith("train 4/10  loss 1.000  0s left")


def test_other_ranks_say_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aim.engine.tracking.LINE_SECONDS", 0.0)
    with Display("train", 10, visible=False) as display:
        display.update(4, "loss 1.000")
        display.say("hello")
    assert capsys.readouterr().out == ""
