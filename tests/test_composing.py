"""The tests' way to compose gives the product's results."""

import pytest
from omegaconf import DictConfig, OmegaConf

from aim.ground import config
from aim.ground.errors import UserError
from tests.composing import remembering
from tests.toy import OWN, TOY


@pytest.mark.parametrize(
    ("config_name", "first", "second"),
    [
        ("config", [*TOY, "run_dir=/a/b", "seed=3"], [*TOY, "run_dir='/c-d/e.f,g=1/h i'", "seed=-4", "optim.lr=0.25"]),
        ("config", [*OWN, "data.root=/a"], [*OWN, "data.root=/b", "train.epochs=3", "adapter=none"]),
        ("config", ["+experiment=demo", "seed=1", "seed=2"], ["+experiment=demo", "seed=2", "seed=1"]),
        ("config", ["seed=1", "clip={size: 5}"], ["clip={size: 5}", "clip.size=7", "clip={size: 9}"]),
        ("predict", ["checkpoint=/a", "input=/b"], ["checkpoint=/c", "input=[/d,/e]", "top=3"]),
    ],
)
def test_what_is_remembered_is_what_would_be_composed(config_name: str, first: list[str], second: list[str]) -> None:
    asked = list[str]()
    original = config.compose.__wrapped__  # type: ignore[attr-defined]

    def compose(overrides: list[str], name: str = "config") -> DictConfig:
        asked.extend(overrides)
        return original(overrides, name)  # type: ignore[no-any-return]

    again = remembering(compose)
    expected = {tuple(overrides): original(overrides, config_name) for overrides in (first, second)}
    for overrides in (first, second, first):
        found = again(overrides, config_name)
        assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(expected[tuple(overrides)])
        assert OmegaConf.is_struct(found) == OmegaConf.is_struct(expected[tuple(overrides)])
        OmegaConf.set_struct(found, False)
        found.clear()  # a copy
    assert "run_dir=/a/b" not in asked


@pytest.mark.parametrize("wrong", [["seeed=3"], ["clip=3", "clip.size=4"], ["adapter=/a"]])
def test_what_is_wrong_is_told_as_before(wrong: list[str]) -> None:
    original = config.compose.__wrapped__  # type: ignore[attr-defined]
    said = []
    for either in (original, remembering(original)):
        with pytest.raises(UserError) as caught:
            either(wrong)
        said.append(str(caught.value))
    assert said[0] == said[1]
