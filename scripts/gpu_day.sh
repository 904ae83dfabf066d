#!/bin/bash
# The first day with a GPU, in at most 8 minutes: measurements, the gpu tests, and a profiled training run, with one table at
# the end. Run in the repository's root:
#
#     OUT=gpu_out bash scripts/gpu_day.sh          # PYTHON=.venv/bin/python, unless that is set
#
# A machine with a torch of its own and no network: PYTHON=python3, with the other packages' wheels in .whl/ of the root.
# Nothing is downloaded: weights are random, and videos are drawn. Each part has its own limit, and may fail without ending
# the others. OUT gets TABLE, parts.txt, the parts' logs and bench.json. DRY=1 goes through all of it on a CPU, with tiny
# shapes and none of the gpu tests.
OUT=${OUT:-gpu_out} PYTHON=${PYTHON:-.venv/bin/python} SECONDS_IN_ALL=${SECONDS_IN_ALL:-480}
mkdir -p "$OUT"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 AIM_CACHE=${AIM_CACHE:-$OUT/cache}
if [ -d .whl ]; then # beside the machine's own torch
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$OUT/site" .whl/*.whl || exit 1
    PYTHONPATH="$PYTHONPATH:$OUT/site"
fi
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$OUT/inductor} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$OUT/triton}
data=(+experiment=demo reader=pyav adapter=aim data.lists.num_frames=17 train.log_every=4 train.epochs=2 data.lists.num_val=16)
if [ -n "${DRY:-}" ]; then
    dry=(--dry)
    data+=(device=cpu backbone.weights=random backbone.name=vit_tiny_patch16_224 clip.size=32 clip.num_frames=4 data.workers=0
        'backbone.options={img_size: 32, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2}'
        data.lists.num_train=16 data.lists.size=32 train.batch_size=8)
else
    dry=()
    data+=(device=cuda gpus=1 precision=bf16 backbone=clip_vit_b16 backbone.weights=random clip.size=224 clip.num_frames=8
        data.workers=12 data.lists.num_train=768 data.lists.size=128 train.batch_size=32)
fi

part() { # name, limit in seconds, command; the rest of the 8 minutes limits all
    local name=$1 limit=$2 began=$SECONDS left=$((SECONDS_IN_ALL - SECONDS)) code=0
    shift 2
    [ $left -lt "$limit" ] && limit=$left
    if [ "$limit" -lt 10 ]; then
        echo "$name: skipped, no time is left" >> "$OUT/parts.txt"
        return
    fi
    timeout -s INT -k 10 "$limit" "$@" > "$OUT/$name.log" 2>&1 || code=$? # Ctrl-C, after which pytest sums up
    echo "$name: exit code $code after $((SECONDS - began)) s of $limit" >> "$OUT/parts.txt"
}

table() {
    echo "==== parts"
    cat "$OUT/parts.txt"
    for run in eager compiled; do
        echo "==== aim.train, $run"
        grep -E "clips/s|memory:|warning:|error:" "$OUT/train_$run.log" | tail -5
    done
    [ -f "$OUT/run_eager/profile/profile.txt" ] && head -34 "$OUT/run_eager/profile/profile.txt"
    echo "==== measurements"
    cat "$OUT/bench.txt"
    echo "==== pytest -m gpu"
    grep -E "^(PASSED|FAILED|ERROR)|^E  |passed|failed|s call" "$OUT/pytest.log" | cut -c1-170 | tail -60
}

: > "$OUT/parts.txt" > "$OUT/bench.txt"
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,power.limit --format=csv,noheader 2>&1 | tee "$OUT/gpu.txt"
# A CPU computes the plan while the GPU trains.
"$PYTHON" scripts/gpu_bench.py --out "$OUT" --plan "${dry[@]}" > "$OUT/plan.log" 2>&1 &
planning=$!
# A real run first: its results survive later failures.
part train_eager 70 "$PYTHON" -m aim.train "${data[@]}" train.compile=false train.profile=true run_dir="$OUT/run_eager"
part bench 165 "$PYTHON" scripts/gpu_bench.py --out "$OUT" --seconds 155 "${dry[@]}"
mapfile -t tests < <(grep -rl "mark[.]gpu" tests --include="*.py")
[ -n "${DRY:-}" ] || part pytest 190 "$PYTHON" -m pytest -m gpu "${tests[@]}" -q -p no:cacheprovider -rA --durations=12
part train_compiled 60 "$PYTHON" -m aim.train "${data[@]}" train.compile=gpu run_dir="$OUT/run_compiled"
kill $planning 2> /dev/null || true
rm -rf "$OUT"/run_*/{last.pt,previous.pt,best.safetensors} "$OUT/site"
gzip -f "$OUT"/run_*/profile/trace.json 2> /dev/null || true
table 2> /dev/null | tee "$OUT/TABLE"
