#!/usr/bin/env bash
# Trains the models that the studies of evaluation, ways in and k start from: dense, TopK and ReMoE of one
# size (4 layers, hidden 128, FFN 512; E=8, k=1), the same 3.1M tokens of eight domains, one seed.
# Hardware: two CPU cores. Time: 25 minutes. What is there is not made again.
#   bash experiments/three_models/train.sh      writes data/eight and runs/three_models/{dense,moe,remoe}[-hf]
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d .venv/bin ] && PATH=$PWD/.venv/bin:$PATH
DATA=${DATA:-data/eight}
RUNS=${RUNS:-runs/three_models}
STEPS=${STEPS:-1500}

DATA=$DATA bash experiments/families/eight_domains.sh
BLEND=()
for index in "$DATA"/indexed/*_text_document.idx; do
    BLEND+=(1 "${index%.idx}")
done
for METHOD in dense moe remoe; do
    [ -f "$RUNS/$METHOD/done" ] && continue
    mkdir -p "$RUNS/$METHOD"
    experts=8
    [ "$METHOD" = dense ] && experts="" # else it would be a factor of its width
    METHOD=$METHOD TOPK=1 SEED=1 SEQ_LENGTH=128 L1_COEFF_INIT=1e-5 L1_COEFF_MULTIPLIER=1.05 \
        EVAL_INTERVAL=500 EVAL_ITERS=40 SAVE_INTERVAL=500 RUN_ROOT=$RUNS RUN_NAME=$METHOD \
        DATA_PATH=${BLEND[*]} TOKENIZER_MODEL=$DATA/tokenizer \
        EXTRA_ARGS='--tensorboard-log-interval 10 --num-workers 0 --split 98,2,0' \
        bash scripts/train_llama_tiny.sh 1 "$STEPS" 16 "$experts" 1 . >"$RUNS/$METHOD/log" 2>&1
    touch "$RUNS/$METHOD/done"
done
for METHOD in dense moe remoe; do
    [ -d "$RUNS/$METHOD-hf" ] ||
        python tools/checkpoint/convert.py --to hf --input "$RUNS/$METHOD/checkpoints" --output "$RUNS/$METHOD-hf"
done
