#!/usr/bin/env bash
# The size at which a study with seeds fits two cores: METHOD=remoe [the default] or another
# of docs/baselines.md; argument 1 counts processes.
# Hardware: CPU, one core a run. Time: 0.2 s an iteration (E=8, k=1), so 2 minutes for the 600 iterations.
# Expected loss: experiments/methods/README.md has it, with its error over seeds, for every method.
# Data: eight domains, as experiments/families/eight_domains.sh builds them; or DATA_PATH=mock, which needs none.
METHOD=${METHOD:-remoe} MODEL_SIZE=nano
NUM_LAYERS=4 HIDDEN_SIZE=64 FFN_HIDDEN_SIZE=256 NUM_ATTENTION_HEADS=4 NUM_QUERY_GROUPS=2
GPUS_PER_NODE=${GPUS_PER_NODE:-1} TRAIN_ITERS=${TRAIN_ITERS:-600} MICRO_BATCH_SIZE=${MICRO_BATCH_SIZE:-16}
SEQ_LENGTH=${SEQ_LENGTH:-128} GLOBAL_BATCH_SIZE=${GLOBAL_BATCH_SIZE:-16} VOCAB_SIZE=${VOCAB_SIZE:-4096}
PRECISION=${PRECISION:-fp32} LR=${LR:-2e-3} MIN_LR=${MIN_LR:-2e-4} LR_WARMUP_FRACTION=${LR_WARMUP_FRACTION:-0.05}
DISTRIBUTED_OPTIMIZER=${DISTRIBUTED_OPTIMIZER:-0} # with torch's AdamW it cannot resume
DATA_NAME=${DATA_NAME:-nano} TOKENIZER_NAME=${TOKENIZER_NAME:-nano_tokenizer}
LOG_INTERVAL=${LOG_INTERVAL:-10} EVAL_INTERVAL=${EVAL_INTERVAL:-200} SAVE_INTERVAL=${SAVE_INTERVAL:-200}
source "$(dirname -- "${BASH_SOURCE[0]}")/train_llama_base.sh"
