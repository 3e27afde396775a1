#!/usr/bin/env bash
# Arguments of every train_llama_*.sh ("" keeps the default in brackets; --help prints this):
#   1 GPUs per node [8]  2 iterations [60000]  3 micro batch, in sequences [16]
#   4 experts [8]; for a dense model, the factor that widens its FFN [1]
#   5 granularity [1]    6 project [remoe]     7 and on: more Megatron flags, which win over the recipe's
# Environment: DRY_RUN=1 prints the command. DATA_ROOT [data], DATA_PATH [$DATA_ROOT/train_text_document; a prefix,
# a blend "0.7 A 0.3 B", or mock], TOKENIZER_MODEL, RUN_ROOT [runs], RUN_NAME, EXTRA_ARGS; TP, PP, CP, EP [1]; several
# nodes: MASTER_ADDR, MASTER_PORT, NNODES, NODE_RANK, or srun --ntasks-per-node=1. WANDB_API_KEY turns wandb on.
set -euo pipefail
SCRIPTS_DIR=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd) && REPO_ROOT=${SCRIPTS_DIR%/*}
# shellcheck source=scripts/lib/launch.sh
source "$SCRIPTS_DIR/lib/launch.sh"
# shellcheck source=scripts/lib/settings.sh
source "$SCRIPTS_DIR/lib/settings.sh"

MODEL_ARGS=(--num-layers "$NUM_LAYERS" --hidden-size "$HIDDEN_SIZE" --ffn-hidden-size "$FFN_HIDDEN_SIZE"
  --num-attention-heads "$NUM_ATTENTION_HEADS" --group-query-attention --num-query-groups "$NUM_QUERY_GROUPS"
  --seq-length "$SEQ_LENGTH" --max-position-embeddings "$SEQ_LENGTH" --position-embedding-type rope
  --rotary-base 1000000 --normalization RMSNorm --swiglu --disable-bias-linear --init-method-std 0.01
  --attention-dropout 0 --hidden-dropout 0 --untie-embeddings-and-output-weights
  --make-vocab-size-divisible-by 1024)

MOE_ARGS=()
if [[ $METHOD != dense ]]; then  # sizes before granularity: the adapter multiplies E and k, and divides the width
  MOE_ARGS=(--num-experts "$NUM_EXPERTS" --moe-router-topk "$TOPK" --moe-granularity "$GRANULARITY"
    --moe-ffn-hidden-size "$FFN_HIDDEN_SIZE" --moe-router-dtype fp32 --moe-token-dispatcher-type alltoall)
  ((${MOE_GROUPED_GEMM:-1})) && MOE_ARGS+=(--moe-grouped-gemm)  # upstream's local spec ignores it: one GEMM an expert
fi
case $METHOD in
  moe) MOE_ARGS+=(--moe-router-pre-softmax --moe-router-load-balancing-type aux_loss
    --moe-aux-loss-coeff "${AUX_LOSS_COEFF:-0.01}") ;;
  remoe) MOE_ARGS+=(--moe-relu-routing --moe-relu-l1-reg-coeff-init "${L1_COEFF_INIT:-1e-8}"
    --moe-relu-l1-reg-coeff-multiplier "${L1_COEFF_MULTIPLIER:-1.2}") ;;
esac

DATA_ARGS=(--data-path "${DATA_PREFIXES[@]}" --split 969,30,1
  --tokenizer-type "${TOKENIZER_TYPE:-HuggingFaceTokenizer}" --tokenizer-model "$TOKENIZER_MODEL")
if [[ $DATA_PATH == mock ]]; then
  DATA_ARGS=(--mock-data --tokenizer-type NullTokenizer --vocab-size "${VOCAB_SIZE:-50257}")
fi

TRAINING_ARGS=(--train-iters "$TRAIN_ITERS" --micro-batch-size "$MICRO_BATCH_SIZE"
  --global-batch-size "$GLOBAL_BATCH_SIZE" --lr "${LR:-5e-4}" --min-lr "${MIN_LR:-5e-5}" --lr-decay-style cosine
  --lr-warmup-fraction 0.01 --clip-grad 1.0 --optimizer adam --adam-beta1 0.9 --adam-beta2 0.999 --adam-eps 1e-8
  --weight-decay 0.01 --seed "${SEED:-1234}")
[[ ${PRECISION:-bf16} == bf16 ]] && TRAINING_ARGS+=(--bf16)
case ${RECOMPUTE:-none} in
  none) ;;
  moe) TRAINING_ARGS+=(--recompute-granularity selective --recompute-modules moe) ;;
  full) TRAINING_ARGS+=(--recompute-granularity full --recompute-method uniform --recompute-num-layers 1) ;;
  *) fail "RECOMPUTE must be none, moe or full, got '$RECOMPUTE'" ;;
esac

MODEL_PARALLEL_ARGS=(--tensor-model-parallel-size "$TP" --pipeline-model-parallel-size "$PP"
  --context-parallel-size "$CP" --expert-model-parallel-size "$EP")
((TP > 1)) && MODEL_PARALLEL_ARGS+=(--sequence-parallel)  # Megatron trains MoE layers under TP only with it
((${DISTRIBUTED_OPTIMIZER:-1})) &&
  MODEL_PARALLEL_ARGS+=(--use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather)

SAVE_INTERVAL=${SAVE_INTERVAL:-1000}
LOGGING_ARGS=(--log-interval "${LOG_INTERVAL:-10}" --log-throughput --tensorboard-dir "$RUN_DIR/tensorboard"
  --eval-interval "${EVAL_INTERVAL:-1000}" --eval-iters "${EVAL_ITERS:-10}" --save "$RUN_DIR/checkpoints"
  --load "$RUN_DIR/checkpoints" --save-interval "$SAVE_INTERVAL" --save-retain-interval "$((10 * SAVE_INTERVAL))")
[[ -n ${WANDB_API_KEY:-} ]] && LOGGING_ARGS+=(--wandb-project "$PROJECT" --wandb-exp-name "$RUN_NAME"
  --wandb-save-dir "$RUN_DIR/wandb")

ENVIRONMENT=("CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}"
  "PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}")
launch "$REPO_ROOT/pretrain_gpt.py" "${MODEL_ARGS[@]}" "${MOE_ARGS[@]}" "${DATA_ARGS[@]}" "${TRAINING_ARGS[@]}" \
  "${MODEL_PARALLEL_ARGS[@]}" "${LOGGING_ARGS[@]}" "${EXTRA_FLAGS[@]}"
