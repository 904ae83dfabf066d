from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aim.pages.drawing import Box, Stroke
from aim.pages.geometry import CHART
from aim.report import charts
from aim.report.runs import read
from tests.report.made import predicted, run_directory


def lines_of(chart: charts.Chart) -> list[list[tuple[float, float]]]:
    """The places of each line; thicker ones are dots, thinner ones the axes."""
    return [list(x.points) for x in chart.drawing.shapes if isinstance(x, Stroke) and x.width == 2]


def test_a_line_goes_where_its_values_are() -> None:
    chart = charts.line_chart("loss", [charts.Line("a", 0, False, [(0.0, 4.0), (1.0, float("nan")), (2.0, 1.0)])])
    assert chart is not None
    (x0, y0), (x1, y1) = lines_of(chart)[0]
    assert (x0, x1) == (CHART.left, CHART.right)
    assert y0 == CHART.top  # the highest value at the top tick, 4
    assert y1 == pytest.approx(CHART.top + 0.75 * (CHART.bottom - CHART.top), abs=0.1)
    assert chart.drawing.label == "loss: a ends at 1"
    assert charts.line_chart("loss", [charts.Line("a", 0, False, [(0.0, float("inf"))])]) is None


def test_long_logs_become_short_lines() -> None:
    chart = charts.line_chart(
        "loss", [charts.Line("a", 0, False, [(i / 100, 1.0 + i % 2 if i > 50 else 0.0) for i in range(5000)])]
    )
    assert chart is not None
    points = lines_of(chart)[0]
    assert len(points) == charts.POINTS
    assert np.ptp([y for _, y in points[9:]]) < 25  # of means


def test_runs_are_laid_over_each_other_and_keep_their_colours(tmp_path: Path) -> None:
    runs = [read(run_directory(tmp_path / name, {}, "seed: 0"), whole=True) for name in ("a", "b")]
    found = charts.curves(runs)
    assert [chart.title for chart in found] == [
        "Training loss", "Validation top-1", "Learning rate", "Time spent waiting for data",
    ]  # fmt: skip
    assert {tuple((line.name, line.colour) for line in chart.lines) for chart in found} == {(("a", 0), ("b", 1))}
    alone = charts.curves(runs[:1])[1]
    assert [(line.name, line.last) for line in alone.lines] == [("validation", "80.0 %"), ("training clips", "30.0 %")]
    unvalidated = replace(runs[0], log=[line for line in runs[0].log if "loss" in line])
    assert [line.name for line in charts.curves([unvalidated])[1].lines] == ["training clips"]
    assert charts.curves([]) == []


def test_bars_stand_where_accuracy_is() -> None:
    found = charts.reliability(predicted([0, 1, 0], [[0.95, 0.05], [0.9 + 0.06, 0.04], [0.55, 0.45]]))
    low, high = (shape for shape in found.drawing.shapes if isinstance(shape, Box))
    expected = [x.points for x in found.drawing.shapes if isinstance(x, Stroke) and x.colour == "var(--warn)"]
    bottom, height = CHART.bottom, CHART.bottom - CHART.top
    assert low.y == CHART.top  # one of one is right
    assert high.y == pytest.approx(bottom - height / 2, abs=0.1)  # one of two
    assert low.y + low.height == high.y + high.height == bottom
    assert [y for _, y in expected[1]] == pytest.approx([bottom - 0.955 * height] * 2, abs=0.1)
    assert (low.opacity, high.opacity) == (0.25 + 0.75 * 0.5, 1.0)
    assert low.hint == "1 videos, 55 % sure: 100 % right"


def test_the_diagram_of_a_calibrated_model_is_of_what_predict_shows() -> None:
    found = predicted([0, 1, 0], [[0.8, 0.2]] * 3)
    diagram = charts.reliability(found, temperature=2.0)
    expected = 0.8**0.5 / (0.8**0.5 + 0.2**0.5)  # 2 of 3 are right; each is so sure
    assert diagram.error == pytest.approx(100 * abs(expected - 2 / 3), abs=0.05)
    assert diagram.before == charts.reliability(found).error == pytest.approx(100 * (0.8 - 2 / 3), abs=0.05)


def test_a_matrix_has_true_classes_in_rows() -> None:
    found = charts.matrix(predicted([0, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]))
    assert found == [[(1, 0.5), (1, 0.5)], [(0, 0.0), (1, 1.0)]]
