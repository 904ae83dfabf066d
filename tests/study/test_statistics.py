"""Intervals, laws, the rule that sorts curves, tables: against SciPy and curves of a known law."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import curve_fit

from aim.study.findings import tables
from aim.study.findings.analysis import analyse, threshold
from aim.study.findings.curves import classify_curve
from aim.study.findings.intervals import Interval, bootstrap
from aim.study.findings.laws import evaluate, fit_law
from aim.study.shown.views import Study
from scripts.measure_study_rule import error_rates
from tests.conftest import ROOT
from tests.messages import named, refused

SIZES, VIDEOS = np.geomspace(1e4, 1e7, 5), np.geomspace(100, 10_000, 4)
TRUE = {"A": 40.0, "a": 0.2, "b": 0.3, "E": 0.25}


def simulated(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a multiplicative law, with an error of 1 %."""
    x, d = (each.ravel() for each in np.meshgrid(SIZES, VIDEOS))
    loss = TRUE["A"] * x ** -TRUE["a"] * d ** -TRUE["b"] + TRUE["E"]
    return x, d, loss * np.exp(0.01 * np.random.default_rng(seed).standard_normal(len(x)))


def test_the_bootstrap_agrees_with_scipys() -> None:
    values = np.random.default_rng(0).exponential(size=200)
    ours = bootstrap(values, repeats=5000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=1).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.02)
    assert tuple(bootstrap([*values, np.nan], repeats=5000)) == tuple(ours)


def test_a_law_is_that_of_an_independent_fit() -> None:
    x, d, loss = simulated(0)
    law = fit_law(x, d, loss, repeats=20)

    def logarithm(points: tuple[np.ndarray, np.ndarray], scale: float, a: float, b: float, e: float) -> np.ndarray:
        return np.log(scale * (points[0] / 1e5) ** -a * (points[1] / 1e3) ** -b + e)

    (scale, a, b, e), _ = curve_fit(logarithm, (x, d), np.log(loss), p0=(1, 0.3, 0.3, 0.1))
    found = {name: each.value for name, each in law.parameters.items()}
    assert found == pytest.approx({"A": scale * 1e5**a * 1e3**b, "a": a, "b": b, "E": e}, rel=0.2)
    assert law.extrapolates
    assert evaluate(found, np.array(1e8), np.array(1e4)) == pytest.approx(
        TRUE["A"] * 1e8**-0.2 * 1e4**-0.3 + TRUE["E"], rel=0.05
    )


@pytest.mark.slow
def test_exponents_lie_within_their_intervals_in_nine_of_ten_simulations() -> None:
    covered = []
    for seed in range(100):
        law = fit_law(*simulated(seed), repeats=100)
        covered += [law.parameters[name].low <= TRUE[name] <= law.parameters[name].high for name in "ab"]
    assert np.mean(covered) >= 0.9


def test_a_law_is_neither_fitted_to_one_scale_nor_extrapolated_from_noise() -> None:
    with refused("scale", "curve"):
        fit_law([1e5] * 3, [100] * 3, [1.0, 1.1, 0.9])
    x, d, _ = simulated(0)
    law = fit_law(x, d, 1 + 0.1 * np.random.default_rng(1).standard_normal(len(x)), repeats=50)
    assert not law.extrapolates
    assert "4.4" in law.why
    assert "4.8" in law.why
    level = fit_law(x, d, 2.08 + 0.01 * x**-0.1, repeats=50)  # a trend that means nothing
    assert not level.extrapolates
    assert "no trend to extrapolate" in level.why


PYTHIA = {"pythia-70m": "smooth", "pythia-1.4b": "smooth"}
PUBLISHED = ROOT / "tests" / "study" / "published"


@pytest.mark.parametrize(
    ("table", "better", "kinds"),
    [
        ("aim_data", "high", {"AIM": "smooth", "TimeSformer": "smooth"}),
        ("aim_ratio", "high", {"AIM": "flat"}),  # the paper's four ratios differ by less than the error of their test
        pytest.param("lambada_accuracy", "high", PYTHIA, marks=pytest.mark.slow),
        pytest.param("lambada_loss", "low", PYTHIA, marks=pytest.mark.slow),
    ],
)
def test_what_the_rule_says_of_published_numbers(table: str, better: Literal["high", "low"], kinds: object) -> None:
    curves = tables.read(PUBLISHED / f"{table}.csv", better=better)
    found = analyse(curves, [], {"score": {"thresholded": False}}, {"scale": "scale"})
    assert {curve["series"]: curve["kind"] for curve in found["curves"]} == kinds
    if table == "lambada_accuracy":  # which is zero until the loss has fallen by a third
        assert [each["scale"] for each in found["thresholds"]] == [1000, 1000]
        assert [each["scale"] for each in lambada_loss()["thresholds"]] == [64, 512]


def lambada_loss() -> dict[str, Any]:
    """The report on Pythia's loss on LAMBADA over training steps."""
    curves = tables.read(PUBLISHED / "lambada_loss.csv", better="low")
    return analyse(curves, [], {"score": {"thresholded": False}}, {"scale": "scale"})


