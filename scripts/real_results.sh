#!/bin/sh
# Real videos under a real trunk, DINOv2 ViT-S/14: the runs of scripts/results/real and its table. The data are those of
# $AIM_SHARED/real (by default ../shared). Finished cells are not repeated, and a killed one goes on. Frozen features are kept
# in AIM_CACHE.
#
#   scripts/real_results.sh                    # all; half a day on 2 idle cores
#   scripts/real_results.sh order6 linear lora # one data set; these of its cells
#
# Three seeds where one takes less than LIMIT seconds, else one. The rates are first guesses, the same for all data.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
real=${AIM_SHARED:-../shared}/real
runs=${RUNS:-runs/real}
limit=${LIMIT:-600}
results=${RESULTS:-scripts/results/real}

# words DATA: its videos' place, and the settings of all its cells.
words() {
    trunk="backbone=dinov2_vit_s14 backbone.weights=$real/dinov2_vit_s14.safetensors clip.num_frames=8 train.batch_size=16"
    hand="data.root=$real/shrec17-depth data.directional=true augment.flip=0 augment.area=[0.7,1.0]"
    case $1 in
    order6)
        echo "$trunk $hand clip.size=56 train.epochs=6" \
            "data.train=train_order6.txt data.val=val_order6.txt data.classes=classes_order6.txt"
        ;;
    shrec14) echo "$trunk $hand clip.size=56 train.epochs=6" ;;
    ut) echo "$trunk data.root=$real/ut-interaction clip.size=112 augment.area=[0.5,1.0] train.epochs=20" ;;
    esac
}

# of_cell NAME: its settings. Probes read kept features, so that 100 epochs of them cost what one epoch of the others does.
of_cell() {
    head="train.epochs=100 train.label_smoothing=0.1 dropout=0"
    case $1 in
    linear) echo "adapter=none optim.lr=1e-2 $head" ;;
    attentive) echo "adapter=attentive_probe optim.lr=1e-3 $head" ;;
    probe) echo "adapter=probe optim.lr=3e-4 $head" ;;
    step) echo "adapter=step optim.lr=1e-3 $head" ;;
    side) echo "adapter=side optim.lr=1e-3" ;;
    spatial) echo "adapter=aim adapter.temporal=false adapter.joint=false optim.lr=1e-3" ;;
    temporal) echo "adapter=aim adapter.joint=false optim.lr=1e-3" ;;
    aim) echo "adapter=aim optim.lr=1e-3" ;;
    st_adapter) echo "adapter=st_adapter optim.lr=1e-3" ;;
    lora) echo "adapter=lora optim.lr=1e-3" ;;
    *) echo "no cell $1" >&2 && exit 2 ;;
    esac
}

# train DATA CELL SEED: one run, its results with reordered frames, and the kept files of both.
train() {
    run=$runs/$1,$2,seed=$3
    kept=$results/$1,$2,seed=$3
    # Settings are several words; EXTRA is for a trial, such as EXTRA=train.epochs=1.
    # shellcheck disable=SC2046,SC2086
    $python -m aim.train +experiment=finetune name="$1" $(words "$1") $(of_cell "$2") seed="$3" run_dir="$run" ${EXTRA:-}
    if [ "$1" = order6 ] && [ ! -s "$run/order.json" ]; then
        $python -m aim.explain checkpoint="$run" what=order json=true >"$run/order.part"
        mv "$run/order.part" "$run/order.json"
    fi
    mkdir -p "$kept"
    for file in results.json config.yaml order.json; do
        if [ -e "$run/$file" ]; then cp "$run/$file" "$kept"; fi
    done
}

# seconds DATA CELL: the time of its first seed.
seconds() {
    $python -c "import json, sys; print(int(json.load(open(sys.argv[1]))['seconds']))" "$runs/$1,$2,seed=0/results.json"
}

data=${1:-"order6 shrec14 ut"}
if [ $# -gt 0 ]; then shift; fi
for each in $data; do
    for cell in ${*:-linear attentive probe step side spatial temporal aim st_adapter lora}; do
        train "$each" "$cell" 0
        if [ "$(seconds "$each" "$cell")" -lt "$limit" ]; then
            train "$each" "$cell" 1
            train "$each" "$cell" 2
        fi
    done
done
# UT-Interaction's ten folds, as the literature has them: fold k holds out sequences k and 10 + k, of both sets.
if [ "$data" = ut ] || [ "$data" = "order6 shrec14 ut" ]; then
    # shellcheck disable=SC2046,SC2086
    $python -m aim.train +experiment=probe data.root="$real/ut-interaction" data.folds=folds clip.size=112 \
        backbone.weights="$real/dinov2_vit_s14.safetensors" run_dir="$runs/ut,folds" ${EXTRA:-}
    $python -m aim.report "$runs/ut,folds"
    mkdir -p "$results/ut,folds"
    cp "$runs/ut,folds/folds.json" "$runs/ut,folds/fold1/config.yaml" "$results/ut,folds"
fi
$python scripts/real_table.py "$results"
