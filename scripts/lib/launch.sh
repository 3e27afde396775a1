# shellcheck shell=bash
# From a recipe to one torchrun command on each node. Sourced, never run.

# Where srun started this step, it says what NNODES, NODE_RANK and MASTER_ADDR are.
nodes_from_slurm() {
  local tasks=${SLURM_STEP_NUM_TASKS:-$SLURM_STEP_NUM_NODES}
  ((tasks == SLURM_STEP_NUM_NODES)) ||
    fail "srun started $tasks tasks on $SLURM_STEP_NUM_NODES nodes: use --ntasks-per-node=1"
  NNODES=$SLURM_STEP_NUM_NODES
  NODE_RANK=${SLURM_NODEID:-}
  if ((NNODES > 1)) && [[ -z ${MASTER_ADDR:-} ]]; then
    # Not by `head`: scontrol would die of its closed pipe, if it is not done by then.
    MASTER_ADDR=$(scontrol show hostnames "${SLURM_STEP_NODELIST:-}" 2>/dev/null) || MASTER_ADDR=
    MASTER_ADDR=${MASTER_ADDR%%$'\n'*}
    [[ -n $MASTER_ADDR ]] || fail "scontrol cannot name the nodes of '${SLURM_STEP_NODELIST:-}': set MASTER_ADDR"
  fi
}

# Sets NNODES and TORCHRUN_ARGS.
resolve_nodes() {
  if [[ -z ${NNODES:-} && -n ${SLURM_STEP_NUM_NODES:-} ]]; then
    nodes_from_slurm
  elif [[ -z ${NNODES:-} ]] && ((${SLURM_JOB_NUM_NODES:-1} > 1)); then
    fail "this job has $SLURM_JOB_NUM_NODES nodes: start the script by srun --ntasks-per-node=1, or set NNODES"
  fi
  NNODES=${NNODES:-1}
  require_positive_integer NNODES "$NNODES"
  TORCHRUN_ARGS=(--nproc-per-node "$GPUS_PER_NODE")
  if ((NNODES == 1)); then
    TORCHRUN_ARGS+=(--standalone) # picks a free port, so that two runs can share a machine
    return
  fi
  [[ -n ${MASTER_ADDR:-} ]] || fail "NNODES=$NNODES needs MASTER_ADDR, the address of node 0"
  if [[ ! ${NODE_RANK:-} =~ ^(0|[1-9][0-9]*)$ ]] || ((NODE_RANK >= NNODES)); then
    fail "NNODES=$NNODES needs a NODE_RANK from 0 to $((NNODES - 1)), got '${NODE_RANK:-}'"
  fi
  TORCHRUN_ARGS+=(--nnodes "$NNODES" --node-rank "$NODE_RANK"
    --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}")
}

launch() { # SCRIPT FLAGS...
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
