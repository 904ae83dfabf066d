#!/bin/sh
# The README's first table: the paper's ladder on the demo's data, three seeds a rung; prints it as Markdown.
# An hour on 2 cores; finished runs are not repeated.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
for seed in 0 1 2; do
    $python -m aim.train +experiment=demo adapter=none seed=$seed run_dir=runs/ladder/frozen,seed=$seed
    $python -m aim.train +experiment=demo adapter.temporal=false adapter.joint=false seed=$seed \
        run_dir=runs/ladder/spatial,seed=$seed
    $python -m aim.train +experiment=demo adapter.joint=false seed=$seed run_dir=runs/ladder/spatial+temporal,seed=$seed
    $python -m aim.train +experiment=demo seed=$seed run_dir=runs/ladder/joint,seed=$seed
done
$python -m aim.report runs/ladder/frozen,* runs/ladder/spatial,* runs/ladder/spatial+temporal,* runs/ladder/joint,*
