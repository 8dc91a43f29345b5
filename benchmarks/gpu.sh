#!/bin/bash
# What runs on a GPU, in one call of at most ten minutes, as one table:
#
#     bash benchmarks/gpu.sh [cuda|cpu] [FOLDER]
#
# FOLDER (default gpu-results) gets table.md and a log per part; models go to $MODELS (default
# FOLDER/models; 19 GB for 1b and 8b). Nothing is downloaded. Set WHEELS to a folder of wheels to
# install first, into an environment of its own, over what this python has; PYTHON names another
# python; MINUTES another limit of the whole. SmolLM2 is measured where `recalign fetch smollm2`
# has put it. PARTS names the parts wanted (model guard sasrec generation dpo nf4). With `cpu` the
# shapes are tiny and the figures mean nothing: it tries the script.
set -u
device=${1:-cuda}
out=$(realpath -m "${2:-gpu-results}")
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out"
models=${MODELS:-$out/models}
python=${PYTHON:-python3}
ends=$((SECONDS + ${MINUTES:-9} * 60 + 30))
export PYTHONPATH=$PWD HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
table=$out/table.md

say() { echo "$1" | tee -a "$table"; }

# part NAME SECONDS COMMAND...: its rows, or one row that says why there are none.
part() {
    local name=$1 limit=$2 log started=$SECONDS status
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

# llm MODEL FORMAT SECONDS: sampling beside generate, and a DPO step with LoRA beside TRL.
llm() {
    local folder=$models/$1
    if [ ! -d "$folder" ]; then
        say "| $1 | no model here | - | - |"
        return
    fi
    part "generation $1" "$3" "$python" benchmarks/generation.py --parts speed --threads 0 \
        --folder "$folder" --device "$device" --dtypes "$2" --repeats 2 \
        --prompts "$prompts" --new-tokens "$new_tokens"
    part "dpo $1" "$3" "$python" benchmarks/alignment.py --threads 0 --method lora \
        --model "$folder" --device "$device" --weights "$2" --repeats 1 --steps "$steps" \
        --variants "TRL tuned" recalign
}

: >"$table"
if [ -n "${WHEELS:-}" ]; then
    "$python" -m venv --system-site-packages "$out/venv" &&
        "$out/venv/bin/python" -m pip install -q --no-index --no-deps "$WHEELS"/*.whl &&
        python=$out/venv/bin/python
fi
say "$("$python" -c '
import sys, torch
name = torch.cuda.get_device_name() if sys.argv[1] == "cuda" else "processor"
print(f"{name}, torch {torch.__version__}")' "$device" 2>&1 | tail -1)"
say ""
say "| part | speed | beside | peak memory |"
say "|---|---|---|---|"

case $device in
cuda) large=8b middle=1b prompts=64 new_tokens=64 steps=12 users=6040 ;;
*) large=tiny middle=tiny prompts=4 new_tokens=4 steps=3 users=40 ;;
esac
part "model smollm2" 90 "$python" benchmarks/shapes.py smollm2 "$models/smollm2"
part "model $middle" 90 "$python" benchmarks/shapes.py "$middle" "$models/$middle" --device "$device"
part "guard" 60 "$python" benchmarks/device_guard.py --device "$device"
part "sasrec" 60 "$python" benchmarks/oracle_speed.py --losses full --users "$users" \
    --device "$device"
llm smollm2 bfloat16 60
llm $middle bfloat16 75
if [ "$large" != "$middle" ]; then
    part "model $large" 90 "$python" benchmarks/shapes.py "$large" "$models/$large" \
        --device "$device"
    llm $large bfloat16 100
fi
part "nf4 $large" 100 "$python" benchmarks/alignment.py --threads 0 --method lora \
    --model "$models/$large" --device "$device" --weights bfloat16 --quantisation nf4 --repeats 1 \
    --steps "$steps" --variants recalign
exit 0
