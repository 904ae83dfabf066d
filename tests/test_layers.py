"""Imports point down: verbs > studying > measuring > engine, pages > models > adapters, weights, data > ground."""

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# The rooms by height. What stands on one floor doesn't know its neighbours; verbs don't know each other either.
FLOORS: list[set[str]] = [
    {"ground"},
    {"shell"},
    {"adapters", "weights", "data"},
    {"models"},
    {"engine", "pages"},
    {"explaining", "measuring", "predicting", "reporting"},
    {"studying"},
    {"train", "eval", "predict", "explain", "export", "features", "prepare", "benchmark", "report", "study"},
    {"__main__"},
]
GROUND, MODELS = 0, 3
OWNERS = {  # the only users
    "torch.distributed": {
        "aim.engine.machine.distributed",
        "aim.engine.machine.launcher",
        "aim.engine.machine.peers",
        "aim.engine.machine.sharding",
    },
    "wandb": {"aim.engine.telling.tracking"},
    "trackio": {"aim.engine.telling.tracking"},
    "torch.utils.tensorboard": {"aim.engine.telling.tracking"},
}
FILES = sorted(path for path in (ROOT / "aim").rglob("*.py") if path.name != "__init__.py")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


NAMES = [module_name(path) for path in FILES]


def imports(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports, at its top or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def room(module: str) -> str:
    return module.split(".")[1]


def floor(module: str) -> int:
    """The height of a module's room. Fails for one that has none, such as a verb that isn't listed."""
    floors = [height for height, rooms in enumerate(FLOORS) if room(module) in rooms]
    assert floors, f"{module} is in no room of tests/test_layers.py"
    return floors[0]


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_point_down(path: Path) -> None:
    me = module_name(path)
    for other in imports(path):
        if not other.startswith("aim."):
            continue
        assert floor(other) <= floor(me), f"{me} imports {other}, which is above it"
        if floor(other) == floor(me) > GROUND:
            assert room(other) == room(me), f"{me} imports {other}, its neighbour"


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_libraries_stay_where_they_belong(path: Path) -> None:
    me = module_name(path)
    names = imports(path)
    if GROUND < floor(me) <= MODELS:
        assert not {name.split(".")[0] for name in names} & {"hydra", "omegaconf"}
    for library, owners in OWNERS.items():
        assert me in owners or not any(f"{name}.".startswith(f"{library}.") for name in names)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_every_package_is_in_the_wheel(path: Path) -> None:
    package = module_name(path.parent)
    assert f'"{package}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
