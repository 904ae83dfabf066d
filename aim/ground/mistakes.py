"""The meaning of errors of Hydra and OmegaConf, one line each, with the nearest right word."""

import re
from collections.abc import Mapping
from typing import Any

from aim.ground.choices import choices, groups, primary, settings
from aim.ground.errors import nearest


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
            verbs = ["aim.train" if name == "config" else f"aim.{name}" for name in primary() if key in settings(name)]
            start = "; init=FILE trains from its adapters" if key == "checkpoint" else ""
            return f"{key} is a setting of {' and '.join(verbs)}{start}"
        if (short := key.replace("data.lists.", "data.")) != key and short in known:
            return f"{key} is a setting of published data; to name a list of your own write {short}=FILE"
        if key in known:  # of data=demo, say, where the data are others
            return f"{key} is no setting of the chosen groups; for a study, whose cells have it, write ++{key}=VALUE"
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
    if any(
        sign in text for sign in ("mismatched input", "token recognition", "missing EQUAL", "no viable alternative")
    ):
        reason = re.sub(r"\s*See \S+ for details", "", text)
        hint = "an override is KEY=VALUE, and a VALUE with , = or spaces needs its own quotes"
        return f"{reason}; {hint}: \"KEY='VALUE'\""
    return text.split(" full_key:")[0]


def _no_choice(group: str, name: str, text: str) -> str:
    """The choices of a group instead of `name`; for Hydra's own groups from its message."""
    if group.startswith("hydra/"):
        installed = re.search(r"Available options in '[^']*':(.*?)(?: Config search path|$)", text)
        there = ", ".join(installed[1].split()) if installed else "nothing"
        return f"no {group} {name!r}; installed: {there}; the others are plugins of Hydra, packages of their own"
    names = choices(group)
    return f"no {group} {name!r}" + (nearest(name, names) or f"; there are: {', '.join(names)}")


def _all_settings() -> dict[str, Any]:
    """The dotted settings that some config file has, each with a value, and the groups."""
    found: dict[str, Any] = dict.fromkeys(groups())
    for name in primary():
        found |= settings(name)
    return dict(sorted(found.items()))
