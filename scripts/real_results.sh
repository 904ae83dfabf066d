#!/bin/sh
# Real videos under a real trunk, DINOv2 ViT-S/14: the runs of scripts/results/real and its table. The data are those of
# $AIM_SHARED/real (by default ../shared). Finished cells are not repeated, and a killed one goes on. Frozen features are kept
# in AIM_CACHE.
#
#   scripts/real_results.sh                    # all; half a day on 2 idle cores
#   scripts/real_results.sh order6 linear lora # one data set; of it these cells
#   scripts/real_results.sh search             # the rates that the adapters' YAML files name (recipe)
#
# Three seeds where one takes less than LIMIT seconds, else one. Rates are the adapters' own, on all data.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
real=${AIM_SHARED:-../shared}/real
runs=${RUNS:-runs/real}
limit=${LIMIT:-600}
results=${RESULTS:-scripts/results/real}

# words DATA CELL: the settings of a cell. Heads read kept features, so that more epochs of them are cheap.
words() {
    trunk="backbone=dinov2_vit_s14 backbone.weights=$real/dinov2_vit_s14.safetensors clip.num_frames=8 train.eval_every=0"
    hand="data.root=$real/shrec17-depth data.directional=true augment.flip=0 augment.area=[0.7,1.0] clip.size=56 train.batch_size=16"
    case $1 in
    order6)
        epochs=6 heads=30
        echo "$trunk $hand data.train=train_order6.txt data.val=val_order6.txt data.classes=classes_order6.txt"
        ;;
    shrec14)
        epochs=4 heads=20
        echo "$trunk $hand"
        ;;
    ut)
        epochs=30 heads=40
        echo "$trunk data.root=$real/ut-interaction augment.area=[0.5,1.0] clip.size=112 train.batch_size=8"
        ;;
    esac
    head="train.epochs=$heads dropout=0"
    case $2 in
    linear) echo "adapter=none $head optim.lr=[3e-3,1e-2,3e-2,1e-1]" ;; # a fifth of the training videos choose
    attentive) echo "adapter=attentive_probe $head" ;;
    probe | step) echo "adapter=$2 $head" ;;
    side) echo "adapter=side train.features=cached $head" ;;
    spatial) echo "adapter=aim adapter.temporal=false adapter.joint=false train.epochs=$epochs" ;;
    temporal) echo "adapter=aim adapter.joint=false train.epochs=$epochs" ;;
    aim | st_adapter | lora | adaptformer) echo "adapter=$2 train.epochs=$epochs" ;;
    *) echo "no cell $2" >&2 && exit 2 ;;
    esac
}

# search CELL: its rate and warm-up by order6's training videos alone, of which a fifth choose. Adapters inside the trunk train for
# 3 epochs a rate, first with a short warm-up, then the higher rates with a long one.
search() {
    inside="train.epochs=3"
    long="$inside optim.warmup_epochs=0.6"
    case $1 in
    attentive | step) chosen order6 "$1" "optim.lr=[3e-4,1e-3,3e-3]" ;;
    probe) chosen order6 probe "optim.lr=[1e-4,3e-4,1e-3] train.epochs=10" ;;
    side) chosen order6 side "optim.lr=[1e-3,3e-3]" ;;
    aim | st_adapter)
        chosen order6 "$1" "optim.lr=[3e-4,1e-3,3e-3] $inside"
        chosen warm "$1" "optim.lr=[1e-3,3e-3] $long"
        ;;
    lora)
        chosen order6 lora "optim.lr=[3e-4,1e-3,3e-3] $inside"
        chosen warm lora "optim.lr=[3e-3,1e-2] $long"
        ;;
    adaptformer)
        chosen order6 adaptformer "optim.lr=[1e-3,3e-3,1e-2] $inside"
        chosen warm adaptformer "optim.lr=[3e-3,1e-2] $long"
        ;;
    *) echo "no search for $1" >&2 && exit 2 ;;
    esac
}

# chosen NAME CELL SETTINGS: one choice, and its scores in scripts/results/recipes.
chosen() {
    run=$runs/search,$1,$2
    own=$(words order6 "$2") # an unknown cell ends the script here
    # shellcheck disable=SC2086
    $python -m aim.train +experiment=finetune name=search $own $3 run_dir="$run" ${EXTRA:-}
    mkdir -p "scripts/results/recipes/$1,$2"
    cp "$run/choice/choice.json" "$run/config.yaml" "scripts/results/recipes/$1,$2"
}

# train DATA CELL SEED: one run, its results with reordered frames, and the kept files of both.
train() {
    run=$runs/$1,$2,seed=$3
    kept=$results/$1,$2,seed=$3
    own=$(words "$1" "$2") # an unknown cell ends the script here
    # Settings are several words; EXTRA is for a trial, such as EXTRA=train.epochs=1.
    # shellcheck disable=SC2086
    $python -m aim.train +experiment=finetune name="$1" $own seed="$3" run_dir="$run" ${EXTRA:-}
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
if [ "$data" = search ]; then
    for cell in ${*:-attentive probe step side aim st_adapter lora adaptformer}; do search "$cell"; done
    exit
fi
for each in $data; do
    for cell in ${*:-linear attentive probe step side spatial temporal aim st_adapter lora adaptformer}; do
        train "$each" "$cell" 0
        if [ "$(seconds "$each" "$cell")" -lt "$limit" ]; then
            train "$each" "$cell" 1
            train "$each" "$cell" 2
        fi
    done
done
# UT-Interaction's ten folds, as the literature has them: fold k holds out sequences k and 10 + k, of both sets.
if [ $# = 0 ] && [ "$data" != order6 ] && [ "$data" != shrec14 ]; then
    for head in step none; do
        run=$runs/ut,folds,$head
        # shellcheck disable=SC2086
        $python -m aim.train +experiment=probe adapter=$head data.root="$real/ut-interaction" data.folds=folds \
            backbone.weights="$real/dinov2_vit_s14.safetensors" run_dir="$run" ${EXTRA:-}
        $python -m aim.report "$run"
        mkdir -p "$results/ut,folds,$head"
        cp "$run/folds.json" "$run/fold1/config.yaml" "$results/ut,folds,$head"
    done
fi
$python scripts/real_table.py "$results"
