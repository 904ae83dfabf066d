import importlib.util
import json
import pickle
from pathlib import Path

import pytest
import torch

from aim.data.readers.auto import Auto
from aim.data.readers.decord import Decord
from aim.data.readers.interface import Reader
from aim.data.readers.pyav import PyAV
from aim.engine.machine import distributed
from aim.engine.run.settings import Run
from aim.ground import config
from tests.messages import refused


def reported(folder: Path, transcode: dict[str, object] | None) -> Path:
    """A folder as `aim.prepare` writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "prepare.json").write_text(json.dumps({"settings": {"transcode": transcode}}))
    return folder


def chosen(root: Path, *overrides: str) -> Reader:
    return config.build(config.compose(["+experiment=k400", f"data.root={root}", *overrides]), Run).settled_reader()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """decord counts as installed, also where it has no wheels."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
def test_what_was_prepared_is_read_with_pyav_and_the_rest_with_decord(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = reported(tmp_path / "small", {"crf": 22})
    assert chosen(small) == PyAV()
    assert capsys.readouterr().err == f"aim: reader=auto is pyav, as aim.prepare made data.root={small}\n"
    for root in (reported(tmp_path / "listed", None), tmp_path, tmp_path / "nowhere", small / "prepare.json"):
        assert chosen(root) == Decord()
        said = capsys.readouterr().err
        assert said == f"aim: reader=auto is decord, as aim.prepare didn't write the videos of data.root={root}\n"


def test_without_decord_pyav_reads_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert chosen(tmp_path) == PyAV()
    assert capsys.readouterr().err == "aim: reader=auto is pyav, as decord isn't installed\n"


@pytest.mark.usefixtures("installed")
def test_a_reader_that_is_named_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen(reported(tmp_path, {"crf": 22}), "reader=decord") == Decord()
    assert chosen(tmp_path / "other", "reader=pyav") == PyAV()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("installed")
def test_rank_0_alone_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert chosen(reported(tmp_path, {"crf": 22})) == PyAV()
    assert capsys.readouterr().err == ""


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    (tmp_path / "prepare.json").write_text("{")
    with refused("prepare.json", "aim.prepare"):
        chosen(tmp_path)


def test_it_reads_files_whose_root_nobody_names(shared: Path) -> None:
    path = shared / "videos" / "k400_test.mp4"
    assert torch.equal(Auto()(path, lambda n: [n - 1]), PyAV()(path, lambda n: [n - 1]))


@pytest.mark.usefixtures("installed")
def test_ranks_of_a_launcher_share_no_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share no multiprocessing parent, and so no key to each other's files."""
    sent = list[bytes]()
    monkeypatch.setattr(distributed, "share", lambda value: sent.append(pickle.dumps(value)) or value)
    assert chosen(tmp_path) == Decord()
    assert b"once" in pickle.dumps(Decord())
    assert b"once" not in sent[0]
