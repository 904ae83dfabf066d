"""`predictions.npz`: the predictions for every video of a test; the one file that reports and studies read.

Its columns are those of `Predictions`, described in docs/predictions.md. It contains no code.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from aim.data.lists import Video
from aim.ground import files
from aim.ground.foreign import reading

if TYPE_CHECKING:
    from torch import Tensor

    from aim.engine.scores.guessing import OneAnswer
    from aim.engine.scores.tasks import Task, Temperature

Form = Literal["npz", "jsonl"]

TEST, VALIDATION = "predictions.npz", "validation.npz"  # of a test, and of a training's newest validation
KINDS = {"index": "iu", "label": "iu", "path": "U", "span": "f", "probability": "f", "log_probability": "f",
         "seconds": "f", "classes": "U"}  # fmt: skip
AGAIN = "delete it, and let aim.eval write it again"


@dataclass(frozen=True)
class Predictions:
    """Every readable video of a test, once, in the order of the list: n videos, v views, k classes."""

    index: NDArray[np.int64]  # "n", its place in the list
    label: NDArray[np.int64]  # "n"; of several labels a video 0 or 1 for each class, "n k"
    path: NDArray[np.str_]  # "n", from the data's root
    span: NDArray[np.float64]  # "n 2", the part of the file in seconds; NaN: all of it
    probability: NDArray[np.float32]  # "n k", the mean over views
    log_probability: NDArray[np.float16]  # "n v k", of each view
    seconds: NDArray[np.float32]  # "n v 2", of the first and the last frame of a view; NaN: unknown
    classes: NDArray[np.str_]  # "k"
    about: Mapping[str, Any]  # its source: root, views, data_hash, the epoch of a validation, thresholds

    @property
    def task(self) -> "Task":
        """Their task."""
        from aim.engine.scores import tasks  # late, as torch takes seconds, which a table of reports saves

        return tasks.named(self.about.get("task"))

    @property
    def several(self) -> bool:
        """Whether a video may have any number of labels."""
        return self.label.ndim == 2

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The first answer of the task for each video, "n"."""
        return self.task.best(self._tensors[0]).numpy()

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether that is right, "n"."""
        return self.task.hits(*self._tensors).numpy()

    @property
    def one_answer(self) -> "OneAnswer | None":
        """The class predicted for (nearly) all videos."""
        from aim.engine.scores import guessing  # late, for the same reason

        return guessing.one_answer(self.task, *self._tensors)

    @property
    def baseline(self) -> Mapping[str, float]:
        """The value of each metric if all were in it."""
        from aim.engine.scores import guessing  # late, for the same reason

        return guessing.baseline(self.task, self._tensors[1], len(self.classes))

    @property
    def thresholds(self) -> list[float] | None:
        """The least calibrated probability of an answer, per class, for several labels a video."""
        return self.about.get("thresholds")

    def given(self, temperature: "Temperature | None" = None) -> NDArray[np.bool_]:
        """The answered labels, "n k", by probabilities with or without calibration."""
        import torch  # late, for the same reason

        probability = self.probability if temperature is None else self.tempered(temperature)
        at_least = None if self.thresholds is None or temperature is None else torch.tensor(self.thresholds)
        found: NDArray[np.bool_] = self.task.given(torch.from_numpy(probability), at_least).numpy()
        return found

    @property
    def confidence(self) -> NDArray[np.float32]:
        """The probability of the predicted class, "n"."""
        highest: NDArray[np.float32] = self.probability.max(1)
        return highest

    def tempered(self, temperature: "Temperature") -> NDArray[np.float32]:
        """Probabilities "n k" with views calibrated by a temperature, like aim.predict's."""
        import torch  # late, for the same reason

        views = torch.from_numpy(self.log_probability.astype(np.float32))
        found: NDArray[np.float32] = self.task.tempered(views, temperature).mean(1).numpy()
        return found

    @property
    def _tensors(self) -> "tuple[Tensor, Tensor]":
        """Probabilities and labels for a task."""
        import torch  # late, for the same reason

        return torch.from_numpy(self.probability), torch.from_numpy(self.label)

    def results(self) -> dict[str, Any]:
        """Their part of `results.json`."""
        metrics, names, one = self.task.metrics, self.classes.tolist(), self.one_answer
        return {
            "headline": [each.head for each in metrics if each.main],
            **{each.name: round(each.value(self.probability, self.label), each.digits) for each in metrics},
            "baseline": self.baseline,
            "one_answer": None if one is None else {"class": names[one.label], "videos": one.taken},
            "per_class": dict(zip(names, self.task.per_class(*self._tensors), strict=True)),
        }


