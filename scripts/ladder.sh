#!/bin/sh
# The README's first table: the paper's ladder on the demo's data, three seeds a rung; prints it as Markdown.
# Half an hour on 2 idle cores; finished runs are not repeated.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
spatial="adapter.temporal=false adapter.joint=false"
for seed in 0 1 2; do
    for rung in adapter=none "$spatial" adapter.joint=false ""; do
        # shellcheck disable=SC2086 - a rung is several words
        $python -m aim.train +experiment=demo seed=$seed $rung
    done
done
$python -m aim.report runs/demo,adapter=none,seed=* runs/demo,adapter.joint=false,adapter.temporal=false,seed=* \
    runs/demo,adapter.joint=false,seed=* runs/demo,seed=*
