"""The files of a study: study.html, study.json, study.md, and figures for a paper."""

import json
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
    study = json.loads(json.dumps(study), parse_constant=lambda _: None)  # which has no NaN
    texts = {"study.html": render(study), "study.md": summarise(study), "study.json": as_json(study)}
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts] + draw(study, folder / "figures")


def as_json(study: Mapping[str, Any]) -> str:
    """JSON with a line for each cell, curve and finding, for reading and comparing."""
    parts = {key: json.dumps(value, ensure_ascii=False) for key, value in study.items()}
    for key, value in study.items():
        if isinstance(value, list) and value:
            lines = ",\n  ".join(json.dumps(each, ensure_ascii=False) for each in value)
            parts[key] = f"[\n  {lines}\n ]"
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {text}" for key, text in parts.items()) + "\n}\n"