def spans(videos: Sequence[Video]) -> NDArray[np.float64]:
    """The listed parts of their files, "n 2"; NaN for all."""
    return np.array([(video.start, video.end) for video in videos], np.float64).reshape(-1, 2)


def write(path: Path, found: Predictions, form: Form = "npz") -> None:
    """Write the file atomically; for jsonl the text beside it, too."""
    columns = {field.name: getattr(found, field.name) for field in fields(found)}
    columns["about"] = np.array(json.dumps(dict(found.about)))

    def write_arrays(file: Path) -> None:
        with file.open("wb") as stream:
            np.savez_compressed(stream, **columns)

    files.write_atomically(path, write_arrays)
    if form == "jsonl":
        text = path.with_suffix(".jsonl")
        files.write_atomically(text, lambda file: write_lines(file, found))


def write_lines(path: Path, found: Predictions) -> None:
    """Write a video a line, as JSON: 400 classes and 20000 videos are some 90 MB."""
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries(found))


def entries(found: Predictions) -> Iterator[dict[str, Any]]:
    """Each video as plain values, by the names of FiftyOne and similar tools."""
    root = Path(found.about["root"])
    names = found.classes.tolist()
    predicted, confidence, given = found.predicted.tolist(), found.confidence.tolist(), found.given()

    def one(i: int) -> dict[str, Any]:
        label, best = int(found.label[i]), predicted[i]
        return {
            "label": names[label],
            "label_index": label,
            "prediction": names[best],
            "prediction_index": best,
            "confidence": round(confidence[i], 6),
        }

    def any_number(i: int) -> dict[str, Any]:
        chosen = {"labels": found.label[i] > 0, "predictions": given[i]}
        return {name: [names[at] for at in np.flatnonzero(part)] for name, part in chosen.items()}

    for i in range(len(found.index)):
        start, end = (None if np.isnan(value) else value for value in found.span[i].tolist())
        yield {
            "index": int(found.index[i]),
            "filepath": str(root / str(found.path[i])),
            "start": start,
            "end": end,
            **(any_number(i) if found.several else one(i)),
            "probabilities": [float(f"{value:.6g}") for value in found.probability[i].tolist()],
        }


def read(path: Path) -> Predictions:
    """Read a file of `write`. Raises UserError for another or a damaged file."""
    with reading(path, "predictions", AGAIN):
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            columns = {name: file[name] for name in (*KINDS, "about") if name in file.files}
        about = json.loads(str(columns.pop("about")))
        if problem := _problem(columns, about):
            raise ValueError(problem)
    return Predictions(**columns, about=about)


def _problem(columns: Mapping[str, NDArray[Any]], about: object) -> str:
    """The error in the columns of a file, or nothing."""
    if lacking := [name for name in KINDS if name not in columns]:
        return f"it lacks {', '.join(lacking)}"
    if wrong := [name for name, kinds in KINDS.items() if columns[name].dtype.kind not in kinds]:
        return f"{wrong[0]} holds values of {columns[wrong[0]].dtype}"
    n, k = columns["index"].size, columns["classes"].size
    v = columns["log_probability"].shape[1] if columns["log_probability"].ndim == 3 else 0
    several = columns["label"].ndim == 2
    shapes = {"index": (n,), "label": (n, k) if several else (n,), "path": (n,), "span": (n, 2), "probability": (n, k),
              "log_probability": (n, v, k), "seconds": (n, v, 2), "classes": (k,)}  # fmt: skip
    for name, shape in shapes.items():
        if columns[name].shape != shape:
            return f"{name} has shape {columns[name].shape}, not {shape}"
    if n and not 0 <= columns["label"].min() <= columns["label"].max() <= (1 if several else k - 1):
        return f"labels that are not 0 or 1 of {k} classes" if several else f"labels that are none of the {k} classes"
    if not np.isfinite(columns["probability"]).all():
        return "probabilities that are not finite"
    return (
        "" if isinstance(about, dict) and isinstance(about.get("root"), str) else "it doesn't say where it comes from"
    )
