"""The table of a sweep's results, which the shell reads without the table of metrics."""

import json
from pathlib import Path
from typing import Any

import pytest

from aim.shell.sweep import Job, scores, show


def job(folder: Path, result: dict[str, Any]) -> Job:
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(result), encoding="utf-8")
    return Job([folder.name], folder, None)


def test_a_result_says_itself_what_its_main_scores_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    headline = [{"name": "map", "words": "mAP", "unit": "share"}, {"name": "loss", "words": "loss", "unit": "number"}]
    new = job(tmp_path / "new", {"headline": headline, "map": 0.5, "loss": 1.25, "baseline": {"map": 0.125}})
    old = job(tmp_path / "old", {"top1": 75.0, "top5": 90.0})
    show(["new", "old", "begun"], [new, old, Job(["begun"], None, None)], [0, 0])
    head, *rows = capsys.readouterr().out.strip().splitlines()
    assert head.split()[2:9] == ["mAP", "loss", "largest", "class", "top-1", "run", "directory"]
    assert rows[0].split()[2:-1] == ["50.00", "%", "1.250", "12.50", "%"]
    assert rows[1].split()[2:-1] == ["75.00", "%"]
    assert rows[2].split() == ["begun", "not", "started"]
    assert scores(tmp_path) == {}
    said = {"headline": [headline[0] | {"constant_words": "mean class share"}], "map": 0.5, "baseline": {"map": 0.125}}
    assert scores(job(tmp_path / "said", said).run_dir) == {"mAP": "50.00 %", "mean class share": "12.50 %"}
