"""`report.html`: one self-contained page about runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aim.engine.run import content
from aim.engine.scores import metrics
from aim.engine.scores.metrics import Metric
from aim.engine.scores.predictions import Predictions
from aim.ground.amounts import tuned_of
from aim.ground.choices import name_of
from aim.ground.clock import clock
from aim.pages.environment import environment
from aim.pages.geometry import short_commit
from aim.report import charts, data, doubtful, several, statistics
from aim.report.runs import RunData, main_of, paper
from aim.report.table import MOST, SHOWN, columns_of

EXAMPLES = 24  # of the worst mistakes and of the least sure right ones, over all runs of a page; of doubted labels
WHOLE_MATRIX = 50  # classes; above, only the most confused pairs
PAIRS = {True: 8, False: 24}  # most confused, beside a matrix and without one
BAD = 200  # named videos


def render(runs: Sequence[RunData], root: Path | None = None) -> str:
    """The page of these runs; `root` is the videos' folder, if it has changed since the test."""
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
    found = run.found if run.found is not None and len(run.found.index) else None
    of_found = None if found is None else tested(found, most, root, run.temperature)
    return {
        "name": run.name,
        "kind": "training" if run.trains else "test",
        "headline": headline(run),
        "paper": paper(str(run.results.get("name", "")), run.settings) if run.results else "",
        "facts": facts(run),
        "choice": choice(run),
        "bad": list(run.bad.items())[:BAD],
        "num_bad": len(run.bad),
        "found": of_found and of_found | {"temperature_of": run.temperature_of},
    }


def headline(run: RunData) -> dict[str, Any]:
    """The main scores of a run, the interval of the first of them, its videos, and causes for doubt."""
    results, found = run.results, run.found if run.found is not None and len(run.found.index) else None
    values: Mapping[str, Any] = results or (found.results() if found is not None else {})  # none could be read
    count = values.get("num_videos") or (len(found.index) if found is not None else 0)
    main = [metric for metric in metrics.METRICS if metric.main and metric.name in values]
    of_test = f"{count} {content.kind(values)}videos, {values.get('views')} views"
    ends = interval(values, main[0].name, count) if main and main[0].per_video else None
    return {
        "value": values[main[0].name] if main else None,
        "scores": [(f"{values[each.name]:.2f}", each.words) for each in main],
        "baseline": ", ".join(f"{run.baseline[x.name]:.2f} % {x.words}" for x in main if x.name in run.baseline),
        "interval": ends,
        "interval_said": said_of_interval(values, main[0].words, count, ends) if ends else "",
        "what": of_test if results else validation_of(found) if found is not None else "",
        "state": "" if results else run.progress,
        "doubts": doubts(values, found),
    }


def interval(values: Mapping[str, Any], name: str, count: int) -> tuple[float, float]:
    """The 95 % interval over videos of a score in percent; for folds over all their videos together."""
    if "folds" in values:
        low, high = values["folds"]["interval"]
        return low, high
    return statistics.interval(round(values[name] * count / 100), count)


def said_of_interval(values: Mapping[str, Any], words: str, count: int, ends: tuple[float, float]) -> str:
    """The interval of a score and its description: for folds it isn't of their mean."""
    said = f"{words} {ends[0]:.1f} to {ends[1]:.1f} % (95 % bootstrap interval over videos)"
    if "folds" not in values:
        return said
    found = values["folds"]
    mean = f"mean over {found['count']} folds, standard deviation {found['sd']:.1f} %"
    return f"{mean}; all {count} videos together: {found['of_all_videos']:.1f} %, {said}"


def doubts(values: Mapping[str, Any], found: Predictions | None) -> list[str]:
    """Causes to doubt the scores of a result; for an older one by its predictions."""
    said = [f"These videos chose {chosen}."] if (chosen := content.chosen(values)) else []
    one = values.get("one_answer") or (found.results()["one_answer"] if found and "one_answer" not in values else None)
    if one:
        said.append(f"{one['videos']} videos, (nearly) all, get one and the same answer: {one['class']}.")
    return said


def validation_of(found: Predictions) -> str:
    """The validation of these predictions; empty for those of a test."""
    epoch = found.about.get("epoch")
    return "" if epoch is None else f"the validation after epoch {epoch:g}, {len(found.index)} videos"


