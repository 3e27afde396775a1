#!/usr/bin/env bash
# Trained models -> one table: tasks, perplexity by domain, active experts and FLOPs beside each score.
#   scripts/evaluate.sh [NAME=]MODEL... [FLAGS...]    Hugging Face folders or Megatron checkpoints, then flags of
#                                                     tools/evaluate.py
# Hardware: CPU, or one GPU. Time: three models of 2 and 7.5 M parameters, nine tasks and eight domains, LIMIT=100: 5 minutes
# on two CPU cores. What one should see: accuracy above the chance level that the table names, once a model has learnt enough.
# Environment: DRY_RUN=1 prints the command. OUTPUT_DIR [runs/evaluation]: results.json, which a second call goes on
# from, and table.md. TASKS [the paper's seven; without a network the six of them that are packaged], DOMAINS: a folder
# of tools/prepare_corpus.py [none], LIMIT [all documents], BATCH_SIZE [8], DTYPE [as stored], PYTHON [python].
set -euo pipefail
REPO_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
source "$REPO_ROOT/scripts/lib/checks.sh"

OUTPUT_DIR=${OUTPUT_DIR:-$REPO_ROOT/runs/evaluation}
BATCH_SIZE=${BATCH_SIZE:-8}
PYTHON=${PYTHON:-python}

MODELS=()
while [[ -n ${1:-} && $1 != -* ]]; do
  MODELS+=("$1")
  shift
done
((${#MODELS[@]} > 0)) || fail "argument 1 must be a Hugging Face folder or a Megatron checkpoint"
require_positive_integer BATCH_SIZE "$BATCH_SIZE"
if [[ -n ${LIMIT:-} ]]; then
  require_positive_integer LIMIT "$LIMIT"
fi

COMMAND=("$PYTHON" "$REPO_ROOT/tools/evaluate.py" --model "${MODELS[@]}"
  ${TASKS:+--tasks "$TASKS"} ${DOMAINS:+--domains "$DOMAINS"} ${LIMIT:+--limit "$LIMIT"}
  ${DTYPE:+--dtype "$DTYPE"} --batch-size "$BATCH_SIZE"
  --output "$OUTPUT_DIR/results.json" --table "$OUTPUT_DIR/table.md" "$@")
if [[ ${DRY_RUN:-0} != 0 ]]; then
  printf '%q ' "${COMMAND[@]}" && echo
  exit 0
fi
exec "${COMMAND[@]}"
