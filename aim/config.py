"""Where the configs live, how they are composed, and the only place that builds objects from YAML.

Every leaf of a config is a keyword argument of a Python signature: a node with `_target_` of that class, the top level
of the verb's own dataclass. So a misspelt key or a value of the wrong type fails before anything is built.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from aim.errors import UserError, nearest

T = TypeVar("T")

# A built wheel carries the configs inside the package, a checkout beside it.
CONFIGS = next(
    path for path in (Path(__file__).parent / "configs", Path(__file__).parents[1] / "configs") if path.is_dir()
)


AUTO = "auto"


@dataclass(frozen=True)
class Auto:
    """Marks a number, `Annotated[int, Auto(20)]`, for which YAML may say `auto`; `build` takes `value` for it.

    Who knows better puts another one into the settings before they are built.
    """

    value: float


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The (dotted key, value) pairs of a nested mapping, lists being values."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{name}.")
        else:
            yield name, value


def build(cfg: DictConfig | Mapping[str, Any], target: Callable[..., T], *, received: bool = False) -> T:
    """Check all of `cfg` against the signatures, then build `target` and every `_target_` inside it.

    Raises UserError with every misspelt key, missing value and value of a wrong type. A config that was `received` with
    a file is checked by `check_received`, too.
    """
    node = resolve(cfg) if isinstance(cfg, DictConfig) else cfg
    if received:
        check_received(node)
    problems = list(_problems(node, target, ""))
    if problems:
        raise UserError("; ".join(problems))
    return _build(node, target)


def check_received(node: Mapping[str, Any]) -> None:
    """Raise UserError where a config that came with a file could reach further than our own settings do.

    It may name only our own groups, for anything else could run whatever its author likes; and a group may refuse some
    of its values, in a `check_received` of its own.
    """
    ours = r"aim\.(data|models|adapters)\.(\w+\.)+[A-Z]\w*|aim\.engine\.(settings|optim|tasks)\.[A-Z]\w*"
    for group in _groups(node):
        path = str(group["_target_"])
        if not (re.fullmatch(ours, path) and is_dataclass(kind := locate(path))):
            raise UserError(f"_target_: {path} is none of aim-video's own settings, and isn't run for a received file")
        if refuse := getattr(kind, "check_received", None):
            refuse(group)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain, interpolated containers."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _groups(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every node with a `_target_` inside."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from _groups(value)


def _build(node: Mapping[str, Any], target: Callable[..., T]) -> T:
    hints = _hints(target)
    return target(**{key: _value(value, hints.get(key)) for key, value in node.items() if key != "_target_"})


def _value(value: Any, hint: Any) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        return _build(value, locate(value["_target_"]))
    if value == AUTO and get_origin(hint) is Annotated:
        number, auto = get_args(hint)
        return number(auto.value)
    return value


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of the arguments, with what is noted beside them."""
    return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)


def locate(path: str) -> Callable[..., Any]:
    """The class or function of a dotted path. Raises UserError where there is none."""
    module, _, name = path.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise UserError(f"_target_: {path} can't be imported: {error}") from error
    return found


def _problems(node: Mapping[str, Any], target: Callable[..., Any], prefix: str) -> Iterator[str]:
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    for key in node.keys() - parameters.keys() - {"_target_"}:
        yield f"no setting {prefix + key!r}{nearest(key, parameters)}"
    for key, parameter in parameters.items():
        if key not in node and parameter.default is inspect.Parameter.empty:
            yield f"{prefix}{key} is missing"
    for key in node.keys() & parameters.keys():
        value = node[key]
        if isinstance(value, Mapping) and "_target_" in value:
            yield from _problems(value, locate(value["_target_"]), f"{prefix}{key}.")
        elif not _fits(value, hints.get(key, Any)):
            yield f"{prefix}{key}={value!r} is not {_words(hints[key])}"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain YAML value can be an argument of this type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is Annotated:
        return value == AUTO or _fits(value, args[0])
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (int, str, bool, NoneType):
        return type(value) is hint
    if hint is Path:
        return isinstance(value, str)
    if origin is not None and issubclass(origin, tuple | Sequence):
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(_fits(item, args[1]) for item in value.values())
    # What is left are the parts that a node with `_target_` builds, and Any.
    return hint is Any or not isinstance(value, int | float | str | list | NoneType)


def _words(hint: Any) -> str:
    """A type as a user says it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin is Annotated:
        return f"{_words(args[0])} or {AUTO}"
    if origin is not None and issubclass(origin, tuple | Sequence):
        return f"a list of {_words(args[0])}"
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        NoneType: "null",
        Path: "a path",
    }
    return names.get(hint, "a group of settings")


def load(path: Path) -> dict[str, Any]:
    """The settings that a run wrote to its config.yaml. Raises UserError where it's missing or damaged."""
    try:
        cfg = OmegaConf.create(path.read_text(encoding="utf-8"))
        if isinstance(cfg, DictConfig):
            return resolve(cfg)
        reason = "not a mapping"
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        reason = str(error).splitlines()[0]
    raise UserError(f"{path} is not what a run wrote ({reason}); delete its folder, or choose another run_dir")


def compose(overrides: Sequence[str], config_name: str = "config") -> DictConfig:
    """The config that the command line `overrides` would give, for notebooks and tests.

    Raises UserError for what a verb would refuse.
    """
    here = GlobalHydra.instance().is_initialized()  # inside a verb: it knows the folder
    try:
        with nullcontext() if here else hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return hydra.compose(config_name, overrides=list(overrides))
    except HydraException as error:
        from aim.overrides import explain  # which reads the configs by this module

        raise UserError(explain(error)) from None  # a notebook would show the chain, pages of Hydra's own


def task_overrides() -> list[str]:
    """What the user changed on the command line; nothing when composed in a notebook."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
