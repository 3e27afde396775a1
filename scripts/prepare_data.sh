#!/usr/bin/env bash
# JSON lines with a "text" field -> what train_llama_*.sh reads: GPT-2's tokenizer and an indexed data set.
#   scripts/prepare_data.sh INPUT... [FLAGS...]    files or folders, then flags of tools/preprocess_data.py
# Hardware: CPU only. Time: by WORKERS; DATA_ROOT/DATA_NAME_text_document.bin takes 2 bytes a token.
# Environment: DRY_RUN=1 prints them. DATA_ROOT [data], DATA_NAME [train], WORKERS [one a core], PYTHON [python],
# TOKENIZER_MODEL: a Hugging Face folder of yours [$DATA_ROOT/gpt2_tokenizer, made where it is missing].
set -euo pipefail
REPO_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
source "$REPO_ROOT/scripts/lib/checks.sh"

DATA_NAME=${DATA_NAME:-train}
DATA_ROOT=${DATA_ROOT:-$REPO_ROOT/data}
GPT2_TOKENIZER=$DATA_ROOT/gpt2_tokenizer
TOKENIZER_MODEL=${TOKENIZER_MODEL:-$GPT2_TOKENIZER}
WORKERS=${WORKERS:-$(getconf _NPROCESSORS_ONLN)}
PYTHON=${PYTHON:-python}

run() {
  if [[ ${DRY_RUN:-0} != 0 ]]; then
    printf '%q ' "$@" && echo
  else
    "$@"
  fi
}

[[ -n ${1:-} && $1 != -* ]] || fail "argument 1 must be a JSON-lines file, or a folder of them"
[[ -r $1 ]] || fail "cannot read $1"
require_positive_integer WORKERS "$WORKERS"

if [[ ! -e $TOKENIZER_MODEL ]]; then
  [[ $TOKENIZER_MODEL == "$GPT2_TOKENIZER" ]] || fail "no tokenizer at TOKENIZER_MODEL=$TOKENIZER_MODEL"
  run "$PYTHON" "$REPO_ROOT/tools/make_gpt2_tokenizer.py" --output-dir "$TOKENIZER_MODEL"
fi
run mkdir -p "$DATA_ROOT"
run "$PYTHON" "$REPO_ROOT/tools/preprocess_data.py" --output-prefix "$DATA_ROOT/$DATA_NAME" --json-keys text \
  --tokenizer-type HuggingFaceTokenizer --tokenizer-model "$TOKENIZER_MODEL" --append-eod \
  --workers "$WORKERS" --input "$@"
