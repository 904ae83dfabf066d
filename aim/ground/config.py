"""Composition and checks of configs, and the only place that builds objects from YAML.

Every leaf of a config is a keyword argument of a Python signature: the top level of the verb's own dataclass, a group
of the class that its field names or, where that leaves a choice, of its `kind` (aim.ground.kinds). So a misspelt key or
a value of the wrong type fails before anything is built.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from aim.ground.choices import CONFIGS
from aim.ground.errors import UserError, nearest
from aim.ground.foreign import reading
from aim.ground.kinds import KINDS, class_of, modern
from aim.ground.marks import AUTO, Auto, Before, groups_of, hints, notes
from aim.ground.mistakes import explain

T = TypeVar("T")

NAMES = ("kind", "_target_")  # keys of a group that say its class


def build(cfg: DictConfig | Mapping[str, Any], target: Callable[..., T], *, received: bool = False) -> T:
    """Check all of `cfg` against the signatures, then build `target` and every group inside it.

    Raises UserError with every misspelt key, missing value and value of a wrong type. A config that was `received` with
    a file is checked by `check_received`, too, and may be older than some settings.
    """
    node = resolve(cfg) if isinstance(cfg, DictConfig) else cfg
    if received:
        check_received(node, target)
        node = completed(node, target)
    problems = list(_problems(node, target, ""))
    if problems:
        raise UserError("; ".join(problems))
    return _build(node, target, "")


def check_received(node: Mapping[str, Any], target: Callable[..., Any], prefix: str = "") -> None:
    """Raise UserError if a config that came with a file could reach further than our own settings do.

    It may name only kinds of our table, for anything else could run code of its author; and a group may refuse
    some of its values, in a `check_received` of its own.
    """
    if path := node.get("_target_"):
        raise UserError(f"_target_: {path} is none of aim-video's own settings, and isn't run for a received file")
    if refuse := getattr(target, "check_received", None):
        refuse(node)
    types = hints(target)
    for key, value in node.items():
        if isinstance(value, Mapping):
            check_received(value, _group(value, types.get(key), f"{prefix}{key}") or dict, f"{prefix}{key}.")


def completed(node: Mapping[str, Any], target: Callable[..., Any], prefix: str = "") -> dict[str, Any]:
    """The settings of a run that may be older than some of them, with those as the older version behaved.

    That is the value of a field's `Before`, or its default.
    """
    found = dict(node)
    for key, hint in hints(target).items():
        if key not in found:
            found.update((key, value) for value in _earlier(target, key, hint))
        elif isinstance(value := found[key], Mapping) and (group := _group(value, hint, f"{prefix}{key}")):
            found[key] = completed(value, group, f"{prefix}{key}.")
    return found


def _earlier(target: Callable[..., Any], key: str, hint: Any) -> Iterator[Any]:
    """The value, as in YAML, that a setting had in runs that don't know it; none where that isn't known."""
    if before := [note.value for note in notes(hint) if isinstance(note, Before)]:
        yield before[0]
        return
    for own in fields(target) if is_dataclass(target) else ():
        if own.name == key and _has_default(own):
            value = own.default if own.default_factory is MISSING else own.default_factory()
            plain = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
            yield list(plain) if isinstance(plain, tuple) else plain


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain, interpolated containers."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return modern({str(key): value for key, value in plain.items()})


def _group(value: Mapping[str, Any], hint: Any, key: str) -> Callable[..., Any] | None:
    """The class that a group of settings is built by; None for a plain mapping.

    Of several the first whose settings without a default are all there, else the last.
    """
    groups = groups_of(hint)
    fitting = (group for group in groups if all(own.name in value for own in fields(group) if not _has_default(own)))
    return class_of(key, value) or next(fitting, groups[-1] if groups else None)


def _has_default(own: Field[Any]) -> bool:
    return own.default is not MISSING or own.default_factory is not MISSING


def _build(node: Mapping[str, Any], target: Callable[..., T], prefix: str) -> T:
    types = hints(target)
    return target(
        **{key: _value(value, types.get(key), f"{prefix}{key}") for key, value in node.items() if key not in NAMES}
    )


def _value(value: Any, hint: Any, key: str) -> Any:
    if isinstance(value, Mapping) and (group := _group(value, hint, key)):
        return _build(value, group, f"{key}.")
    if value == AUTO:
        for auto in (note for note in notes(hint) if isinstance(note, Auto)):
            return auto.value
    return value


def _problems(node: Mapping[str, Any], target: Callable[..., Any], prefix: str) -> Iterator[str]:
    parameters = inspect.signature(target).parameters
    types = hints(target)
    for key in node.keys() - parameters.keys() - set(NAMES):
        yield f"no setting {prefix + key!r}{nearest(key, parameters)}"
    for key, parameter in parameters.items():
        if key not in node and parameter.default is inspect.Parameter.empty:
            yield f"{prefix}{key} is missing"
    for key in node.keys() & parameters.keys():
        value, name = node[key], f"{prefix}{key}"
        if isinstance(value, Mapping) and (group := _group(value, types.get(key), name)):
            yield from _problems(value, group, f"{name}.")
        elif isinstance(value, Mapping) and key in KINDS:
            yield f"{name}.kind is missing; there are: {', '.join(KINDS[key])}"
        elif not _fits(value, types.get(key, Any)):
            yield f"{name}={value!r} is not {_words(types[key])}"


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain YAML value can be an argument of this type."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is Annotated:
        return (value == AUTO and _has_auto(hint)) or _fits(value, args[0])
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
    # The rest are the parts that a group builds, and Any.
    return hint is Any or not isinstance(value, int | float | str | list | NoneType)


def _has_auto(hint: Any) -> bool:
    """Whether YAML may say `auto` for a setting."""
    return any(isinstance(note, Auto) for note in notes(hint))


def _words(hint: Any) -> str:
    """A type as a user says it."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_words(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(str(arg) for arg in args)
    if origin is Annotated:
        return _words(args[0]) + (f" or {AUTO}" if _has_auto(hint) else "")
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
    """The settings that a run wrote to its config.yaml. Raises UserError if it's missing or damaged."""
    with reading(path, "what a run wrote", "delete its folder, or choose another run_dir"):
        cfg = OmegaConf.create(path.read_text(encoding="utf-8"))
        if not isinstance(cfg, DictConfig):
            raise TypeError("not a mapping")
        return resolve(cfg)


def compose(overrides: Sequence[str], config_name: str = "config") -> DictConfig:
    """The config that the command line `overrides` would give, for notebooks and tests.

    Raises UserError for settings that a verb would refuse.
    """
    here = GlobalHydra.instance().is_initialized()  # inside a verb: it knows the folder
    try:
        with nullcontext() if here else hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return hydra.compose(config_name, overrides=list(overrides))
    except HydraException as error:
        raise UserError(explain(error)) from None  # a notebook would show the chain, pages of Hydra's own


def task_overrides() -> list[str]:
    """The user's overrides on the command line; none when composed in a notebook."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
