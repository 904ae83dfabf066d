"""The rooms of aim/: every import points down, no circle, and nobody imports a program."""

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT

FLATS = {
    "train",
    "eval",
    "predict",
    "explain",
    "export",
    "features",
    "prepare",
    "benchmark",
    "report",
    "study",
    "card",
    "share",
    "serve",
}
# The rooms by height. Rooms on one floor don't import each other.
FLOORS: list[set[str]] = [
    {"ground"},
    {"adapters", "data", "shell", "weights"},
    {"models"},
    {"engine", "pages"},
    FLATS,
    {"__main__"},
]
ENGINE = ["machine", "scores", "telling", "trained", "run", "loop"]  # each imports only those before it
BELOW_ENGINE = {"adapters", "data", "weights", "models"}
OWNERS = {  # the only users
    "torch.distributed": {f"aim.engine.machine.{name}" for name in ("distributed", "launcher", "peers", "sharding")},
    "wandb": {"aim.engine.telling.tracking"},
    "trackio": {"aim.engine.telling.tracking"},
    "torch.utils.tensorboard": {"aim.engine.telling.tracking"},
}
FILES = sorted(path for path in (ROOT / "aim").rglob("*.py") if path.name != "__init__.py")


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


NAMES = [module_name(path) for path in FILES]


@cache
def imports(path: Path) -> frozenset[str]:
    """The dotted names of all modules that a file imports, at its top or later."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return frozenset(found)


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
        assert floor(other) < floor(me) or room(other) == room(me), f"{me} imports {other}, which is not below it"
        if room(me) == room(other) == "engine":
            mine, theirs = (ENGINE.index(name.split(".")[2]) for name in (me, other))
            assert theirs <= mine, f"{me} imports {other}, a room after its own"


def test_nobody_imports_a_flat() -> None:
    """But itself; scripts and tests may."""
    for path in FILES:
        for other in imports(path):
            if other.startswith("aim.") and room(other) in FLATS:
                assert room(module_name(path)) == room(other), f"{module_name(path)} imports {other}"


def test_there_is_no_circle() -> None:
    """Of modules, late imports counted."""
    known = {
        name: {other for other in imports(path) if other in NAMES} for name, path in zip(NAMES, FILES, strict=True)
    }
    while leaves := [name for name, others in known.items() if not others]:
        for name in leaves:
            del known[name]
        known = {name: others - set(leaves) for name, others in known.items()}
    assert not known, f"in a circle, or above one: {sorted(known)}"


def test_the_house_is_small() -> None:
    rooms = {path.relative_to(ROOT / "aim").parts[0].removesuffix(".py") for path in FILES}
    assert len(rooms) <= 22
    assert len(FLOORS) <= 6
    loose = [path for path in FILES if path.parent == ROOT / "aim" / "engine"]
    assert not loose


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_libraries_stay_where_they_belong(path: Path) -> None:
    me = module_name(path)
    names = imports(path)
    if room(me) in BELOW_ENGINE:
        assert not {name.split(".")[0] for name in names} & {"hydra", "omegaconf"}
    for library, owners in OWNERS.items():
        assert me in owners or not any(f"{name}.".startswith(f"{library}.") for name in names)


def test_rooms_within_one_room_share_no_name_of_a_file() -> None:
    for folder in {path.parent.parent for path in FILES} - {ROOT / "aim", ROOT}:
        inside = [path.stem for path in FILES if path.parent.parent == folder]
        assert len(set(inside)) == len(inside), folder
