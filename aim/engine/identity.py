"""What makes a run this run: its settings, its data, its trunk; and what of them may change while it goes on.

A run directory belongs to one run. The same command, from another machine or with another of the settings named here,
goes on with it; anything else is another run.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aim.config import leaves, load
from aim.data.lists import Lists, data_hash, ordered_hash
from aim.errors import UserError

# Settings of the machine, of the watching and of how bad data is met. They don't alter what is learnt: a run may go on
# with others, and neither its name nor its hash has them.
MACHINE = (
    "run_dir", "device", "gpus", "restarts", "debug", "checkpoint", "what", "gpu", "tracker",
    "data.root", "data.workers", "data.timeout", "data.on_error", "data.eval_on_error", "data.max_bad",
    "data.cache", "data.cache_gb",
    "train.accumulate", "train.log_every", "train.save_minutes", "train.profile", "train.memory", "train.compile",
    "train.shard", "predictions",
)  # fmt: skip

# Paths whose content decides, and is compared by a hash: the same file may lie elsewhere.
BY_CONTENT = ("backbone.weights", "init")

LENGTH = "train.epochs"  # a run may go on to another number of them than it began with: aim.engine.saving.State

# Nobody needs to hear that these changed.
UNSAID = ("run_dir", "restarts", "debug", "checkpoint", "what", "gpu", "predictions")


def run_name(name: str, overrides: Sequence[str], *, own_data: bool = False) -> str:
    """The experiment's name with the overrides that change results, such as `k400_vit_b16,adapter.ratio=0.125`.

    Machine settings are left out; of `data.root`, the folder's name is kept for `own_data` alone, whose content no
    other setting pins. Past 100 characters settings go by their last word, and a hash keeps names apart.
    """
    parts = []
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        value = value.strip("'\"")
        if key == "data.root" and own_data:
            value = Path(value).name
        elif key in ("experiment", "name") or is_one_of(key, MACHINE):
            continue
        parts.append(f"{key}={value}" if value else key)
    text = ",".join(sorted(parts))
    if len(text) > 100:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        text = f"{','.join(re.sub(r'^[^=]*[.]', '', part) for part in sorted(parts))[:91]},{digest}"
    text = re.sub(r"[^\w.,=+@-]+", "_", text)
    return f"{name},{text}" if text else name


def experiment_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted settings that decide a result, without those of the machine."""
    return {key: value for key, value in leaves(settings) if not is_one_of(key, MACHINE)}


def config_hash(settings: Mapping[str, Any]) -> str:
    """The sha256 of the resolved config without machine settings."""
    text = json.dumps(experiment_settings(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def of_data(lists: Lists) -> dict[str, str]:
    """Hashes of what is trained on, in its order, and of what is tested; whether it lies in files or in shards."""
    return {"train_hash": ordered_hash(lists.train, lists.classes), "data_hash": data_hash(lists.val, lists.classes)}


def of_weights(trunk: str, start: str | None) -> dict[str, str]:
    """Fingerprints of the trunk, and of the checkpoint whose adapters a run starts from."""
    return {"trunk": trunk, "init": start or "none"}


def earlier(run_dir: Path) -> dict[str, Any] | None:
    """The settings of the run that a directory holds, if there is one."""
    path = run_dir / "config.yaml"
    begun = path.exists() and any((run_dir / name).exists() for name in ("last.pt", "results.json"))
    return load(path) if begun else None


def changes(before: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> list[str]:
    """The settings that a run goes on with differently, each as `KEY was A, is B`.

    Raises UserError for those that make it another run.
    """
    old, new = dict(leaves(before)), dict(leaves(now))
    differ = {
        key: f"{key} was {_said(old.get(key, 'absent'))}, is {_said(new.get(key, 'absent'))}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    }
    if refused := [text for key, text in differ.items() if not is_one_of(key, (*MACHINE, *BY_CONTENT, LENGTH))]:
        raise UserError(
            f"{run_dir} holds a run of another configuration: {'; '.join(refused[:5])}"
            + (f" and {len(refused) - 5} more" if len(refused) > 5 else "")
            + "; set run_dir=DIR, or delete the folder"
        )
    return [text for key, text in differ.items() if not is_one_of(key, UNSAID)]


def _said(value: Any) -> str:
    """A value as it stands in YAML."""
    return value if isinstance(value, str) else json.dumps(value)


WORDS = {
    "train_hash": "training list",
    "data_hash": "validation list",
    "trunk": "trunk",
    "precision": "precision",
    "init": "checkpoint at its start (init)",
}


def check_same(found: Mapping[str, Any], now: Mapping[str, str], run_dir: Path) -> None:
    """Raise UserError if the content under `identity` in a run's state or result is another than `now`."""
    if "identity" not in found:
        raise UserError(f"{run_dir} holds something else than a training run; set run_dir=DIR, or delete the folder")
    differ = [WORDS[key] for key in now if found["identity"].get(key) != now[key]]
    if differ:
        raise UserError(
            f"{run_dir} holds a run with another {' and another '.join(differ)}; set run_dir=DIR, or delete the folder"
        )


def is_one_of(key: str, settings: Sequence[str]) -> bool:
    """Whether a dotted setting is one of these, or inside of one."""
    return any(key == setting or key.startswith(f"{setting}.") for setting in settings)