def facts(run: RunData) -> list[tuple[str, str]]:
    """All settings that affect the number, by name."""
    results = run.results
    if results is None:
        known = {"experiment": str(run.settings.get("name", "-")), **training(run.settings), "folder": str(run.path)}
        return list(known.items())
    trunk = results.get("trunk", {})
    rows = {
        **{x.words: x.beside(results[x.name], run.baseline) for x in metrics.told(results) if not x.main},
        "folds": folds(results),
        **training(run.settings),
        "chosen": content.choice(results),
        "lists": lists(run),
        "tuned parameters": tuned_of(results["params_tuned"], results["params_total"]),
        "GMACs a view": f"{results['gmacs_per_view']:.1f}",
        "trunk": f"{trunk.get('name', '-')} ({str(trunk.get('sha256', '-'))[:8]})",
        "weights": content.weights(results),
        "seed": str(results.get("seed", "-")),
        "machine": f"{results.get('world_size', '-')} x {results.get('device', '-')}, {results.get('precision', '-')}",
        "time": f"{clock(results['seconds'])} ({'training and test' if run.trains else 'test alone'})",
        "classes": str(results.get("num_classes", "")),
        "commit": short_commit(str(results.get("commit") or "-")),
        "folder": str(run.path),
    }
    return [(name, text) for name, text in rows.items() if text]


def folds(results: Mapping[str, Any]) -> str:
    """The mean over folds, its spread, and each; empty for other results."""
    if "folds" not in results:
        return ""
    found = results["folds"]
    each = ", ".join(f"{value:.1f}" for value in found["each"].values())
    whole = f"; of all videos together {found['of_all_videos']:.2f} %" if "of_all_videos" in found else ""
    return f"{found['count']}, mean {found['mean']:.2f} %, standard deviation {found['sd']:.2f}: {each}{whole}"


def training(settings: Mapping[str, Any]) -> dict[str, str]:
    """The most important settings of a training, by name."""
    adapter, clip, train, optim = (settings.get(name) or {} for name in ("adapter", "clip", "train", "optim"))
    sizes = [f"{key} {value}" for key, value in adapter.items() if isinstance(value, float | int)]
    every = f" every {clip.get('stride_frames')}" if clip.get("sampling") != "uniform" else ""
    rows = {
        "adapter": ", ".join([name_of("adapter", adapter), *sizes]) if "kind" in adapter else "",
        "clip": f"{clip['num_frames']} frames{every}, {clip.get('size')} pixels" if "num_frames" in clip else "",
        "length": f"{train['epochs']} epochs, {train.get('batch_size')} clips a step" if "epochs" in train else "",
        "rate": f"{numbers(optim['lr'])}, {optim.get('schedule')} schedule" if "lr" in optim else "",
    }
    return {name: text for name, text in rows.items() if text}


def choice(run: RunData) -> dict[str, Any] | None:
    """The tried heads with their scores; None for a run without a choice."""
    if not (found := (run.results or {}).get("choice")):
        return None
    by = next(metric for metric in metrics.METRICS if metric.validated_words == found["by"])
    scores = [head.get(str(by.validated)) for head in found["heads"]]
    texts = ["diverged" if score is None else by.text(score) for score in scores]
    heads = [
        {**head, "score": score, "text": text} for head, score, text in zip(found["heads"], scores, texts, strict=True)
    ]
    return {**found, "heads": heads}


def numbers(value: float | Sequence[float]) -> str:
    """A number, or several, as text."""
    return ", ".join(f"{each:g}" for each in ([value] if isinstance(value, float | int) else value))


def lists(run: RunData) -> str:
    """The lists of its videos: folder, numbers, and the hashes of training and test."""
    results, data = run.results or {}, run.settings.get("data") or {}
    own = data.get("lists") or {}
    numbers = [f"{count} {own.get(name, name)}" for name, count in results.get("lists", {}).items()]
    hashes = [str(results.get("identity", {}).get("train_hash", ""))[:8], str(results.get("data_hash", ""))[:8]]
    return ", ".join([*([str(data["root"])] if data.get("root") else []), *numbers, *filter(None, hashes)])


