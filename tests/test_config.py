import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from aim import config, train
from aim.engine.settings import Run
from aim.errors import UserError
from tests.toy import exits

EXPERIMENTS = sorted(path.stem for path in (config.CONFIGS / "experiment").glob("*.yaml"))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Runs aim.train's entry point on a command line that must fail; gives what it printed to stdout and stderr."""

    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["aim/train.py", *arguments])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        with exits(2):
            config.entrypoint(train.main, "config")
        return capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["+experiment=demo", "train.batchsize=3"], "no setting 'train.batchsize'; nearest: train.batch_size"),
        (["+experiment=demo", "+train.batchsize=3"], "no setting 'train.batchsize'; nearest: batch_size"),
        (["+experiment=dmeo"], "no experiment 'dmeo'; nearest: demo"),
        (["adapter=aimm"], "no adapter 'aimm'; nearest: aim"),
        (["+experiment=demo", "train.epochs=many"], "train.epochs='many' is not a whole number"),
        (["+experiment=demo", "device=tpu"], "device='tpu' is not one of cuda, cpu"),
        (["experiment=demo"], "+experiment=NAME"),
        (["+experiment=demo", "optim.lr_mult={head.*: 2.0}"], "to add to it write +optim.lr_mult={KEY: VALUE}"),
        (["+experiment=demo", "train.epochs"], "train.epochs"),
        (["+experiment=demo", "name=a=b"], "wants quotes of its own"),
        (
            ["+experiment=k400", "device=cpu", "data.root=/nowhere", "init=runs/a b,seed=1/it's.safetensors"],
            "checkpoint runs/a b,seed=1/it's.safetensors doesn't",
        ),
    ],
)
def test_bad_command_lines_get_one_line_and_exit_code_2(
    shell: Callable[..., tuple[str, str]], arguments: list[str], expected: str
) -> None:
    out, err = shell(*arguments)
    assert out == ""
    assert len(err.strip().splitlines()) == 1, err
    assert expected in err


def test_debug_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["aim/train.py", "+experiment=demo", "+train.batchsize=3", "debug=true"])
    with pytest.raises(UserError, match=r"no setting 'train\.batchsize'"):
        config.entrypoint(train.main, "config")


def test_the_shell_sees_the_exit_code_and_composing_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "aim.train", "+experiment=demo"]
    shown, failed = (
        subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        for more in (["--cfg", "job"], ["train.epochs=0"])
    )
    out, err = shown.communicate(timeout=120)
    assert shown.returncode == 0, err
    assert OmegaConf.create(out).name == "demo"
    out, err = failed.communicate(timeout=120)
    assert (failed.returncode, out, err) == (2, "", "aim: error: train.epochs=0 must be 1 or more\n")
    assert list(tmp_path.iterdir()) == []


def test_the_primary_config_does_not_list_experiment() -> None:
    primary = OmegaConf.load(config.CONFIGS / "config.yaml")
    assert not any("experiment" in entry for entry in primary.defaults if not isinstance(entry, str))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_what_it_is(name: str) -> None:
    lines = (config.CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    assert any(f"python -m aim.train +experiment={name}" in line for line in lines)
    assert max(map(len, lines)) <= 140


def test_a_group_on_the_shell_wins_over_the_experiment() -> None:
    cfg = config.compose(["+experiment=k400_l14", "backbone=clip_vit_b16"])
    assert "base" in cfg.backbone.name


def test_an_experiment_inherits_from_another() -> None:
    cfg = config.compose(["+experiment=k400_l14_32f"])
    assert "large" in cfg.backbone.name
    assert (cfg.clip.num_frames, cfg.clip.stride_frames) == (32, 4)
    assert dict(cfg.optim.lr_mult) == {"backbone.*": 0.1}
    assert cfg.name == "k400_l14_32f"


def test_every_problem_is_named_at_once() -> None:
    cfg = config.resolve(config.compose(["+experiment=k400"]))
    cfg["clip"]["num_frame"] = 8
    cfg["train"]["epochs"] = 1.5
    del cfg["optim"]["lr"]
    with pytest.raises(UserError) as caught:
        config.build(cfg, Run)
    for part in ("'clip.num_frame'; nearest: num_frames", "train.epochs=1.5", "optim.lr is missing"):
        assert part in str(caught.value)
