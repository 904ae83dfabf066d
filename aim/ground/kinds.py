"""The public names of the choices of a setting, and the only place that knows where their code lives.

A group of settings that leaves a choice says `kind: NAME`. Files of runs and checkpoints hold these names, never a
Python path, so code may move. A class of somebody else's package is `_target_: package.module.Class` in their own
YAML; a received file can't name one.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from aim.ground.errors import UserError, nearest

KINDS: dict[str, dict[str, str]] = {  # setting (the last word of its dotted name): kind: class
    "adapter": {
        "adaptformer": "aim.adapters.adaptformer.AdaptFormer",
        "aim": "aim.adapters.aim.AIM",
        "attentive_probe": "aim.adapters.attentive_probe.AttentiveProbe",
        "lora": "aim.adapters.lora.LoRA",
        "plain": "aim.adapters.plain.Plain",
        "probe": "aim.adapters.probe.Probe",
        "side": "aim.adapters.side.Side",
        "st_adapter": "aim.adapters.st_adapter.STAdapter",
        "timesformer": "aim.adapters.timesformer.TimeSformer",
    },
    "lists": {
        "class_folders": "aim.data.class_folders.ClassFolders",
        "list_files": "aim.data.list_files.ListFiles",
        "moving_shapes": "aim.data.demo.moving_shapes.MovingShapes",
    },
    "format": {
        "auto": "aim.data.sources.detected.Auto",
        "charades": "aim.data.sources.charades.Charades",
        "csv": "aim.data.sources.table.Table",
        "cvat": "aim.data.sources.cvat.CVAT",
        "diving48": "aim.data.sources.diving48.Diving48",
        "epic_kitchens": "aim.data.sources.epic_kitchens.EpicKitchens",
        "feral": "aim.data.sources.feral.FERAL",
        "folders": "aim.data.sources.folders.Folders",
        "hmdb51": "aim.data.sources.hmdb51.HMDB51",
        "kinetics": "aim.data.sources.kinetics.Kinetics",
        "label_studio": "aim.data.sources.label_studio.LabelStudio",
        "mmaction2": "aim.data.sources.mmaction2.MMAction2",
        "ready": "aim.data.sources.ready.Ready",
        "ssv2": "aim.data.sources.something_something.SomethingSomething",
        "ucf101": "aim.data.sources.ucf101.UCF101",
        "via": "aim.data.sources.via.VIA",
        "webdataset": "aim.data.sources.webdataset.WebDataset",
    },
    "reader": {
        "auto": "aim.data.readers.auto.Auto",
        "decord": "aim.data.readers.decord.Decord",
        "frames": "aim.data.readers.frames.Frames",
        "pyav": "aim.data.readers.pyav.PyAV",
        "torchcodec": "aim.data.readers.torchcodec.TorchCodec",
    },
    "task": {
        "multi_label": "aim.engine.scores.tasks.MultiLabel",
        "single_label": "aim.engine.scores.tasks.SingleLabel",
    },
    "tracker": {
        "csv": "aim.engine.telling.tracking.Csv",
        "none": "aim.engine.telling.tracking.NoTracker",
        "tensorboard": "aim.engine.telling.tracking.TensorBoard",
        "trackio": "aim.engine.telling.tracking.Trackio",
        "wandb": "aim.engine.telling.tracking.Wandb",
    },
}


def class_of(key: str, node: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The class that a group of settings names by its kind or, of somebody else's, by its path; None if it names none.

    Raises UserError for a name that is not in the table, and for a path that can't be imported.
    """
    if "_target_" in node:
        return locate(str(node["_target_"]))
    word = key.rpartition(".")[2]
    if "kind" not in node or word not in KINDS:
        return None
    names, kind = KINDS[word], str(node["kind"])
    if kind not in names:
        raise UserError(f"{key}.kind={kind} is unknown{nearest(kind, names)}; there are: {', '.join(names)}")
    return locate(names[kind])


def written(word: str, made: Any) -> dict[str, Any]:
    """The group of settings, under this word, that an object was made of: the inverse of `class_of`."""
    named = {"kind": name} if (name := name_of(word, made)) else {"_target_": path_of(made)}
    return {**named, **asdict(made)}


def name_of(word: str, made: Any) -> str:
    """The public name of an object's class, under this word; "" where it is somebody else's."""
    return next((kind for kind, known in KINDS[word].items() if known == path_of(made)), "")


def path_of(made: Any) -> str:
    """The dotted path of an object's class."""
    return f"{type(made).__module__}.{type(made).__qualname__}"


def locate(path: str) -> Callable[..., Any]:
    """The class or function of a dotted path. Raises UserError if there is none."""
    module, _, name = path.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise UserError(f"_target_: {path} can't be imported: {error}") from error
    return found


def modern(node: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """Settings with names in place of the paths that versions before 0.2 wrote for our own classes.

    Those are known by the class alone, wherever it lay then. A class with no choice beside it needs no name.
    """
    found = {name: modern(value, name) if isinstance(value, Mapping) else value for name, value in node.items()}
    path, kinds = str(found.get("_target_", "")), KINDS.get(key, {})
    if not path.startswith("aim."):
        return found
    names = {known.rpartition(".")[2]: {"kind": kind} for kind, known in kinds.items()}
    name = names.get(path.rpartition(".")[2]) if kinds else {}
    return found if name is None else {**name, **{word: value for word, value in found.items() if word != "_target_"}}
