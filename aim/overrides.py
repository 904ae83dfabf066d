"""The words of a command line: which are wrong, and what was probably meant, one line each."""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser

from aim import catalogue
from aim.config import CONFIGS
from aim.errors import UserError, nearest
from aim.marks import Mark, marked

ADDED = ("experiment", "study")  # groups whose files change other settings
OPTIONS = ("--help", "--version", "--cfg", "--multirun", "-m", "--resolve", "--info", "--config-dir", "--hydra-help")


def checked(arguments: Sequence[str], config_name: str, positional: str | None = None) -> list[str]:
    """The options, then the overrides as Hydra's grammar wants them, bare words as those of `positional`.

    Raises UserError for what is neither, where Hydra would speak of its grammar.
    """
    parser = get_args_parser()

    def fail(message: str) -> NoReturn:
        raise UserError(f"{message}; --help says what there is")

    parser.error = fail  # type: ignore[method-assign]
    parser.allow_abbrev = False  # --experiment would be --experimental-rerun
    given, unknown = parser.parse_known_intermixed_args(list(arguments))
    if unknown:
        raise UserError(f"no option {unknown[0]!r}{_instead(unknown[0], config_name)}")
    words = given.overrides if positional is None else as_setting(given.overrides, positional)
    for word in words:
        key, equals, value = word.partition("=")
        if key in ADDED and equals:
            raise UserError(f"{word} wants a plus, as it changes other settings: write +{key}={value or 'NAME'}")
        if not equals and not word.startswith("~"):
            raise UserError(f"{word!r} is no setting, which is KEY=VALUE{_instead(word, config_name)}")
    return [*(word for word in arguments if word not in given.overrides), *map(quoted, words)]


def quoted(argument: str) -> str:
    """A path setting as Hydra's grammar wants it, which gives `=`, commas and spaces in it a meaning of their own.

    So runs/demo,seed=1/best.safetensors is one without quotes.
    """
    key, _, value = argument.partition("=")
    if key.lstrip("+") not in marked(Mark.PATH) or value[:1] in ("'", '"', "$", "") or value == "null":
        return argument
    if key == "input" and re.fullmatch(r"\[.*\]", value, re.DOTALL) and not Path(value).exists():  # a list of Hydra's
        return argument
    return f"{key}={in_quotes(value)}"


def in_quotes(text: str) -> str:
    """A text as Hydra's grammar takes it, whatever is in it."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda match: 2 * match[1] + match[2].replace("'", r"\'"), text)
    return f"'{escaped}'"


def as_setting(arguments: Sequence[str], key: str) -> list[str]:
    """The overrides with all bare words, such as names of files, but no models, as a list for the setting `key`.

    Raises UserError where that is given, too.
    """
    words, others = list[str](), list[str]()
    for argument in arguments:
        is_word = argument == "-" or not re.match(r"[-+~]|[\w.@/]+=", argument) or Path(argument).exists()
        (words if is_word and not _is_model(argument) else others).append(argument)
    if words and any(argument.startswith(f"{key}=") for argument in others):
        raise UserError(f"{words[0]} stands beside {key}=; name all in one of the two ways")
    return [*others, f"{key}=[{','.join(map(in_quotes, words))}]"] if words else others


def _is_model(word: str) -> bool:
    """Whether a word names a checkpoint or the directory of a run."""
    path = Path(word)
    return path.exists() and (path.suffix in (".safetensors", ".onnx", ".pt2") or (path / "config.yaml").exists())


def _instead(word: str, config_name: str) -> str:
    """The right form of what was written: "; write FORM", or "; nearest: FORMS", or nothing."""
    known = catalogue.settings(config_name)
    bare = word.lstrip("-+")
    forms = {key: f"{key}=VALUE" for key in known} | {option: option for option in OPTIONS}
    for group in catalogue.config_groups(config_name):
        forms |= {name: f"{group}={name}" for name in catalogue.choices(group)}
    if added := catalogue.added(config_name):
        forms |= {name: f"+{added}={name}" for name in catalogue.choices(added)}
    key = bare.partition("=")[0]
    if "=" in bare and (key in known or key in catalogue.groups()):
        return f"; a setting has no dashes: write {'+' if key in ADDED else ''}{bare}"
    if Path(word).exists():
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


def explain(error: BaseException) -> str:
    """One line for an error of Hydra or OmegaConf: the full key, and the nearest right one."""
    text = " ".join(f"{error} {error.__cause__ or ''}".split())
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1].split("@")[0]
        if "No match in the defaults list" in text:
            return f"{key!r} is not in the defaults; to add it write +{key}=NAME"
        known = _all_settings()
        if isinstance(known.get(key), Mapping):
            return f"{key} is a mapping; to add to it write +{key}={{KEY: VALUE}}"
        if key in known and "." not in key:
            verbs = [f"aim.{verb}" for verb in catalogue.verbs() if key in catalogue.settings_of(verb)]
            start = "; init=FILE trains from its adapters" if key == "checkpoint" else ""
            return f"{key} is a setting of {' and '.join(verbs)}{start}"
        if key in known:  # of data=demo, say, where the data are others
            return f"{key} is no setting of what is chosen here; for a study, whose cells have it, write ++{key}=VALUE"
        return f"no setting {key!r}{nearest(key, known)}"
    if match := re.search(r"Could not find '((?:hydra/)?[^'/]+)/([^']*)'", text):
        return _no_choice(match[1], match[2], text)
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match[1]} has a comma; add -m to run once for each value, or quote a text: \"KEY='A,B'\""
    if match := re.search(r"Multiple values for ([^.]+)\.", text):
        return f"{match[1]} is given twice; write {match[1]}=NAME, without a plus, or name it once"
    if match := re.search(r"Missing mandatory value: .*full_key: (\S+)", text):
        return f"{match[1]} must be given: add {match[1]}=VALUE"
    if match := re.search(r"Environment variable '([^']+)' not found", text):
        return f"the environment variable {match[1]} is not set"
    if any(sign in text for sign in ("mismatched input", "token recognition", "missing EQUAL")):
        reason = re.sub(r"\s*See \S+ for details", "", text)
        hint = "an override is KEY=VALUE, and a VALUE with , = or spaces wants quotes of its own"
        return f"{reason}; {hint}: \"KEY='VALUE'\""
    return text.split(" full_key:")[0]


def _no_choice(group: str, name: str, text: str) -> str:
    """What a group offers instead of `name`; of Hydra's own groups its message tells."""
    if group.startswith("hydra/"):
        installed = re.search(r"Available options in '[^']*':(.*?)(?: Config search path|$)", text)
        there = ", ".join(installed[1].split()) if installed else "nothing"
        return f"no {group} {name!r}; installed: {there}; the others are plugins of Hydra, packages of their own"
    names = catalogue.choices(group)
    return f"no {group} {name!r}" + (nearest(name, names) or f"; there are: {', '.join(names)}")


def _all_settings() -> dict[str, Any]:
    """The dotted settings that some config file has, each with a value, and the groups."""
    found: dict[str, Any] = dict.fromkeys(catalogue.groups())
    for path in CONFIGS.glob("*.yaml"):
        found |= catalogue.settings(path.stem)
    return dict(sorted(found.items()))
