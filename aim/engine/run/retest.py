"""The settings of a checkpoint's test: its own, overridden by the command."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aim.engine.run import identity
from aim.engine.run.naming import is_one_of
from aim.engine.run.settings import Run
from aim.ground import choices, config
from aim.ground.errors import UserError
from aim.ground.marks import Mark, marked

OF_THE_COMMAND = marked(Mark.COMMAND)
OF_THE_MODEL = marked(Mark.MODEL)  # frames and size are not among it: they may differ (stretch_time)
FREE = ("backbone.weights", *marked(Mark.SILENT))
OF_THE_TRAINING = marked(Mark.TRAINING)
IDLE = marked(Mark.IDLE)


def of_checkpoint(
    saved: Mapping[str, Any], asked: Mapping[str, Any], overrides: Sequence[str], path: Path
) -> dict[str, Any]:
    """The settings to test a checkpoint with: its own, overridden by the command's.

    The command's are those on the command line, in its experiment, and those that differ from configs/config.yaml,
    and settings that are newer than the checkpoint.
    Raises UserError if they contradict the checkpoint's model, or have no effect on a test.
    """
    saved = identity.of_today(saved)
    config.check_received({key: value for key, value in saved.items() if key not in OF_THE_COMMAND}, Run)
    default = dict(choices.leaves(config.resolve(config.compose([], "eval"))))
    if removed := [override for override in overrides if override.startswith("~")]:
        raise UserError(f"{removed[0]}: aim.eval can't take a setting away from a checkpoint's; give it another value")
    words = [override.lstrip("+").partition("=")[0] for override in overrides]
    if idle := [key for key in words if is_one_of(key, IDLE)]:
        raise UserError(f"{idle[0]} has no effect on aim.eval; leave it out")
    given = [*OF_THE_COMMAND, *words]

    def is_asked(key: str, value: Any) -> bool:
        if is_one_of(key, given):
            return True
        if "experiment" in given:
            return not is_one_of(key, OF_THE_TRAINING)
        return bool(default.get(key, ...) != value)

    if is_asked("clip.size", asked["clip"]["size"]):
        given.append("views.resize")  # which is made of it
    found = _put_over(saved, asked, is_asked)
    if found.get("precision") == "fp8":
        found["precision"] = "bf16"  # fp8 is of training alone
    if differ := [text for group in OF_THE_MODEL for text in _differences(group, saved.get(group), found.get(group))]:
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        raise UserError(f"{path} is of a model with {'; '.join(differ[:3])}{more}; leave these settings out")
    return found


def _differences(name: str, before: Any, now: Any) -> Iterator[str]:
    """The differences between two values of a setting; of groups of two classes the class alone."""
    if name in FREE:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if before.get("kind") != now.get("kind"):
            yield f"{name} {before.get('kind')}, not {now.get('kind')}"
            return
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(f"{name}.{key}", before.get(key, "absent"), now.get(key, "absent"))
    elif before != now:
        yield f"{name}={before}, not {now}"


def _put_over(
    saved: Mapping[str, Any], asked: Mapping[str, Any], is_asked: Callable[[str, Any], bool], prefix: str = ""
) -> dict[str, Any]:
    """A copy of `saved` with the asked values; a group of another class is taken as a whole."""
    kind = asked.get("kind")
    if kind != saved.get("kind") and is_asked(f"{prefix}kind", kind):
        return dict(asked)
    found = dict(saved)
    for key, value in asked.items():
        inside = saved.get(key)
        if isinstance(value, Mapping) and isinstance(inside, Mapping):
            found[key] = _put_over(inside, value, is_asked, f"{prefix}{key}.")
        elif (not prefix and key not in saved) or is_asked(f"{prefix}{key}", value):
            found[key] = value
    return found