def tested(found: Predictions, most: int, root: Path | None, temperature: float | None) -> dict[str, Any]:
    """The parts of a section that come from a test's predictions."""
    from aim.report import strips  # late, as it imports torch

    folder, few = root or Path(found.about["root"]), len(found.classes) <= WHOLE_MATRIX
    videos: Mapping[str, Sequence[Any]]
    if found.several:
        temperature = found.about.get("temperature")
        page: dict[str, Any] = {
            "classes": several.by_class(found),
            "together": several.together(found) if few else None,
        }
        chosen = {"misses": several.worst_misses(found, most), "alarms": several.worst_alarms(found, most)}
        videos = {name: strips.wrong(found, places, folder) for name, places in chosen.items()}
    else:
        page = {
            "classes": statistics.by_class(found),
            "matrix": charts.matrix(found) if few else None,
            "pairs": statistics.most_confused(found, PAIRS[few]),
        }
        sure = {"mistakes": statistics.worst_mistakes(found, most), "unsure": statistics.least_sure(found, most)}
        videos = {name: strips.examples(found, places, folder) for name, places in sure.items()}
    shown = [each for part in videos.values() for each in part]
    return {
        **page,
        **videos,
        "several": found.several,
        "names": found.classes.tolist(),
        "about": validation_of(found),
        "reliability": charts.reliability(found, temperature),
        "doubts": doubts_of(found),
        "examples": len(shown),
        "lost": sum(not each.image for each in shown),
        "folder": str(folder),
    }


def doubts_of(found: Predictions) -> dict[str, Any]:
    """The doubtful labels: the surest, and notes on all."""
    doubts = doubtful.doubtful(found)
    return {"labels": doubts.labels[:EXAMPLES], "text": doubts.text, "any": bool(doubts.labels or doubts.left_out)}


def comparison(runs: Sequence[RunData]) -> dict[str, Any]:
    """Several runs side by side: a table, and the significance of their differences from the first."""
    settings = columns_of(runs, [key for key in SHOWN if key != "seed"])
    rows = [
        {"name": run.name, "at": i + 1, "settings": [cells[i] for cells in settings.values()], **row(run, runs)}
        for i, run in enumerate(runs)
    ]
    return {
        "warning": data.warning(runs),
        "settings": list(settings),
        "beside": MOST,  # settings in the table of numbers; the others have a separate one
        "main": main_of(runs).words,
        "metrics": [main_of(runs).constant_words, *(metric.words for metric in compared(runs))],
        "kinds": [kind for kind in ("training", "test") if any(row["kind"] == kind for row in rows)],
        "rows": rows,
        "tests": differences(runs),
    }


def compared(runs: Sequence[RunData]) -> list[Metric]:
    """The metrics that have a column beside the main one: percentages and shares."""
    told = {each.name for run in runs if run.results for each in metrics.told(run.results)}
    first = main_of(runs)
    return [each for each in metrics.METRICS if each != first and each.unit != "number" and each.name in told]


def row(run: RunData, runs: Sequence[RunData]) -> Mapping[str, Any]:
    """The numbers of a run in the table of several; None if it has none yet."""
    results: Mapping[str, Any] = run.results or {}
    line = headline(run)
    return {
        "kind": "training" if run.trains else "test",
        "state": line["state"],
        "views": results.get("views", run.found.about.get("views", "") if run.found else ""),
        "value": line["value"],
        "interval": line["interval"],
        "of_interval": "all videos " if "folds" in results else "",
        "metrics": [
            (run.baseline.get(main_of(runs).name), "%.2f"),
            *(
                (
                    metric.in_percent(results[metric.name]) if metric.name in results else None,
                    "%.2f" if metric.unit == "percent" else "%.1f",
                )
                for metric in compared(runs)
            ),
        ],
        "params_tuned": results["params_tuned"] / 1e6 if results else None,
        "gmacs": results["gmacs_per_view"] if results else None,
        "seconds": results.get("seconds"),
        "clock": clock(results["seconds"]) if results else "",
    }


def differences(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    """The comparisons with the first run, of each run with predictions of its data."""
    known = [(run.name, run.found, run.found.about.get("data_hash")) for run in runs if run.found is not None]
    return [
        {"first": first, "second": second, "test": test}
        for first, ours, data in known[:1]
        for second, theirs, other in known[1:]
        if other == data
        for test in statistics.paired(ours, theirs)
    ]
