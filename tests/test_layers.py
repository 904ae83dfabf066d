"""Imports point down: verbs > services > models and data > libraries."""

import ast
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

VERBS = {"train", "eval", "predict", "prepare", "benchmark", "report"}
FILES = sorted((ROOT / "aim").rglob("*.py"))


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


def layer(module: str) -> int:
    """0 for errors, 1 for models and data, 2 for services, 3 for verbs."""
    part = [*module.split("."), ""][1]
    return 3 if part in VERBS else 1 if part in ("models", "data") else 0 if part == "errors" else 2


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def own_modules(path: Path) -> set[str]:
    return {name for name in imports(path) if name.startswith("aim.")}


@pytest.mark.parametrize("path", FILES, ids=[module_name(path) for path in FILES])
def test_imports_point_down(path: Path) -> None:
    me = module_name(path)
    for other in own_modules(path):
        assert layer(other) <= layer(me), f"{me} imports {other}, which is above it"
        if layer(me) == 1 and layer(other) == 1:
            assert other.split(".")[1] == me.split(".")[1], (
                f"{me} imports {other}: models and data don't know each other"
            )


@pytest.mark.parametrize("path", FILES, ids=[module_name(path) for path in FILES])
def test_libraries_stay_where_they_belong(path: Path) -> None:
    me = module_name(path)
    top = {name.split(".")[0] for name in imports(path)}
    if layer(me) <= 1:
        assert not top & {"hydra", "omegaconf", "wandb"}
        assert not any(name.startswith("torch.distributed") for name in imports(path))
    assert me == "aim.tracking" or "wandb" not in top
    assert me == "aim.distributed" or not any(name.startswith("torch.distributed") for name in imports(path))


@pytest.mark.parametrize("path", FILES, ids=[module_name(path) for path in FILES])
def test_no_module_takes_the_name_of_a_library_that_it_imports(path: Path) -> None:
    top = {name.split(".")[0] for name in imports(path)}
    assert path.stem not in top - set(sys.stdlib_module_names)
