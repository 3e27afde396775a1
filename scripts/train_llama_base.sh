# shellcheck shell=bash
# The recipe of every train_llama_*.sh. Arguments ("" keeps the default in brackets; --help prints this):
#   1 GPUs per node [8]  2 iterations [60000]  3 micro batch, in sequences [16]
#   4 experts [8]; for a dense model, the factor that widens its FFN [1]
#   5 granularity [1]    6 project [remoe]     7 and on: more Megatron flags, which win over the recipe's
# Environment: DRY_RUN=1 prints the command. DATA_ROOT [data]; under it DATA_NAME [train] and TOKENIZER_NAME
# [gpt2_tokenizer]; or in full TOKENIZER_MODEL and DATA_PATH: a prefix, a blend "0.7 A 0.3 B", or mock. RUN_ROOT [runs],
# RUN_NAME, EXTRA_ARGS. TP, PP, CP, EP [1]. WANDB_API_KEY turns wandb on. Several nodes: MASTER_ADDR, MASTER_PORT,
# NNODES, NODE_RANK, or srun --ntasks-per-node=1.
set -euo pipefail
REPO_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
if [[ ${1:-} == --help ]]; then
  exec awk 'FNR == 1 {on = 1; next} !/^#/ {on = 0} on {sub(/^# ?/, ""); print}' "$0" "${BASH_SOURCE[0]}"
fi
source "$REPO_ROOT/scripts/lib/checks.sh"
source "$REPO_ROOT/scripts/lib/launch.sh"
source "$REPO_ROOT/scripts/lib/settings.sh"
source "$REPO_ROOT/scripts/lib/moe_args.sh"

MODEL_ARGS=(--num-layers "$NUM_LAYERS" --hidden-size "$HIDDEN_SIZE" --ffn-hidden-size "$FFN_HIDDEN_SIZE"
  --num-attention-heads "$NUM_ATTENTION_HEADS" --group-query-attention --num-query-groups "$NUM_QUERY_GROUPS"
  --seq-length "$SEQ_LENGTH" --max-position-embeddings "$SEQ_LENGTH" --position-embedding-type rope
  --rotary-base 1000000 --normalization RMSNorm --swiglu --disable-bias-linear --init-method-std 0.01
  --attention-dropout 0 --hidden-dropout 0 --untie-embeddings-and-output-weights
  --make-vocab-size-divisible-by 1024)

DATA_ARGS=(--data-path "${DATA_PREFIXES[@]}" --split "969,30,1"
  --tokenizer-type "${TOKENIZER_TYPE:-HuggingFaceTokenizer}" --tokenizer-model "$TOKENIZER_MODEL")
if [[ $DATA_PATH == mock ]]; then
  DATA_ARGS=(--mock-data --tokenizer-type NullTokenizer --vocab-size "${VOCAB_SIZE:-50257}")
fi

TRAINING_ARGS=(--train-iters "$TRAIN_ITERS" --micro-batch-size "$MICRO_BATCH_SIZE"
  --global-batch-size "$GLOBAL_BATCH_SIZE" --lr "${LR:-5e-4}" --min-lr "${MIN_LR:-5e-5}" --lr-decay-style cosine
  --lr-warmup-fraction "${LR_WARMUP_FRACTION:-0.01}" --clip-grad 1.0 --optimizer adam --adam-beta1 0.9
  --adam-beta2 0.999 --adam-eps 1e-8 --weight-decay 0.01 --seed "${SEED:-1234}")
case ${PRECISION:-bf16} in
  bf16) TRAINING_ARGS+=(--bf16) ;;
  fp32) ;;
  *) fail "PRECISION must be bf16 or fp32, got '$PRECISION'" ;;
esac
case ${RECOMPUTE:-none} in
  none) ;;
  moe) TRAINING_ARGS+=(--recompute-granularity selective --recompute-modules moe) ;;
  full) TRAINING_ARGS+=(--recompute-granularity full --recompute-method uniform --recompute-num-layers 1) ;;
  *) fail "RECOMPUTE must be none, moe or full, got '$RECOMPUTE'" ;;
esac

MODEL_PARALLEL_ARGS=(--tensor-model-parallel-size "$TP" --pipeline-model-parallel-size "$PP"
  --context-parallel-size "$CP" --expert-model-parallel-size "$EP")
if ((TP > 1)) && [[ ${SEQUENCE_PARALLEL:-1} != 0 ]]; then
  MODEL_PARALLEL_ARGS+=(--sequence-parallel) # Megatron trains MoE layers under TP only with it
fi
if [[ ${DISTRIBUTED_OPTIMIZER:-1} != 0 ]]; then
  MODEL_PARALLEL_ARGS+=(--use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather)
fi

LOGGING_ARGS=(--log-interval "${LOG_INTERVAL:-10}" --log-throughput --tensorboard-dir "$RUN_DIR/tensorboard"
  --eval-interval "${EVAL_INTERVAL:-1000}" --eval-iters "${EVAL_ITERS:-10}" --save "$RUN_DIR/checkpoints"
  --load "$RUN_DIR/checkpoints" --save-interval "$SAVE_INTERVAL" --save-retain-interval $((10 * SAVE_INTERVAL)))
if [[ -n ${WANDB_API_KEY:-} ]]; then
  LOGGING_ARGS+=(--wandb-project "$PROJECT" --wandb-exp-name "$RUN_NAME" --wandb-save-dir "$RUN_DIR/wandb")
fi

ENVIRONMENT=("CUDA_DEVICE_MAX_CONNECTIONS=${CUDA_DEVICE_MAX_CONNECTIONS:-1}"
  "PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}")
launch "$REPO_ROOT/pretrain_gpt.py" "${MODEL_ARGS[@]}" "${MOE_ARGS[@]}" "${DATA_ARGS[@]}" "${TRAINING_ARGS[@]}" \
  "${MODEL_PARALLEL_ARGS[@]}" "${LOGGING_ARGS[@]}" "${EXTRA_FLAGS[@]}"
