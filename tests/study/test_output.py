import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from aim.study.shown import figures, output
from aim.study.shown.output import write
from tests.study.example import PAIRS, example, table_example

ALL = {"scaling", "scaling_column", "data", "tasks", "scores", "laws"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the whole example, written once."""
    folder = tmp_path_factory.mktemp("study")
    paths = write(example(), folder)
    assert sorted(paths) == sorted(path for path in folder.rglob("*") if path.is_file())
    return folder


def test_every_file_is_there_and_small(whole: Path) -> None:
    assert {path.stem for path in (whole / "figures").glob("*.png")} == ALL
    assert {path.stem for path in (whole / "figures").glob("*.pdf")} == ALL
    assert (whole / "study.html").stat().st_size < 2 * 2**20
    with Image.open(whole / "figures" / "scaling.png") as picture:
        assert abs(picture.width - 900) <= 1
    assert (whole / "figures" / "scaling.png").stat().st_size < 100_000
    assert (whole / "figures" / "scaling.svg").stat().st_size < 100_000


def test_a_column_is_as_wide_as_a_paper_has_it_and_fonts_are_embedded(whole: Path) -> None:
    """Sizes from the PDF's own box, in points."""
    for name, inches in (("scaling", 6.9), ("scaling_column", 3.3), ("laws", 3.3), ("tasks", 6.9)):
        text = (whole / "figures" / f"{name}.pdf").read_bytes()
        box = [float(part) for part in text.split(b"/MediaBox [")[1].split(b"]")[0].split()]
        assert box[2] == pytest.approx(72 * inches, abs=0.5)
        assert b"/FontFile2" in text  # TrueType outlines
        assert b"/Type3" not in text


def test_lines_differ_in_grey_by_marker_and_dash() -> None:
    from aim.study.shown import plots

    looks = [plots.look(i) for i in range(24)]
    assert len({f"{look['marker']} {look['linestyle']}" for look in looks}) == 24
    assert len(set(plots.MARKERS)) == len(plots.MARKERS) == len(plots.COLOURS)


def test_the_json_is_the_study_with_null_for_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "draw", lambda study, folder: [])
    study = example(trunks={"a": 1000, "b": 2000}, adapters=["frozen", "aim"], shares=[1.0], seeds=1)
    study["curves"][0]["mean"][0] = float("nan")
    study["thresholds"][0]["high"] = float("inf")
    write(study, tmp_path)
    text = (tmp_path / "study.json").read_text()
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read["curves"][0]["mean"][0] is None
    assert read["thresholds"][0]["high"] is None
    study["curves"][0]["mean"][0] = study["thresholds"][0]["high"] = None
    assert read == json.loads(json.dumps(study))
    assert sum(line.startswith('  {"name": "trunk=a') for line in text.splitlines()) == 2  # a line for each cell


