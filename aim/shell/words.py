"""The words of a command line: errors in them and the probable intention, one line each."""

import difflib
import re
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from aim.ground import choices
from aim.ground.errors import UserError
from aim.ground.marks import Mark, marked
from aim.ground.paths import exists, path_of

ADDED = ("experiment", "study")  # groups whose files change other settings
ASKED = {"checkpoint", "input"}  # settings of a verb that asks a model about videos: a bare word names one of these
OPTIONS = ("--help", "--version", "--cfg", "--multirun", "-m", "--resolve", "--info", "--config-dir", "--hydra-help")


def checked(arguments: Sequence[str], config_name: str) -> list[str]:
    """The options, then the overrides as Hydra's grammar wants them, bare words as `input` where a verb asks a model.

    Raises UserError for other words, where Hydra's message would be about its grammar.
    """
    ArgumentParser._check_help = lambda *_: None  # type: ignore[attr-defined]  # from here on; hydra issue 3121
    parser = get_args_parser()

    def fail(message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the options")

    parser.error = fail  # type: ignore[method-assign]
    parser.allow_abbrev = False  # --experiment would be --experimental-rerun
    given, unknown = parser.parse_known_intermixed_args(list(arguments))
    if unknown:
        raise UserError(f"no option {unknown[0]!r}{_instead(unknown[0], config_name)}")
    asks = choices.settings(config_name).keys() >= ASKED
    words = as_setting(given.overrides, "input") if asks else given.overrides
    for word in words:
        key, equals, value = word.partition("=")
        if key in ADDED and equals:
            raise UserError(f"{word} wants a plus, as it changes other settings: write +{key}={value or 'NAME'}")
        if not equals and not word.startswith("~"):
            raise UserError(f"{word!r} is no setting, which is KEY=VALUE{_instead(word, config_name)}")
    options = (word for word in arguments if word not in given.overrides)
    return [*options, *(quoted(word, sweeps=given.multirun) for word in words)]


def quoted(argument: str, *, sweeps: bool = False) -> str:
    """A path or a text as Hydra's grammar wants it, which gives `=`, commas and spaces in it a meaning of their own.

    So runs/demo,seed=1/best.safetensors is one without quotes. In a command that `sweeps` a comma stands between paths,
    each of them for a job, unless there is a file or folder of the whole name.
    """
    key, _, value = argument.partition("=")
    if key.lstrip("+") in marked(Mark.TEXT) and value[:1] not in ("'", '"', "$", "") and value != "null":
        return f"{key}={in_quotes(value)}"
    if key.lstrip("+") not in marked(Mark.PATH) or value[:1] in ("'", '"', "$", "") or value == "null":
        return argument
    if key == "input" and re.fullmatch(r"\[.*\]", value, re.DOTALL) and not exists(Path(value)):  # a list of Hydra's
        return argument
    if sweeps and not exists(path_of(value)):
        return f"{key}={','.join(map(in_quotes, value.split(',')))}"
    return f"{key}={in_quotes(value)}"


def in_quotes(text: str) -> str:
    """Any text, quoted for Hydra's grammar."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: 2 * match[1] + match[2].replace("'", r"\'"), text)
    return f"'{escaped}'"


def as_setting(arguments: Sequence[str], key: str) -> list[str]:
    """The overrides with the bare word, such as a file's name, but no model, as the setting `key`; several as a list.

    Raises UserError if that is given, too.
    """
    words, others = list[str](), list[str]()
    for argument in arguments:
        is_word = (
            argument == "-"
            or argument.startswith("~/")
            or not re.match(r"[-+~]|[\w.@/]+=", argument)
            or exists(Path(argument))
        )
        (words if is_word and not _is_model(argument) else others).append(argument)
    if words and any(argument.startswith(f"{key}=") for argument in others):
        raise UserError(f"{words[0]} stands beside {key}=; name all in one of the two ways")
    value = in_quotes(words[0]) if len(words) == 1 else f"[{','.join(map(in_quotes, words))}]"
    return [*others, f"{key}={value}"] if words else others


def _is_model(word: str) -> bool:
    """Whether a word names a checkpoint or the directory of a run."""
    path = Path(word)
    return exists(path) and (path.suffix in (".safetensors", ".onnx", ".pt2") or (path / "config.yaml").exists())


def _instead(word: str, config_name: str) -> str:
    """The right form of a wrong word: "; write FORM", or "; nearest: FORMS", or nothing."""
    known = choices.settings(config_name)
    bare = word.lstrip("-+")
    forms = {key: f"{key}=VALUE" for key in known} | {option: option for option in OPTIONS}
    for group in choices.config_groups(config_name):
        forms |= {name: f"{group}={name}" for name in choices.choices(group)}
    if added := choices.added(config_name):
        forms |= {name: f"+{added}={name}" for name in choices.choices(added)}
    key = bare.partition("=")[0]
    if "=" in bare and (key in known or key in choices.groups()):
        return f"; a setting has no dashes: write {'+' if key in ADDED else ''}{bare}"
    if exists(Path(word)):
        for key, form in (
            ("checkpoint", "") if _is_model(word) else ("input", ""),
            ("init", "") if _is_model(word) else ("data.root", "+experiment=finetune "),
        ):
            if key in known:
                return f"; write {form}{key}={word}"
    if bare in forms:
        return f"; write {forms[bare]}"
    near = difflib.get_close_matches(word if word.startswith("-") else bare, forms, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(forms[name] for name in near)}" if near else ""
