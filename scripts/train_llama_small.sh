#!/usr/bin/env bash
# The size of a study on one GPU: METHOD=remoe [the default] or another of docs/baselines.md; argument 1 counts GPUs.
# 8 layers, hidden 384: 23M active parameters with 8,192 tokens in the vocabulary, 122M in all with 8 experts.
# Hardware: one GPU of 16 GB or more. Time: not measured, no GPU has run it; experiments/gpu_hour/sweep.yaml has the arithmetic.
# Data: as experiments/families/small_eight.yaml says; or DATA_PATH=mock, which needs none.
METHOD=${METHOD:-remoe} MODEL_SIZE=small
NUM_LAYERS=8 HIDDEN_SIZE=384 FFN_HIDDEN_SIZE=1536 NUM_ATTENTION_HEADS=6 NUM_QUERY_GROUPS=2
GPUS_PER_NODE=${GPUS_PER_NODE:-1} TRAIN_ITERS=${TRAIN_ITERS:-2000} MICRO_BATCH_SIZE=${MICRO_BATCH_SIZE:-32}
SEQ_LENGTH=${SEQ_LENGTH:-512} GLOBAL_BATCH_SIZE=${GLOBAL_BATCH_SIZE:-32} VOCAB_SIZE=${VOCAB_SIZE:-8192}
LR=${LR:-1e-3} MIN_LR=${MIN_LR:-1e-4} LR_WARMUP_FRACTION=${LR_WARMUP_FRACTION:-0.05}
DISTRIBUTED_OPTIMIZER=${DISTRIBUTED_OPTIMIZER:-0} # one GPU has nothing to share, and with torch's AdamW it cannot resume
DATA_NAME=${DATA_NAME:-small} TOKENIZER_NAME=${TOKENIZER_NAME:-small_tokenizer}
EVAL_INTERVAL=${EVAL_INTERVAL:-500} SAVE_INTERVAL=${SAVE_INTERVAL:-500}
source "$(dirname -- "${BASH_SOURCE[0]}")/train_llama_base.sh"
