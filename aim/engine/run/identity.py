"""The identity of a run: its settings, its data, its trunk; and which of them may change when it resumes.

A run directory belongs to one run. The same command, from another machine or with another of the settings named here,
goes on with it; anything else is another run.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aim.engine.run.naming import is_one_of
from aim.ground.choices import leaves
from aim.ground.config import completed, load
from aim.ground.errors import UserError
from aim.ground.marks import Mark, hints, marked

MACHINE = marked(Mark.MACHINE)
CONTENT = marked(Mark.CONTENT)
(LENGTH,) = marked(Mark.LENGTH)  # a run may go on to another number of epochs: aim.engine.loop.saving.State
SILENT = marked(Mark.SILENT)
CHOICE = "choice"  # the folder in a run's own of a choice among rates, which comes first


def experiment_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted settings that decide a result, without those of the machine."""
    return {key: value for key, value in leaves(settings) if not is_one_of(key, MACHINE)}


def config_hash(settings: Mapping[str, Any]) -> str:
    """The sha256 of the resolved config without machine settings; it depends on no Python path, nor on the version."""
    text = json.dumps(experiment_settings(of_today(settings)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def of_today(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run, of any version, in this version's form.

    Those of other verbs, which stood in every run's file before each verb had its own, are left out where they say
    nothing.
    """
    from aim.engine.run.settings import Run  # a report does without, and without torch

    known = hints(Run)
    own = {key: value for key, value in settings.items() if key in known or not (key in MACHINE or value is False)}
    return completed(own, Run)


def earlier(run_dir: Path) -> dict[str, Any] | None:
    """The settings of the run that a directory holds, if there is one, as this version would have written them."""
    path = run_dir / "config.yaml"
    begun = path.exists() and ((run_dir / "results.json").exists() or last_of(run_dir).exists())
    return of_today(load(path)) if begun else None


def last_of(run_dir: Path) -> Path:
    """The state from which a run continues, if there is one: the newest of a choice, until the run has its own."""
    last = run_dir / "last.pt"
    if last.exists() or (run_dir / "results.json").exists():
        return last
    of_choice = run_dir.glob(f"{CHOICE}/**/last.pt")  # itself, or a folder with a number for each training in turn
    return max(of_choice, key=lambda path: int(path.parent.name) if path.parent.name != CHOICE else 0, default=last)


def changes(before: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> list[str]:
    """The settings that a run goes on with differently, each as `KEY was A, is B`.

    Raises UserError for those that make it another run.
    """
    old, new = dict(leaves(of_today(before))), dict(leaves(of_today(now)))
    differ = {
        key: f"{key} was {_said(old.get(key, 'absent'))}, is {_said(new.get(key, 'absent'))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
    if refused := [text for key, text in differ.items() if not is_one_of(key, (*MACHINE, *CONTENT, LENGTH))]:
        raise UserError(
            f"{run_dir} holds a run of another configuration: {'; '.join(refused[:5])}"
            + (f" and {len(refused) - 5} more" if len(refused) > 5 else "")
            + "; set run_dir=DIR, or delete the folder"
        )
    return [text for key, text in differ.items() if not is_one_of(key, SILENT)]


def _said(value: Any) -> str:
    """A value as it stands in YAML."""
    return value if isinstance(value, str) else json.dumps(value)
