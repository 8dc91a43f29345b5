#!/bin/bash
# What runs on a GPU, in one call of at most ten minutes, as one table:
#
#     bash benchmarks/gpu.sh [cuda|cpu] [FOLDER]
#
# FOLDER (default gpu-results) gets table.md and a log per part; models go to $MODELS (default
# FOLDER/models; 19 GB for 1b and 8b). Nothing is downloaded. Set WHEELS to a folder of wheels to
# install first, into FOLDER/site, which goes before what this python has; PYTHON names another
# python; MINUTES another limit of the whole. SmolLM2 is measured where `recalign fetch smollm2`
# has put it; it is converted first, a minute or two, unless a run or a benchmark has done so here.
# PARTS names the parts wanted (model guard sasrec generation dpo nf4). With `cpu` the shapes are
# tiny and the figures mean nothing: it tries the script.
set -u
device=${1:-cuda}
out=$(realpath -m "${2:-gpu-results}")
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out"
models=${MODELS:-$out/models}
python=${PYTHON:-python3}
ends=$((SECONDS + ${MINUTES:-9} * 60 + 30))
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
table=$out/table.md

say() { echo "$1" | tee -a "$table"; }

# part NAME SECONDS COMMAND...: its rows, or one row that says why there are none. The seconds of
# all parts together fit into the whole, so that none waits in vain for its turn.
part() {
    local name=$1 limit=$(($2 * patience)) log started=$SECONDS status
    shift 2
    case " ${PARTS:-${name%% *}} " in *" ${name%% *} "*) ;; *) return ;; esac
    log=$out/${name//[^a-z0-9]/-}.log
    [ $((ends - SECONDS)) -lt "$limit" ] && limit=$((ends - SECONDS))
    if [ "$limit" -lt 5 ]; then
        say "| $name | not run: no time left | - | - |"
        return
    fi
    timeout -k 5 "$limit" "$@" >"$log" 2>&1
    status=$?
    grep -E '^\|( [^|]+ \|){4}$' "$log" | tee -a "$table"
    case $status in
    0) ;;
    124 | 137) say "| $name | stopped after $limit s | - | - |" ;;
    *) say "| $name | failed: $(grep -v '^ *$' "$log" | tail -1 | tr '|' '/' | cut -c1-120) | - | - |" ;;
    esac
    echo "$name: $((SECONDS - started)) s" >>"$out/seconds.txt"
    return $status
}

# sampling MODEL FORMAT SECONDS: beside transformers' generate.
sampling() {
    part "generation $1" "$3" "$python" benchmarks/generation.py --parts speed --threads 0 \
        --folder "$models/$1" --device "$device" --dtypes "$2" --repeats "$repeats" \
        --prompts "$prompts" --new-tokens "$new_tokens"
}

# dpo NAME MODEL SECONDS OPTION...: a DPO step with LoRA in bfloat16.
dpo() {
    local name=$1 model=$2 limit=$3
    shift 3
    part "$name" "$limit" "$python" benchmarks/alignment.py --threads 0 --method lora \
        --model "$models/$model" --device "$device" --weights bfloat16 --repeats 1 \
        --steps "$steps" --variants recalign "$@"
}

# there MODEL: whether it is; a row if not.
there() {
    [ -d "$models/$1" ] || { say "| $1 | no model here | - | - |" && false; }
}

: >"$table"
if [ -n "${WHEELS:-}" ]; then
    if ! "$python" -m pip install -q --no-index --no-deps --upgrade --target "$out/site" \
        "$WHEELS"/*.whl >"$out/wheels.log" 2>&1; then
        say "the wheels of $WHEELS cannot be installed: $(tail -1 "$out/wheels.log")"
        exit 1
    fi
    export PYTHONPATH=$out/site:$PYTHONPATH
fi
say "$("$python" -c '
import sys, torch
name = torch.cuda.get_device_name() if sys.argv[1] == "cuda" else "processor"
print(f"{name}, torch {torch.__version__}")' "$device" 2>&1 | tail -1)"
say ""
say "| part | speed | beside | peak memory |"
say "|---|---|---|---|"

case $device in
cuda) large=8b middle=1b prompts=64 new_tokens=64 steps=12 users=6040 repeats=2 patience=1 ;;
*) large=tiny middle=tiny prompts=4 new_tokens=4 steps=3 users=40 repeats=2 patience=10 ;;
esac
part "model smollm2" 90 "$python" benchmarks/shapes.py smollm2 "$models/smollm2"
part "model $middle" 35 "$python" benchmarks/shapes.py "$middle" "$models/$middle" --device "$device"
part "guard" 30 "$python" benchmarks/device_guard.py --device "$device"
part "sasrec" 40 "$python" benchmarks/oracle_speed.py --losses full --users "$users" \
    --device "$device"
if there smollm2; then
    sampling smollm2 bfloat16 30
    dpo "dpo smollm2" smollm2 35 "TRL tuned"
fi
if there $middle; then
    sampling $middle bfloat16 35
    dpo "dpo $middle" $middle 45 "TRL tuned"
fi
if [ "$large" != "$middle" ]; then
    part "model $large" 55 "$python" benchmarks/shapes.py "$large" "$models/$large" \
        --device "$device"
fi
if there $large; then
    repeats=1
    [ "$large" = "$middle" ] || sampling $large bfloat16 55
    dpo "nf4 $large" $large 50 --quantisation nf4
    [ "$large" = "$middle" ] || dpo "dpo $large" $large 60 "TRL tuned"
fi
exit 0
