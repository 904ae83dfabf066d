"""`report.html`: one self-contained page about runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aim.engine.scores import metrics
from aim.engine.scores.metrics import Metric
from aim.engine.scores.predictions import Predictions
from aim.ground.clock import clock
from aim.pages.environment import environment
from aim.pages.geometry import short_commit
from aim.report import charts, data, statistics
from aim.report.runs import RunData, paper
from aim.report.table import MOST, SHOWN, columns_of

EXAMPLES = 24  # of the worst mistakes and of the least sure right ones, over all runs of a page; of doubted labels
WHOLE_MATRIX = 50  # classes; above, the most confused pairs alone
PAIRS = {True: 8, False: 24}  # most confused, beside a matrix and without one
BAD = 200  # videos that are named


def render(runs: Sequence[RunData], root: Path | None = None) -> str:
    """The page of these runs; `root` is where the videos lie, where that isn't where they lay in the test."""
    most = EXAMPLES // len(runs)
    trained = [run.name for run in runs if run.log]
    return (
        environment("aim.report")
        .get_template("report.html")
        .render(
            program="aim.report",
            runs=[section(run, most, root) for run in runs],
            comparison=comparison(runs) if len(runs) > 1 else None,
            curves=charts.curves(runs),
            curves_of=trained[0] if len(trained) == 1 < len(runs) else "",
            title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        )
    )


def section(run: RunData, most: int, root: Path | None) -> dict[str, Any]:
    """The section of a run."""
    found = run.found
    page: dict[str, Any] = {
        "name": run.name,
        "kind": "training" if run.trains else "test",
        "headline": headline(run),
        "paper": paper(str(run.results.get("name", "")), run.settings) if run.results else "",
        "facts": facts(run),
        "bad": list(run.bad.items())[:BAD],
        "num_bad": len(run.bad),
        "found": None,
    }
    if found is not None and len(found.index):
        page["found"] = tested(found, most, root, run.temperature) | {"temperature_of": run.temperature_of}
    return page


def headline(run: RunData) -> dict[str, Any]:
    """The main number of a run, its interval and its videos."""
    results, found = run.results, run.found
    if results is None:
        found = found if found is not None and len(found.index) else None  # not one video could be read
        top1 = None if found is None else 100 * float(found.right.mean())
        what = "" if found is None else validation_of(found)
        return {
            "top1": top1,
            "interval": None if found is None else _interval(found),
            "what": what,
            "state": run.progress,
        }
    count = results.get("num_videos") or (len(found.index) if found is not None else 0)
    low, high = statistics.interval(round(results["top1"] * count / 100), count)
    return {
        "top1": results["top1"],
        "interval": (low, high),
        "what": f"{count} videos, {results['views']} views",
        "state": "",
    }


def validation_of(found: Predictions) -> str:
    """The validation that predictions are of; nothing for those of a test."""
    epoch = found.about.get("epoch")
    return "" if epoch is None else f"the validation after epoch {epoch:g}, {len(found.index)} videos"


def _interval(found: Predictions) -> tuple[float, float]:
    return statistics.interval(int(found.right.sum()), len(found.index))


def facts(run: RunData) -> list[tuple[str, str]]:
    """Everything that decided the number, by name."""
    results = run.results
    if results is None:
        return [("experiment", str(run.settings.get("name", "-"))), ("folder", str(run.path))]
    trunk, epochs = results.get("trunk", {}), results.get("epochs", "-")
    rows = {
        **{each.words: each.text(results[each.name]) for each in metrics.METRICS[1:] if each.name in results},
        "tuned parameters": f"{results['params_tuned'] / 1e6:.2f} of {results['params_total'] / 1e6:.2f} M",
        "GMACs a view": f"{results['gmacs_per_view']:.1f}",
        "trunk": f"{trunk.get('name', '-')} ({str(trunk.get('sha256', '-'))[:8]})",
        "weights": f"{results.get('weights', '-')}, after {epochs} epochs, seed {results.get('seed', '-')}",
        "machine": f"{results.get('world_size', '-')} x {results.get('device', '-')}, {results.get('precision', '-')}",
        "time": f"{clock(results['seconds'])} ({'training and test' if run.trains else 'test alone'})",
        "validation data": f"{results.get('num_classes', '-')} classes, {str(results.get('data_hash', '-'))[:8]}",
        "commit": short_commit(str(results.get("commit") or "-")),
        "checkpoint": str(results.get("checkpoint", "")),
        "folder": str(run.path),
    }
    return [(name, text) for name, text in rows.items() if text]


