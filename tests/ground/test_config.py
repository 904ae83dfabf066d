import pytest
from omegaconf import OmegaConf

from aim.engine.run.settings import Run
from aim.ground import choices, config
from tests.messages import refused

EXPERIMENTS = sorted(path.stem for path in (choices.CONFIGS / "experiment").glob("*.yaml"))


def test_the_primary_config_does_not_list_experiment() -> None:
    primary = OmegaConf.load(choices.CONFIGS / "config.yaml")
    assert not any("experiment" in entry for entry in primary.defaults if not isinstance(entry, str))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_says_what_it_is(name: str) -> None:
    lines = (choices.CONFIGS / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
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
    with refused("'clip.num_frame'", "num_frames", "train.epochs=1.5", "optim.lr"):
        config.build(cfg, Run)
