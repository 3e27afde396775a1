# shellcheck shell=bash
# From a recipe to one torchrun command: checks, nodes, dry run. Sourced, never run.

fail() {  # MESSAGE...: one line on stderr, exit status 2
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 2
}

print_header() {  # FILE: the comment block under its first line
  sed -n '2,${/^#/!q;s/^# \{0,1\}//p;}' "$1"
}

require_positive_integer() {  # WHAT VALUE
  [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "$1 must be a positive integer, got '$2'"
}

# Sets TORCHRUN_ARGS and NNODES: from NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT, or from the step that srun started.
resolve_nodes() {
  if [[ -z ${NNODES:-} && -n ${SLURM_STEP_NUM_NODES:-} ]]; then
    ((${SLURM_STEP_NUM_TASKS:-$SLURM_STEP_NUM_NODES} == SLURM_STEP_NUM_NODES)) ||
      fail "srun started $SLURM_STEP_NUM_TASKS tasks on $SLURM_STEP_NUM_NODES nodes: use --ntasks-per-node=1"
    NNODES=$SLURM_STEP_NUM_NODES NODE_RANK=${SLURM_NODEID:-0}
    if ((NNODES > 1)) && [[ -z ${MASTER_ADDR:-} ]]; then
      MASTER_ADDR=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1) && [[ -n $MASTER_ADDR ]] ||
        fail "scontrol does not name the nodes of '${SLURM_STEP_NODELIST:-}': set MASTER_ADDR"
    fi
  elif [[ -z ${NNODES:-} ]] && ((${SLURM_JOB_NUM_NODES:-1} > 1)); then
    fail "this job has $SLURM_JOB_NUM_NODES nodes: start the script with srun --ntasks-per-node=1, or set NNODES"
  fi
  NNODES=${NNODES:-1}
  require_positive_integer NNODES "$NNODES"
  TORCHRUN_ARGS=(--nproc-per-node "$GPUS_PER_NODE")
  if ((NNODES == 1)); then
    TORCHRUN_ARGS+=(--standalone)  # a free port of its own: two runs can share a machine
    return
  fi
  [[ -n ${MASTER_ADDR:-} ]] || fail "NNODES=$NNODES needs MASTER_ADDR, the address of node 0"
  [[ ${NODE_RANK:-} =~ ^(0|[1-9][0-9]*)$ ]] && ((NODE_RANK < NNODES)) ||
    fail "NNODES=$NNODES needs a NODE_RANK from 0 to $((NNODES - 1)), got '${NODE_RANK:-}'"
  TORCHRUN_ARGS+=(--nnodes "$NNODES" --node-rank "$NODE_RANK"
    --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}")
}

check_batch() {
  local world=$((GPUS_PER_NODE * NNODES)) model=$((TP * PP * CP))
  ((world % model == 0)) ||
    fail "$world GPUs are not a multiple of TP x PP x CP = $TP x $PP x $CP = $model"
  local replicas=$((world / model))
  ((GLOBAL_BATCH_SIZE % (MICRO_BATCH_SIZE * replicas) == 0)) ||
    fail "GLOBAL_BATCH_SIZE=$GLOBAL_BATCH_SIZE is not a multiple of micro batch x data-parallel replicas" \
      "= $MICRO_BATCH_SIZE x $replicas = $((MICRO_BATCH_SIZE * replicas)): change argument 1 or 3"
}

check_data() {  # a blend "0.7 first 0.3 second" has numbers between its prefixes
  local word number='^[0-9]*\.?[0-9]+$'
  [[ $DATA_PATH == mock ]] && return
  for word in "${DATA_PREFIXES[@]}"; do
    [[ $word =~ $number || (-f $word.bin && -f $word.idx) ]] ||
      fail "no data set at $word.{bin,idx}: run scripts/prepare_data.sh, or set DATA_PATH or DATA_ROOT"
  done
  [[ -e $TOKENIZER_MODEL ]] ||
    fail "no tokenizer at $TOKENIZER_MODEL: run scripts/prepare_data.sh, or set TOKENIZER_MODEL"
}

launch() {  # SCRIPT FLAGS...
  local command=(env "${ENVIRONMENT[@]}" torchrun "${TORCHRUN_ARGS[@]}" "$@")
  if [[ ${DRY_RUN:-0} != 0 ]]; then
    printf '%q ' "${command[@]}" && echo
    exit 0
  fi
  check_data
  command -v torchrun >/dev/null || fail "torchrun is not on PATH: activate the environment that has PyTorch"
  mkdir -p "$RUN_DIR"
  exec "${command[@]}"
}