def tested(found: Predictions, most: int, root: Path | None, temperature: float | None) -> dict[str, Any]:
    """The parts of a section that come from a test's predictions."""
    from aim.report import strips  # late, as it takes the time of torch's import

    folder = root or Path(found.about["root"])
    classes = statistics.by_class(found)
    mistakes, unsure = (
        strips.examples(found, choose(found, most), folder)
        for choose in (statistics.worst_mistakes, statistics.least_sure)
    )
    lost = sum(not each.image for each in (*mistakes, *unsure))
    few = len(found.classes) <= WHOLE_MATRIX
    return {
        "about": validation_of(found),
        "classes": classes,
        "matrix": charts.matrix(found) if few else None,
        "pairs": statistics.most_confused(found, PAIRS[few]),
        "reliability": charts.reliability(found, temperature),
        "mistakes": mistakes,
        "unsure": unsure,
        "doubts": statistics.doubted_labels(found, EXAMPLES),
        "lost": lost,
        "folder": str(folder),
    }  # fmt: skip


def comparison(runs: Sequence[RunData]) -> dict[str, Any]:
    """Several runs side by side: a table, and whether their differences from the first are more than chance."""
    settings = columns_of(runs, [key for key in SHOWN if key != "seed"])
    rows = [
        {"name": run.name, "at": i + 1, "settings": [cells[i] for cells in settings.values()], **row(run)}
        for i, run in enumerate(runs)
    ]
    return {
        "warning": data.warning(runs),
        "settings": list(settings),
        "beside": MOST,  # settings in the table of numbers; the others have one of their own
        "metrics": [metric.words for metric in compared()],
        "kinds": [kind for kind in ("training", "test") if any(row["kind"] == kind for row in rows)],
        "rows": rows,
        "tests": differences(runs),
    }


def compared() -> list[Metric]:
    """The metrics that have a column beside the main one: percentages and shares."""
    return [metric for metric in metrics.METRICS[1:] if metric.unit != "number"]


def row(run: RunData) -> Mapping[str, Any]:
    """The numbers of a run in the table of several; None where it has none yet."""
    results: Mapping[str, Any] = run.results or {}
    line = headline(run)
    return {
        "kind": "training" if run.trains else "test",
        "state": line["state"],
        "views": results.get("views", run.found.about.get("views", "") if run.found else ""),
        "top1": line["top1"],
        "interval": line["interval"],
        "metrics": [
            (
                metric.in_percent(results[metric.name]) if metric.name in results else None,
                "%.2f" if metric.unit == "percent" else "%.1f",
            )
            for metric in compared()
        ],
        "params_tuned": results["params_tuned"] / 1e6 if results else None,
        "gmacs": results["gmacs_per_view"] if results else None,
        "seconds": results.get("seconds"),
        "clock": clock(results["seconds"]) if results else "",
    }


def differences(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """Each run that has predictions of the first one's data, compared with it."""
    first, *others = [run for run in runs if run.found is not None] or [runs[0]]
    found = []
    for run in others:
        if first.found is not None and run.found is not None and _data(run) == _data(first):
            tests = statistics.paired(first.found, run.found)
            found += [{"first": first.name, "second": run.name, "test": test} for test in tests]
    return found


def _data(run: RunData) -> object:
    return run.found.about.get("data_hash") if run.found is not None else None
