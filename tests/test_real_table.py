"""scripts/real_table.py, on made-up results; and the cells of scripts/real_results.sh."""

import json
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

from aim.engine.run.settings import Run
from aim.ground import config
from tests.conftest import ROOT, shared_folder
from tests.report.made import run_directory

TABLE: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "real_table.py"))
SCRIPT = ROOT / "scripts" / "real_results.sh"
MORE = {"baseline": {"top1": 17.0}, "world_size": 1, "device": "a CPU", "precision": "bf16"}


def test_a_cell_has_a_row_with_its_seeds_and_its_orders(tmp_path: Path) -> None:
    for seed, top1 in enumerate((80.0, 90.0)):
        folder = run_directory(tmp_path / f"order6,aim,seed={seed}", {"top1": top1, **MORE}, "seed: 0")
        orders = {"reversed": {"top1": 40.0 + seed}, "shuffled": {"top1": 50.0}}
        (folder / "order.json").write_text(json.dumps({"order": orders}), encoding="utf-8")
    lines = TABLE["table"](tmp_path, "order6")
    (row,) = [line for line in lines if line.startswith("| + joint (AIM)")]
    assert "| 11.000 | 85.0 (80.0 to 90.0) | " in row
    assert "| 40.5 (40.0 to 41.0) | 50.0 (50.0 to 50.0) | 2 | 60 |" in row
    assert "17.0 %" in " ".join(lines)
    assert TABLE["table"](tmp_path, "ut") == []


@pytest.mark.skipif(not (shared_folder() / "real").is_dir(), reason="no real data")
def test_the_settings_of_all_cells_are_settings(tmp_path: Path) -> None:
    """The script with a stand-in for Python, which notes its command lines."""
    stand_in = tmp_path / "python"
    noted = tmp_path / "noted"
    stand_in.write_text(f'#!/bin/sh\necho "$*" >> {noted}\necho 9999\n', encoding="utf-8")
    stand_in.chmod(0o755)
    (tmp_path / "runs").mkdir()
    for name in TABLE["CELLS"]:
        for data in TABLE["DATA"]:
            (tmp_path / "runs" / f"{data},{name},seed=0").mkdir()
    for head in ("step", "none"):
        (tmp_path / "runs" / f"ut,folds,{head}" / "fold1").mkdir(parents=True)
        for name in ("folds.json", "fold1/config.yaml"):
            (tmp_path / "runs" / f"ut,folds,{head}" / name).touch()
    places = {"PYTHON": str(stand_in), "RUNS": str(tmp_path / "runs"), "RESULTS": str(tmp_path / "kept")}
    shared = {"AIM_SHARED": str(shared_folder()), "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", str(SCRIPT)], env=places | shared, check=True, capture_output=True, timeout=60)
    trainings = [line.split() for line in noted.read_text(encoding="utf-8").splitlines() if "aim.train" in line]
    assert len(trainings) == len(TABLE["DATA"]) * len(TABLE["CELLS"]) + 2
    for _, _, *words in trainings[:: len(TABLE["CELLS"]) + 1]:
        run = config.build(config.compose([word for word in words if not word.startswith("run_dir=")]), Run)
        assert run.backbone.name == "vit_small_patch14_dinov2.lvd142m"
        assert not (run.data.directional and run.augment.flip)
