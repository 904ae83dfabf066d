"""Report runs: a Markdown table on the terminal, and report.html, one self-contained page.

    python -m aim.report runs/demo                            # writes runs/demo/report.html
    python -m aim.report runs/demo runs/demo,adapter=none     # side by side, in report.html here
    python -m aim.report runs/* runs/eval/* out=FILE.html     # trainings and tests of aim.eval
    python -m aim.report runs/k400 data.root=DIR              # its videos were moved
    python -m aim.report runs/NAME                            # the folds of data.fold=all/10, pooled

Runs that differ only in their seed share a row: mean, and in brackets the smallest and the largest; other differing
settings have a column. Folds of one setting are one result: mean and standard deviation over folds, all videos
together; also in folds.json. The doubtful labels of one run, or of its folds, are in doubtful.csv beside the page. A
run that still trains is in the page alone. Of several arguments, such as runs/*, those that are no runs are left out.
"""

from collections.abc import Sequence
from pathlib import Path

from aim.ground import files
from aim.ground.errors import UserError, printable, say
from aim.ground.paths import path_of
from aim.report import data, doubtful, folds
from aim.report.runs import comparable, distinct, read, reportable
from aim.report.table import label, table
from aim.shell import command

OPTIONS = ("out", "data.root")


def parse(arguments: Sequence[str]) -> tuple[list[Path], dict[str, Path]]:
    """The run directories, and the options among the arguments. Raises UserError if there are none."""
    options, paths = dict[str, Path](), list[Path]()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and key in OPTIONS:
            options[key] = path_of(value)
        else:
            paths.append(path_of(argument))
    if not paths or arguments[0].startswith("-"):
        raise UserError("name run directories: python -m aim.report runs/demo ... [out=FILE.html] [data.root=DIR]")
    if "data.root" in options and not options["data.root"].is_dir():
        raise UserError(f"data.root={options['data.root']} is not a folder; give the folder of the videos")
    return paths, options


def main(arguments: Sequence[str]) -> None:
    """Print the table of the runs named on the command line, and write the page."""
    with command.reported(debug=False):
        command.answer_version()
        if {"-h", "--help"} & {*arguments}:
            print((__doc__ or "").strip())
            return
        paths, options = parse(arguments)
        folders = reportable(paths)
        runs, said = folds.pooled(comparable([read(folder, whole=True) for folder in folders]))
        runs = distinct(runs)
        page = options.get("out", runs[0].path / "report.html" if len(runs) == 1 else Path("report.html"))
        if done := [run for run in runs if run.results is not None]:
            print(printable(table(done)))
        compared = [run for run in runs if run.results is not None or folds.fold_of(run) is None]
        for problem in filter(None, [*said, data.warning(compared)]):
            say(f"warning: {problem}")
        for run in done:
            if "folds" in (run.results or {}):
                place = page.with_name(folds.FILE) if len(runs) == 1 else run.path / folds.FILE
                files.write_json(place, run.results)
        if len(runs) == 1 and (found := runs[0].found) is not None and len(found.index):
            doubts, file = doubtful.doubtful(found), page.with_name(doubtful.FILE)
            files.write_csv(file, doubtful.COLUMNS, (doubt.row for doubt in doubts.labels))
            say(f"{file}: {doubts.text}, of {len(found.index)} videos")
        for run in runs:
            if run.results is None:
                say(f"{label(run)} has no results yet: {run.progress}")
        from aim.report.page import render  # late, as it imports jinja2 and, for frames, torch

        text = render(runs, options.get("data.root"))
        files.write_text(page, text)
        say(f"{page} is written, {len(text.encode()) / 2**10:.0f} KiB")
