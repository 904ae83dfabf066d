"""The content of a run beside its settings, by hashes: videos, trunk, the checkpoint that it starts from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aim.data.lists import Lists, data_hash, ordered_hash
from aim.ground.errors import UserError

WORDS = {
    "train_hash": "training list",
    "data_hash": "validation list",
    "test_hash": "list for the test",
    "trunk": "trunk",
    "precision": "precision",
    "init": "checkpoint at its start (init)",
    "settings": "configuration",
}


BIASED = "the scores are a little too high; test.txt, or a folder test, makes a test of other videos"


def kind(found: Mapping[str, Any]) -> str:
    """The videos of a result: a test's only where the training had no validation on them; not known in older ones."""
    if "part" in found:
        return f"{found['part']} "
    return "" if "chose" not in found else "validation " if found["chose"] else "test "


def chosen(found: Mapping[str, Any]) -> str:
    """The choices of a result's videos in training, and their meaning for its scores; nothing without any."""
    return f"{' and '.join(found['chose'])}: {BIASED}" if found.get("chose") else ""


def weights(found: Mapping[str, Any]) -> str:
    """The weights that a result's scores are of; of the last ones also which others the checkpoint has, if it does."""
    if "checkpoint" in found:
        return f"those of {found['checkpoint']}"
    epochs = found.get("epochs_trained", found.get("epochs", 0))
    last, best = f"the last, after epoch {epochs:g}", found.get("selection")
    if not best:
        return last if found.get("weights") == "last" else str(found.get("weights", ""))
    chosen = f"those of epoch {best['epoch']:.3g}, the best by {best['by']}"
    if found["weights"] == "best":
        return chosen
    if best["epoch"] >= epochs:
        return last
    return f"{last}; aim.eval and aim.predict take {chosen} (test=best tests these)"


def choice(found: Mapping[str, Any]) -> str:
    """The rate and decay that were chosen among several, and by which videos; nothing of a run without them."""
    if not (choice := found.get("choice")):
        return ""
    best = choice["heads"][choice["best"]]
    return (
        f"optim.lr={best['lr']:g}, optim.weight_decay={best['weight_decay']:g}: the best of {len(choice['heads'])} by "
        f"{choice['videos']} {choice['of']} videos"
    )


def of_data(lists: Lists) -> dict[str, str]:
    """Hashes of the lists, that of training in its order; whether the videos lie in files or in shards."""
    found = {"train_hash": ordered_hash(lists.train, lists.classes), "data_hash": data_hash(lists.val, lists.classes)}
    return found if lists.third is None else found | {"test_hash": data_hash(lists.third, lists.classes)}


def of_weights(trunk: str, start: str | None) -> dict[str, str]:
    """Fingerprints of the trunk, and of the checkpoint whose adapters a run starts from."""
    return {"trunk": trunk, "init": start or "none"}


def of_first_results(found: Mapping[str, Any]) -> dict[str, str]:
    """The hashes in a training's result that was written before results had an `identity`; none in anything else."""
    if "checkpoint" in found or not {"epochs", "data_hash", "trunk"} <= found.keys():
        return {}
    return {"data_hash": found["data_hash"], "trunk": found["trunk"]["sha256"]}


def check_same(found: Mapping[str, Any], now: Mapping[str, str], run_dir: Path) -> None:
    """Raise UserError if the content that a run's state or result tells of is another than `now`."""
    before = found.get("identity", of_first_results(found))
    if not before:
        raise UserError(f"{run_dir} holds something else than a training run; set run_dir=DIR, or delete the folder")
    known = dict.fromkeys([*now, "test_hash"]) if "identity" in found else now.keys() & before.keys()
    differ = [WORDS[key] for key in known if before.get(key) != now.get(key)]
    if differ:
        raise UserError(
            f"{run_dir} holds a run with another {' and another '.join(differ)}; set run_dir=DIR, or delete the folder"
        )
