"""Answers to wrong words on a command line."""

from pathlib import Path

import pytest

from aim.ground import config
from aim.shell import words as overrides
from tests.messages import refused


@pytest.mark.parametrize(
    ("words", "config_name", "expected"),
    [
        (["demo"], "config", ["'demo'", "KEY=VALUE", "+experiment=demo"]),
        (["dmeo"], "config", ["+experiment=demo"]),
        (["lora"], "config", ["adapter=lora"]),
        (["ratio_8th"], "config", ["+experiment=ablation/ratio_8th"]),
        (["train.epochs", "seed=1"], "config", ["train.epochs=VALUE"]),
        (["experiment=demo"], "config", ["+experiment=demo"]),
        (["experiment="], "config", ["+experiment=NAME"]),
        (["--hlp"], "config", ["'--hlp'", "--help"]),
        (["+experiment=demo", "--train.epochs=3"], "config", ["train.epochs=3"]),
        (["--experiment=demo"], "config", ["+experiment=demo"]),
        (["--epochs", "3"], "config", ["train.epochs=VALUE"]),
        (["--cfg"], "config", ["--cfg/-c", "--help"]),
        (["gibberish!"], "config", ["'gibberish!'", "KEY=VALUE"]),
        (["clip.mp4"], "eval", ["'clip.mp4'", "KEY=VALUE"]),
        (["runs/x"], "predict", ["checkpoint=runs/x"]),
        (["runs/x"], "eval", ["checkpoint=runs/x"]),
        (["runs/x"], "config", ["init=runs/x"]),
        (["videos"], "config", ["+experiment=finetune", "data.root=videos"]),
        (["demo"], "eval", ["'demo'", "KEY=VALUE"]),
        (["demo"], "study", ["+study=demo"]),
    ],
)
def test_a_wrong_word_is_answered_with_its_right_form(
    words: list[str], config_name: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").touch()
    Path("videos").mkdir()
    Path("runs/x").mkdir(parents=True)
    Path("runs/x/config.yaml").touch()
    with refused(*expected):
        overrides.checked(words, config_name)


def test_options_may_stand_between_settings() -> None:
    words = ["+experiment=demo", "-m", "adapter=aim,none", "--cfg", "job", "~hydra.x", "run_dir=a b"]
    assert overrides.checked(words, "config") == [
        *("-m", "--cfg", "job", "+experiment=demo", "adapter=aim,none", "~hydra.x", "run_dir='a b'"),
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["+experiment=dem"], ["'dem'", "demo"]),
        (["train.epoch=3"], ["'train.epoch'", "train.epochs"]),
        (["optim.lr_mult={a: 0.1}"], ["optim.lr_mult", "+optim.lr_mult={KEY:"]),
        (["data.lists.num_train=8"], ["data.lists.num_train", "++data.lists.num_train=VALUE"]),
        (["hydra/sweeper=optuna"], ["hydra/sweeper", "'optuna'", "basic"]),
        (["data.root"], ["'data.root'", "KEY=VALUE"]),
    ],
)
def test_composing_in_a_notebook_fails_in_one_line(words: list[str], expected: list[str]) -> None:
    with refused(*expected) as caught:
        config.compose(words)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_bare_words_are_the_list_of_one_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a=b.mp4", "m.onnx"):
        Path(name).touch()
    words = ["checkpoint=c", "x.mp4", "--config-dir", "DIR", "top=3", "a=b.mp4", "it's, [b].mp4", "~/x.mp4", "-", "-m"]
    *others, found = overrides.checked(words, "predict")
    assert others == ["--config-dir", "DIR", "-m", "checkpoint='c'", "top=3"]
    assert config.compose(["checkpoint=c", found], "predict").input == [
        "x.mp4",
        "a=b.mp4",
        "it's, [b].mp4",
        "~/x.mp4",
        "-",
    ]
    for verb in ("predict", "features", "explain"):
        assert overrides.checked(["it's.mp4"], verb) == [r"input='it\'s.mp4'"]
    assert overrides.checked(["input=a", "top=3"], "predict") == ["input='a'", "top=3"]
    with refused("x.mp4", "input="):
        overrides.checked(["input=a", "x.mp4"], "predict")
    with refused("'m.onnx'", "KEY=VALUE", "checkpoint=m.onnx"):
        overrides.checked(["m.onnx", "x.mp4"], "predict")
    odd = ["a\nb.mp4", "a\\b.mp4", "a\\", "\\'", "\\\n", "\udcff.mp4"]
    (found,) = overrides.checked(odd, "predict")
    assert config.compose(["checkpoint=c", found], "predict").input == odd
    assert overrides.quoted("input=[a.mp4,b.mp4]") == "input=[a.mp4,b.mp4]"
    Path("[a.mp4,b.mp4]").touch()
    assert overrides.quoted("input=[a.mp4,b.mp4]") == "input='[a.mp4,b.mp4]'"


def test_a_sweep_takes_paths_with_commas_between_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-m", "data.root=a b,c,d", "init='x,y'", "seed=0,1"]
    assert overrides.checked(words, "config") == ["-m", "data.root='a b','c','d'", "init='x,y'", "seed=0,1"]
    assert overrides.checked(["data.root=a,b"], "config") == ["data.root='a,b'"]
    Path("a,b").mkdir()
    assert overrides.checked(["-m", "data.root=a,b"], "config") == ["-m", "data.root='a,b'"]


def test_a_list_file_of_a_folder_is_named_where_there_is_one() -> None:
    with refused("data.lists.train", "data.train=FILE"):
        config.compose(["+experiment=finetune", "data.lists.train=my.txt"])
    assert config.compose(["+experiment=finetune", "data.train=my.txt"]).data.train == "my.txt"


@pytest.mark.parametrize("sweeps", [False, True])
def test_a_pattern_is_taken_without_quotes_of_its_own(sweeps: bool) -> None:
    assert overrides.quoted(r"data.groups=seq(\d{1,2})_", sweeps=sweeps) == r"data.groups='seq(\d{1,2})_'"
    assert overrides.quoted("data.groups=null") == "data.groups=null"
    composed = config.compose([overrides.quoted(r"data.groups=seq(\d{1,2})_"), "data.root=x"])
    assert composed.data.groups == r"seq(\d{1,2})_"