def test_one_study_gives_one_page_and_one_figure(tmp_path: Path) -> None:
    first, second = (write(table_example(), tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(table_example(), tmp_path)
    before = (tmp_path / "figures" / "scaling.png").read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        write(table_example(), tmp_path)
    assert (tmp_path / "figures" / "scaling.png").read_bytes() == before
    assert not list(tmp_path.rglob(".*"))


def test_without_matplotlib_there_is_a_line_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    paths = write(table_example(), tmp_path)
    assert [path.name for path in paths] == ["study.html", "study.md", "study.json"]
    page = paths[0].read_text(encoding="utf-8")
    assert "No charts, as they need matplotlib" in page
    assert 'role="img"' not in page
    assert capsys.readouterr().err == "aim: no figures, as they need matplotlib: pip install 'aim-video[study]'\n"


def test_matplotlib_is_imported_late() -> None:
    code = "import sys, aim.study.shown.output; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


ODD: dict[str, dict[str, Any]] = {
    "one size": example(trunks={"only": 1000}, shares=[0.5, 1.0], seeds=2),
    "two sizes, one seed": example(trunks={"a": 10, "b": 20}, shares=[1.0], seeds=1, adapters=["frozen", "aim"]),
    "one adapter": example(adapters=["aim"], shares=[1.0], axes=["parameters"]),
    "chance": example(adapters=["frozen"], shares=[1.0]),
    "many adapters": example(adapters=[f"adapter {i}" for i in range(20)], shares=[1.0], seeds=1, axes=["parameters"]),
    "a table": table_example(),
    "nothing": {**table_example(), "curves": [], "summary": []},
    "no curves": {**example(shares=[1.0]), "curves": []},
    "strange names": example(
        trunks={"<b>\u5c0f$x_2$": 10, "_b|c": 100, "\u00e9" * 80: 1000, "d\n`e`": 10000}, adapters=["_$a$", "<i>&amp;"],
        shares=[1.0], seeds=1, axes=["parameters"],
    ),
}  # fmt: skip


def all_nan(study: dict[str, Any]) -> dict[str, Any]:
    """A study without finished cells or numbers in its curves, so no law has a point."""
    study = json.loads(json.dumps(study)) | {"laws": []}
    for curve in study["curves"]:
        curve |= {key: [float("nan")] * len(curve["scale"]) for key in ("mean", "low", "high")} | {"fit": None}
    for cell in study["cells"]:
        cell |= {"state": "failed", "why": "no space left", "scores": {}, "trunk_error": None}
    return study


ODD["nan"] = all_nan(ODD["two sizes, one seed"])


SLOW = {"one size", "two sizes, one seed", "one adapter", "many adapters", "chance"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in ODD])
def test_odd_studies_are_drawn(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are errors here, those of matplotlib among them."""
    monkeypatch.setattr(figures, "TASKS", 4)  # many panels take seconds
    paths = write(ODD[name], tmp_path)
    assert all(path.stat().st_size for path in paths)
    text = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert not re.search(r"\b(nan|inf|None)\b", text.replace("became nan at", ""))
    pictures = list((tmp_path / "figures").glob("*.png"))
    assert bool(pictures) == (name not in ("nothing", "no curves", "nan")) or name == "no curves"
    for path in pictures:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L"))
            assert (pixels < 128).mean() > 0.002  # something is drawn
            assert (pixels[[0, -1]] > 250).all()  # and nothing crosses the edge


def test_a_point_lies_where_its_value_is(tmp_path: Path) -> None:
    """A line from 10 to 90 % at 10 and 1000, in the SVG of the page: at the ends of a logarithmic axis."""
    from aim.study.shown.page import Album
    from aim.study.shown.views import Study

    study = example(trunks={"a": 1, "b": 2, "c": 3}, adapters=["aim"], shares=[1.0], seeds=2, axes=["parameters"])
    curve = next(c for c in study["curves"] if c["score"] == "top1" and c["task"] == "all")
    curve |= {"scale": [10.0, 100.0, 1000.0], "mean": [0.1, None, 0.9], "low": [0.0, None, None], "high": [0.2] * 3}
    curve |= {"threshold": [100.0, None, None], "fit": None}
    for place, cell in zip([10.0, 10.0, 100.0, 100.0, 1000.0, 1000.0], study["cells"], strict=True):
        cell |= {"parameters": place, "state": "done"}
    study["cells"][-1]["state"] = "failed"
    it = Study(study)
    drawn = Album(it).picture("", it.find(task="all", score="top1"))
    assert drawn is not None
    points = re.findall(r'<g><title>([^<]*)</title>.*?<use [^>]*x="([^"]+)" y="([^"]+)" style="([^"]*)"', drawn.svg)
    assert len(points) == 2
    (said, *first, filled), (_, *last, hollow) = points
    left, right, top, bottom = 46.0, 350.0, 12.0, 194.0  # of the axes
    (x, y), (x_last, y_last) = (map(float, place) for place in (first, last))
    assert x - left == pytest.approx(right - x_last, abs=0.11)
    assert (x + x_last) / 2 == pytest.approx((left + right) / 2, abs=0.11)
    assert (y, y_last) == pytest.approx((bottom - 0.1 * (bottom - top), bottom - 0.9 * (bottom - top)), abs=0.06)
    assert filled.startswith("fill: var(--s0)")
    assert hollow.startswith("fill: var(--ground)")
    assert drawn.svg.count('class="bridge"') == 1  # no line over the hole but a bridge
    assert "fill: none; stroke: var(--s0); stroke-width: 2" not in drawn.svg
    chance = re.findall(r'<g class="chance"><path d="M 46 ([\d.]+) L 350', drawn.svg)
    assert [float(height) for height in chance] == pytest.approx([bottom - (bottom - top) / 8], abs=0.06)
    threshold = re.findall(r'<g class="threshold"><path d="M ([\d.]+) 194 L', drawn.svg)
    assert [float(place) for place in threshold] == pytest.approx([(left + right) / 2], abs=0.11)
    assert "10 parameters: 10.0 (0.0 to 20.0), 2 seeds" in said


def test_the_page_takes_its_colours_from_its_style(whole: Path) -> None:
    """Readable in dark mode; the figure for papers and README has its own colours."""
    page = (whole / "study.html").read_text(encoding="utf-8")
    drawn = "".join(re.findall(r'<svg viewBox="[^"]*" role="img".*?</svg>', page))
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{3,6})", drawn)) == set()
    assert {"var(--s0)", "var(--quiet)", "var(--rule)", "var(--ground)"} <= set(re.findall(r"var\([^)]*\)", drawn))
    assert "var(--" not in (whole / "figures" / "scaling.svg").read_text(encoding="utf-8")


def test_the_summary_says_what_is_not_there(whole: Path) -> None:
    text = (whole / "study.md").read_text(encoding="utf-8")
    assert "| frozen | 11.2 % (10.2 % to 12.3 %) |" in text
    assert "out of memory" in text
    assert "- **too few** (too few scales, or too noisy ones, to tell), 0\n" in text
    assert f"{PAIRS[0]} (frozen)" in text
    without = output.summarise({**example(shares=[1.0]), "mirages": []})
    assert "No score that counts right answers jumps." in without


def test_markdown_shows_names_as_they_are() -> None:
    text = output.summarise(ODD["strange names"])
    assert "\\<b\\>\u5c0f\\$x_2\\$" in text
    assert "d \\`e\\`" in text
    rows = [line for line in text.splitlines() if line.startswith("| \\_")]
    assert rows
    assert all(row.replace("\\|", "").count("|") == 6 for row in rows)
