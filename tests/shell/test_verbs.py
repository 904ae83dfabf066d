"""The lists of `aim` and `aim train`."""

import re
import sys
from collections.abc import Callable

import pytest
from omegaconf import OmegaConf

import aim.__main__
from aim.engine.run.settings import Run
from aim.ground import choices, config
from aim.shell import verbs as catalogue
from tests.messages import named
from tests.test_layers import FLATS
from tests.toy import exits

Shell = Callable[..., tuple[str, str]]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Run `aim` on a command line that ends with `code`; returns its stdout and stderr."""

    def run(*arguments: str, code: int) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["aim", *arguments])
        for verb in arguments:  # that another test has imported
            monkeypatch.delitem(sys.modules, f"aim.{verb}", raising=False)
        with exits(code):
            aim.__main__.main()
            sys.exit(0)
        return capsys.readouterr()

    return run


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_aim_alone_lists_the_verbs(shell: Shell, arguments: list[str]) -> None:
    out, err = shell(*arguments, code=0)
    shown = dict(line.split(maxsplit=1) for line in out.splitlines() if line.startswith("  "))
    assert err == ""
    assert shown.keys() >= FLATS
    assert shown["eval"] == catalogue.purpose("eval") != catalogue.purpose("train") == shown["train"]


def test_an_unknown_verb_is_answered_with_the_nearest(shell: Shell) -> None:
    out, err = shell("trian", code=2)
    assert out == ""
    (said,) = err.splitlines()
    named(said, "error:", "'trian'", "train", "predict")


@pytest.mark.parametrize("arguments", [["--version"], ["train", "--version"], ["report", "--version"]])
def test_the_version_is_ours(shell: Shell, arguments: list[str]) -> None:
    out, err = shell(*arguments, code=0)
    assert out.startswith("aim-video ")
    assert (len(out.splitlines()), err) == (1, "")


def test_a_study_without_a_name_lists_them(shell: Shell) -> None:
    out, err = shell("study", code=2)
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert listed == [path.stem for path in sorted((choices.CONFIGS / "study").glob("*.yaml"))]
    named(err, "error:", "+study=NAME")


@pytest.mark.parametrize("verb", ["train", "prepare", "benchmark"])
def test_a_verb_that_wants_an_experiment_lists_them(shell: Shell, verb: str) -> None:
    out, err = shell(verb, code=2)
    for path in sorted((choices.CONFIGS / "experiment").rglob("*.yaml")):
        (line,) = [line for line in out.splitlines() if line.split()[:1] == [path.stem]]
        if top1 := re.search(r": ([\d.]+) top-1", path.read_text(encoding="utf-8").splitlines()[1]):
            assert f" {top1[1]} %" in line
    named(err, "error:", "+experiment=NAME")


def test_lists_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    lines = [*catalogue.wanted_text("aim.train", "experiment").splitlines(), *catalogue.verbs_text().splitlines()]
    assert max(map(len, lines)) <= 80
    assert any(line.endswith("...") for line in lines)
    monkeypatch.setenv("COLUMNS", "300")
    assert "..." not in catalogue.verbs_text()


def test_the_settings_are_those_that_the_classes_take() -> None:
    known = choices.settings("config")
    groups = choices.config_groups("config")  # one may have no settings of its own
    assert Run.__dataclass_fields__.keys() <= {key.partition(".")[0] for key in known} | set(groups)
    composed = dict(choices.leaves(OmegaConf.to_container(config.compose([]))))
    assert {key for key in composed if not key.endswith("kind")} <= known.keys()
    assert not any("hydra" in key for key in known)
    assert "transcode.crf" in choices.settings("prepare")  # and those of `config`, which it builds on
    assert "train.epochs" in choices.settings("prepare")


def test_every_verb_has_its_config() -> None:
    assert {verb: catalogue.config_of(verb) for verb in ("train", "eval", "predict", "prepare", "report", "study")} == {
        "train": "config", "eval": "eval", "predict": "predict", "prepare": "prepare", "report": None,
        "study": "study",
    }  # fmt: skip
    assert catalogue.verbs().keys() == FLATS
    assert all((folder / "verb.py").is_file() for folder in catalogue.verbs().values())
