#!/bin/sh
# The runs of the README's tables, and the tables: the paper's ladder on the demo's data with three seeds a rung, and each
# adapter once; their scaling on harder videos; and the speed of small models. Two hours on 2 idle cores; finished runs
# are not repeated. Results are kept in scripts/results.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
spatial="adapter.temporal=false adapter.joint=false"
for seed in 0 1 2; do
    for rung in adapter=none "$spatial" adapter.joint=false ""; do
        # A rung is several words.
        # shellcheck disable=SC2086
        $python -m aim.train +experiment=demo seed=$seed $rung
    done
done
$python -m aim.train -m +experiment=demo adapter=st_adapter,side,attentive_probe,lora,adaptformer
$python -m aim.train +experiment=demo adapter=timesformer "+optim.lr_mult={backbone.*: 0.1}"
$python -m aim.train +experiment=demo adapter=full "+optim.lr_mult={backbone.*: 0.03}"
for run in runs/demo,*; do
    mkdir -p "scripts/results/${run#runs/}"
    cp "$run/results.json" "$run/config.yaml" "scripts/results/${run#runs/}"
done
# The cost of training without a GPU.
laptop() {
    backbone=$1
    shift
    $python -m aim.benchmark +experiment=finetune what=model backbone="$backbone" train.batch_size=8 "$@" \
        run_dir="scripts/results/laptop,$backbone"
}
laptop in21k_vit_s16 clip.num_frames=4
laptop clip_vit_b16
laptop demo adapter=aim_demo clip.size=64
# The scaling of adapters, and emergence.
$python -m aim.study +study=demo
mkdir -p scripts/results/study,demo
cp runs/study/demo/study.md scripts/results/study,demo
cp runs/study/demo/figures/scaling.png docs/study.png
$python scripts/readme_tables.py
