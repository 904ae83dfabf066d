"""Something-Something v2."""

from dataclasses import dataclass
from pathlib import Path

from aim.data.lists import README, Lists, Video
from aim.data.sources.annotations import Files, near, only, read_json
from aim.ground.errors import UserError


@dataclass(frozen=True)
class SomethingSomething:
    """Something-Something v2: labels, train and validation JSON; a template without its brackets is a label."""

    def recognises(self, root: Path) -> bool:
        return bool(near(root, *self._names("labels"))) and bool(near(root, *self._names("validation")))

    def __call__(self, root: Path) -> Lists:
        """Raises UserError for a JSON that is missing, and for a template that is no label."""
        labels = read_json(only(root, *self._names("labels")))
        if not isinstance(labels, dict):
            raise UserError(f"{root}: the labels are a {type(labels).__name__}, not template: number; {README}")
        numbers = {name: int(number) for name, number in labels.items()}
        classes = sorted(numbers, key=lambda name: numbers[name])
        files = Files(root)
        lists: dict[str, list[Video]] = {}
        for split in ("train", "validation"):
            path = only(root, *self._names(split))
            lists[split] = []
            for entry in read_json(path):
                label = entry["template"].replace("[", "").replace("]", "")
                if label not in numbers:
                    raise UserError(f"{path}: the template {entry['template']!r} is not among the labels")
                usual = f"20bn-something-something-v2/{entry['id']}.webm"
                lists[split].append(Video(files.find(str(entry["id"]), usual), classes.index(label)))
        return Lists(lists["train"], lists["validation"], classes)

    def _names(self, part: str) -> tuple[str, str]:
        return f"something-something-v2-{part}.json", f"{part}.json"
