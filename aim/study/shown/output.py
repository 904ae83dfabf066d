"""The files of a study: study.html, study.json, study.md, and figures for a paper."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aim.ground.files import write_text
from aim.study.shown.figures import draw
from aim.study.shown.page import render
from aim.study.shown.summary import summarise


def write(study: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write all files of the study in this dict, each atomically, and return their paths.

    Without matplotlib there are no figures, and a line says so.
    """
    study = without_nan(study)
    texts = {"study.html": render(study), "study.md": summarise(study), "study.json": as_json(study)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts] + draw(study, folder / "figures")


def without_nan(value: Any) -> Any:
    """The value for JSON: None for a non-finite number."""
    if isinstance(value, Mapping):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_json(study: Mapping[str, Any]) -> str:
    """JSON with a line for each cell, curve and finding, for reading and comparing."""
    parts = []
    for key, value in study.items():
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(each, ensure_ascii=False) for each in value)
            parts.append(f" {json.dumps(key)}: [\n  {lines}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
