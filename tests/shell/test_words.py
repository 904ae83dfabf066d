"""What a wrong word on a command line is answered with."""

from pathlib import Path

import pytest

from aim.ground import config
from aim.ground.errors import UserError
from aim.shell import words as overrides


@pytest.mark.parametrize(
    ("words", "config_name", "expected"),
    [
        (["demo"], "config", "'demo' is no setting, which is KEY=VALUE; write +experiment=demo"),
        (["dmeo"], "config", "nearest: +experiment=demo"),
        (["lora"], "config", "write adapter=lora"),
        (["ratio_8th"], "config", "nearest: +experiment=ablation/ratio_8th"),
        (["train.epochs", "seed=1"], "config", "write train.epochs=VALUE"),
        (["experiment=demo"], "config", "write +experiment=demo"),
        (["experiment="], "config", "write +experiment=NAME"),
        (["--hlp"], "config", "no option '--hlp'; nearest: --help"),
        (["+experiment=demo", "--train.epochs=3"], "config", "a setting has no dashes: write train.epochs=3"),
        (["--experiment=demo"], "config", "a setting has no dashes: write +experiment=demo"),
        (["--epochs", "3"], "config", "nearest: train.epochs=VALUE"),
        (["--cfg"], "config", "argument --cfg/-c: expected one argument; --help says"),
        (["gibberish!"], "config", "'gibberish!' is no setting, which is KEY=VALUE"),
        (["clip.mp4"], "predict", "write input=clip.mp4"),
        (["runs/x"], "predict", "write checkpoint=runs/x"),
        (["runs/x"], "eval", "write checkpoint=runs/x"),
        (["runs/x"], "config", "write init=runs/x"),
        (["videos"], "config", "write +experiment=finetune data.root=videos"),
        (["demo"], "predict", "'demo' is no setting, which is KEY=VALUE"),
    ],
)
def test_a_wrong_word_is_answered_with_its_right_form(
    words: list[str], config_name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clip.mp4").touch()
    Path("videos").mkdir()
    Path("runs/x").mkdir(parents=True)
    Path("runs/x/config.yaml").touch()
    with pytest.raises(UserError) as caught:
        overrides.checked(words, config_name)
    assert expected in str(caught.value)


def test_options_may_stand_between_settings() -> None:
    words = ["+experiment=demo", "-m", "adapter=aim,none", "--cfg", "job", "~hydra.x", "run_dir=a b"]
    assert overrides.checked(words, "config") == [
        *("-m", "--cfg", "job", "+experiment=demo", "adapter=aim,none", "~hydra.x", "run_dir='a b'"),
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["+experiment=dem"], "no experiment 'dem'; nearest: demo"),
        (["train.epoch=3"], "no setting 'train.epoch'; nearest: train.epochs"),
        (["optim.lr_mult={a: 0.1}"], "optim.lr_mult is a mapping; to add to it write +optim.lr_mult={KEY: VALUE}"),
        (["data.lists.num_train=8"], "data.lists.num_train is no setting of what is chosen here"),
        (["hydra/sweeper=optuna"], "no hydra/sweeper 'optuna'; installed: basic; the others are plugins of Hydra"),
        (["data.root"], "an override is KEY=VALUE"),
    ],
)
def test_composing_in_a_notebook_fails_in_one_line(words: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        config.compose(words)
    assert expected in str(caught.value)
    assert caught.value.__suppress_context__


def test_bare_words_are_the_list_of_one_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a=b.mp4", "m.onnx"):
        Path(name).touch()
    words = ["checkpoint=c", "x.mp4", "--config-dir", "DIR", "top=3", "a=b.mp4", "it's, [b].mp4", "-", "-m"]
    *others, found = overrides.checked(words, "predict", "input")
    assert others == ["--config-dir", "DIR", "-m", "checkpoint='c'", "top=3"]
    assert config.compose(["checkpoint=c", found], "predict").input == ["x.mp4", "a=b.mp4", "it's, [b].mp4", "-"]
    assert overrides.checked(["input=a", "top=3"], "predict", "input") == ["input='a'", "top=3"]
    with pytest.raises(UserError, match=r"x\.mp4 stands beside input=; name all in one of the two ways"):
        overrides.checked(["input=a", "x.mp4"], "predict", "input")
    with pytest.raises(UserError, match=r"'m\.onnx' is no setting, which is KEY=VALUE; write checkpoint=m\.onnx"):
        overrides.checked(["m.onnx", "x.mp4"], "predict", "input")
    odd = ["a\nb.mp4", "a\\b.mp4", "a\\", "\\'", "\\\n", "\udcff.mp4"]
    (found,) = overrides.checked(odd, "predict", "input")
    assert config.compose(["checkpoint=c", found], "predict").input == odd
    assert overrides.quoted("input=[a.mp4,b.mp4]") == "input=[a.mp4,b.mp4]"
    Path("[a.mp4,b.mp4]").touch()
    assert overrides.quoted("input=[a.mp4,b.mp4]") == "input='[a.mp4,b.mp4]'"