@pytest.mark.slow
def test_the_rule_errs_as_seldom_as_it_says() -> None:
    kept = json.loads((ROOT / "aim" / "study" / "findings" / "error_rates.json").read_text(encoding="utf-8"))
    assert kept["simulations"] >= 200
    for found in (kept, error_rates(40, seed=7)):
        for each in found["grids"].values():
            assert each["false_emergent"] <= 0.05
            assert each["found_steps"] >= 0.9
        for each in found["grids_of_tests"].values():  # whose own error hides some steps
            assert each["false_emergent"] <= 0.05
            assert each["found_steps"] + each["steps_too_few"] >= 0.9
    assert error_rates(3) == error_rates(3)


def test_what_the_rule_says_of_curves_that_tell_little() -> None:
    scale, rng = np.repeat([1e3, 1e4, 1e5, 1e6], 3), np.random.default_rng(0)
    chance = 0.125 + 0.01 * rng.standard_normal(12)
    assert classify_curve(scale, chance, 0.125).kind == "flat"
    risen = chance + np.repeat([0.0, 0.2, 0.4, 0.6], 3)
    assert classify_curve(scale, risen, 0.125).kind == "smooth"
    assert classify_curve(scale, 1 - risen, 0.125).kind == "falling"
    single = np.geomspace(1, 1e4, 7)  # one value a scale, which gives no error
    assert classify_curve(single, [0.6, 0.5, 0.45, 0.4, 0.3, 0.2, 0.1], 0.1).kind == "falling"
    assert classify_curve(single, [0.5] * 7, 0.1).kind == "flat"
    assert classify_curve(scale, -risen, -0.125, "low").kind == "smooth"
    lacking = np.where(np.arange(12) == 5, np.nan, risen)
    assert classify_curve(scale, lacking, 0.125).kind == "smooth"
    assert "left out" in classify_curve(scale, lacking, 0.125).why
    few = classify_curve([1e3] * 3, risen[:3], 0.125)
    assert (few.kind, few.why) == ("too few", "one scale only: no curve can be fitted")
    assert classify_curve(scale, np.full(12, np.nan), 0.125).kind == "too few"


def test_a_jump_is_no_jump_of_the_model_where_a_continuous_score_is_smooth() -> None:
    rng = np.random.default_rng(0)
    scale = np.repeat(np.geomspace(1e3, 1e7, 8), 3)
    smooth = np.repeat(1 / (1 + np.exp(-np.linspace(-3, 3, 8))), 3)
    jump = np.repeat([0.0] * 4 + [0.8] * 4, 3)
    shared = {"task": "all", "series": "aim", "axis": "parameters", "seed": np.tile([0, 1, 2], 8)}
    curves = [
        tables.Curve(score="exact8", scale=scale, value=jump + 0.01 * rng.standard_normal(24), chance=0.0, **shared),
        tables.Curve(score="margin", scale=scale, value=smooth + 0.01 * rng.standard_normal(24), chance=0.0, **shared),
    ]
    scores = {"exact8": {"name": "8 in a row", "thresholded": True}, "margin": {"name": "margin", "thresholded": False}}
    found = analyse(curves, [], scores, {"parameters": "parameters"})
    assert [curve["kind"] for curve in found["curves"]] == ["emergent", "smooth"]
    assert [each["smooth_in"] for each in found["mirages"]] == [["margin"]]
    assert found["summary"][0].startswith("Above chance, over parameters: aim from ")
    assert (
        found["summary"][1] == "Of 1 curve of thresholded scores 1 jumps from chance (aim, 8 in a row over parameters)."
    )
    assert any("the score makes the jump" in text.replace("\n", " ") for text in found["summary"])
    alone = analyse(curves[:1], [], {"exact8": scores["exact8"]}, {"parameters": "parameters"})
    assert any(text.startswith("No continuous score was given") for text in alone["summary"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scale,score,seed\n1,2,3\n", ["table.csv", "column", "task"]),
        ("scale,score,seed,task\n", ["table.csv", "rows"]),
        ("scale,score,seed,task\n1e3,high,0,a\n", ["2", "score=high"]),
        ("scale,score,seed,task\n0,0.5,0,a\n", ["2", "scale=0"]),
        ("scale,score,seed,task\n1,0.5,0\n", ["table.csv", "2", "4", "cells"]),
        ("scale,score,seed,task,chance\n1,0.5,0,a,0.1\n2,0.5,0,a,0.2\n", ["task", "chance", "0.1", "0.2"]),
    ],
)
def test_a_table_that_is_none_is_one_line(tmp_path: Path, text: str, said: list[str]) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8")
    with refused(*said):
        tables.read(path)


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    with refused("none.csv", "columns"):
        tables.read(tmp_path / "none.csv")


def test_a_threshold_of_two_scales_says_no_interval_that_has_no_ends() -> None:
    curve = SimpleNamespace(axis="videos", series="none", task="all", scale=[48.0, 96.0])
    judged = SimpleNamespace(curve=curve, verdict=SimpleNamespace(threshold=Interval(96.0, 0.0, math.inf)))
    assert "(" not in threshold(judged, {})["sentence"]
    judged.verdict.threshold = Interval(96.0, 48.0, math.inf)
    named(threshold(judged, {})["sentence"], "48", "96", "95")


@pytest.mark.parametrize(("scores", "main"), [(["map", "macro_f1"], "map"), (["margin", "top1"], "top1")])
def test_the_score_of_the_page_is_the_one_that_thresholds_are_told_for(scores: list[str], main: str) -> None:
    data = {"scores": {name: {"thresholded": name != "map"} for name in scores}}
    study = Study(data)
    study.__dict__["scores"] = scores
    assert study.score == main
