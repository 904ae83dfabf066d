"""Log a run to trackio in two parts, FOLDER, and print trackio's record."""

import sys
from pathlib import Path

from aim.engine.telling.tracking import Trackio

for steps in ((1, 2), (2, 3)):
    with Trackio(project="p", space=None).open(Path(sys.argv[1]), "toy", {"seed": 1}) as sink:
        for step in steps:
            sink.log(step, {"loss": step / 2})
        sink.attach({"top1": 50.0, "top5": 60.0, "mean_class": 70.0})

import trackio  # noqa: E402, as for a run that only tracks
from trackio.sqlite_storage import SQLiteStorage  # noqa: E402

(run,) = trackio.Api().runs("p")
print(sorted({(line["step"], line["loss"]) for line in SQLiteStorage.get_logs("p", run.name) if "loss" in line}))
