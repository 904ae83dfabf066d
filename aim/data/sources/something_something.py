"""Something-Something v2."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aim.data.lists import README, Lists, Video
from aim.data.sources.annotations import Files, near, only
from aim.ground.errors import UserError
from aim.ground.foreign import read_json, reading


@dataclass(frozen=True)
class SomethingSomething:
    """Something-Something v2: labels, train and validation JSON; a template without its brackets is a label."""

    def recognises(self, root: Path) -> bool:
        return bool(near(root, *self._names("labels"))) and bool(near(root, *self._names("validation")))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a JSON that is missing, and for a template that is no label."""
        labels = only(root, *self._names("labels"))
        with reading(labels, "template: number", README):
            found: dict[str, Any] = read_json(labels, dict, "template: number", README)
            numbers = {name: int(number) for name, number in found.items()}
        classes = sorted(numbers, key=lambda name: numbers[name])
        files = Files(root)
        lists: dict[str, list[Video]] = {}
        for split in ("train", "validation"):
            path = only(root, *self._names(split))
            with reading(path, "a list of videos with id and template", README):
                listed: list[Any] = read_json(path, list, "a list of videos with id and template", README)
                pairs = [(str(entry["id"]), entry["template"]) for entry in listed]
                labels_of = {template: template.replace("[", "").replace("]", "") for _, template in pairs}
            if unknown := [template for template, label in labels_of.items() if label not in numbers]:
                raise UserError(f"{path}: the template {unknown[0]!r} is not among the labels")
            lists[split] = [
                Video(files.find(name, f"20bn-something-something-v2/{name}.webm"), classes.index(labels_of[template]))
                for name, template in pairs
            ]
        return Lists(lists["train"], lists["validation"], classes)

    def _names(self, part: str) -> tuple[str, str]:
        return f"something-something-v2-{part}.json", f"{part}.json"
