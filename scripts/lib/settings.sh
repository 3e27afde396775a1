# shellcheck shell=bash disable=SC2034
# What the caller chose, checked: positional arguments, else environment, else defaults. Sourced, never run.

GPUS_PER_NODE=${1:-${GPUS_PER_NODE:-8}}
TRAIN_ITERS=${2:-${TRAIN_ITERS:-60000}}
MICRO_BATCH_SIZE=${3:-${MICRO_BATCH_SIZE:-16}}
GRANULARITY=${5:-${GRANULARITY:-1}}
PROJECT=${6:-${PROJECT:-remoe}}
read -ra EXTRA_FLAGS <<<"${EXTRA_ARGS:-}"
EXTRA_FLAGS=("${@:7}" "${EXTRA_FLAGS[@]}")
SEQ_LENGTH=${SEQ_LENGTH:-1024}
GLOBAL_BATCH_SIZE=${GLOBAL_BATCH_SIZE:-512}
TOPK=${TOPK:-1}
TP=${TP:-1} PP=${PP:-1} CP=${CP:-1} EP=${EP:-1}
SAVE_INTERVAL=${SAVE_INTERVAL:-1000}

require_positive_integer "argument 1 (GPUs per node)" "$GPUS_PER_NODE"
require_positive_integer "argument 2 (iterations)" "$TRAIN_ITERS"
require_positive_integer "argument 3 (micro batch)" "$MICRO_BATCH_SIZE"
require_positive_integer "argument 5 (granularity)" "$GRANULARITY"
for name in SEQ_LENGTH GLOBAL_BATCH_SIZE TOPK TP PP CP EP SAVE_INTERVAL; do
  require_positive_integer "$name" "${!name}"
done

case ${METHOD:-} in
  dense)
    FFN_EXPANSION=${4:-${FFN_EXPANSION:-1}}
    require_positive_integer "argument 4 (FFN expansion)" "$FFN_EXPANSION"
    ((GRANULARITY == 1)) || fail "argument 5 (granularity) is $GRANULARITY, but a dense model has no experts to split"
    FFN_HIDDEN_SIZE=$((FFN_HIDDEN_SIZE * FFN_EXPANSION))
    variation=x$FFN_EXPANSION
    ;;
  moe | remoe | topk | topk-unbalanced | topk-warmup | topk-bias | expert-choice | hash | sparsemixer | relu | relu-l1)
    NUM_EXPERTS=${4:-${NUM_EXPERTS:-8}}
    require_positive_integer "argument 4 (experts)" "$NUM_EXPERTS"
    ((FFN_HIDDEN_SIZE % GRANULARITY == 0)) ||
      fail "argument 5 (granularity) is $GRANULARITY, which does not divide the FFN width $FFN_HIDDEN_SIZE"
    ((NUM_EXPERTS * GRANULARITY % EP == 0)) ||
      fail "EP=$EP does not divide the $((NUM_EXPERTS * GRANULARITY)) experts (argument 4 x argument 5)"
    variation=E${NUM_EXPERTS}_k${TOPK}_G$GRANULARITY
    ;;
  *) fail "METHOD must be dense, moe, remoe or a word of --moe-routing (docs/baselines.md), got '${METHOD:-}'" ;;
esac

resolve_nodes
check_batch

DATA_ROOT=${DATA_ROOT:-$REPO_ROOT/data}
DATA_PATH=${DATA_PATH:-$DATA_ROOT/${DATA_NAME:-train}_text_document}
read -ra DATA_PREFIXES <<<"$DATA_PATH"
TOKENIZER_MODEL=${TOKENIZER_MODEL:-$DATA_ROOT/${TOKENIZER_NAME:-gpt2_tokenizer}}
# Runs of different shapes never share a folder; runs that differ in something else need a RUN_NAME or a project each.
RUN_NAME=${RUN_NAME:-llama_${MODEL_SIZE}_${METHOD}_$variation}
RUN_DIR=${RUN_ROOT:-$REPO_ROOT/runs}/$PROJECT/$RUN_NAME
