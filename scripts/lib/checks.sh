# shellcheck shell=bash
# Checks that end in one clear line on stderr and exit status 2. Sourced, never run.

fail() { # MESSAGE...
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

require_positive_integer() { # WHAT VALUE
  [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 must be a positive integer, got '$2'"
}

check_batch() {
  local world=$((GPUS_PER_NODE * NNODES)) model=$((TP * PP * CP))
  ((world % model == 0)) ||
    fail "$world GPUs are not a multiple of TP x PP x CP = $TP x $PP x $CP = $model"
  local replicas=$((world / model))
  local pass=$((MICRO_BATCH_SIZE * replicas))
  ((GLOBAL_BATCH_SIZE % pass == 0)) ||
    fail "GLOBAL_BATCH_SIZE=$GLOBAL_BATCH_SIZE is not a multiple of micro batch x data-parallel replicas =" \
      "$MICRO_BATCH_SIZE x $replicas = $pass: change argument 1 (GPUs per node) or 3 (micro batch)"
}

check_data() { # a blend "0.7 first 0.3 second" has weights between its prefixes
  local word weight='^[0-9.]+(e-?[0-9]+)?$' hub_name='^[^./~][^/]*/[^/]+$'
  if [[ $DATA_PATH == mock ]]; then
    return
  fi
  for word in "${DATA_PREFIXES[@]}"; do
    [[ $word =~ $weight || $word == *://* || (-f $word.bin && -f $word.idx) ]] ||
      fail "no data set at $word.{bin,idx}: run scripts/prepare_data.sh, or set DATA_PATH or DATA_ROOT"
  done
  [[ -e $TOKENIZER_MODEL || $TOKENIZER_MODEL =~ $hub_name ]] ||
    fail "no tokenizer at $TOKENIZER_MODEL: run scripts/prepare_data.sh, or set TOKENIZER_MODEL"
}
