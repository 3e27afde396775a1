#!/usr/bin/env bash
# From raw text to a trained, evaluated, converted ReMoE (E=8, k=1; 7.5M parameters) and a page that shows it, on CPU or GPU.
#
#   make quickstart                       the first call builds data and model; a second one goes on:
#                                         it skips finished parts and resumes from the checkpoint
#   make quickstart QUICKSTART_ARGS=--fresh     trains anew (the data stays)
#
# Hardware: 2 CPU cores, 4 GB. Time: under 10 minutes, training about 3. What to see: loss from 8.3 to
# about 5.2; sparsity 0.5 at first, down to 0.2, then up to its target 0.875 (about step 110), where it
# stays.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -d .venv/bin ] && PATH=$PWD/.venv/bin:$PATH # what `make` built
DATA=${DATA:-data/quickstart}
RUN=${RUN:-runs/quickstart}
STEPS=${STEPS:-400}
SEQ_LENGTH=${SEQ_LENGTH:-128}
if [ "${1:-}" = "--fresh" ]; then
    rm -rf "$RUN"
elif [ -n "${1:-}" ]; then
    echo "quickstart.sh: unknown option $1 (there is --fresh)" >&2
    exit 2
fi
mkdir -p "$RUN"
START=$SECONDS
failed() { # LOG
    grep -A8 -E '^(\[rank0\]: )?[A-Za-z.]*Error|pretrain_gpt.py: ' "$1" | head -20 >&2
    echo "quickstart.sh: failed; the whole log is in $1" >&2
    exit 1
}
say() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - START)); }

say "1/7 text: distinct domains from packages"
read -ra CORPUS_ARGS <<<"${CORPUS_ARGS:-}"
python tools/prepare_corpus.py --output "$DATA/corpus" "${CORPUS_ARGS[@]}"

say "2/7 tokenizer: byte-level BPE, 4096 entries"
TOKENIZER=(--tokenizer-type HuggingFaceTokenizer --tokenizer-model "$DATA/tokenizer")
if [ -f "$DATA/tokenizer/tokenizer.json" ]; then
    echo "already there: $DATA/tokenizer"
else
    python tools/train_tokenizer.py --input "$DATA"/corpus/*.train.jsonl --vocab-size 4096 \
        --max-bytes 6000000 --output "$DATA/tokenizer"
fi

say "3/7 indexed data"
index() { # index NAME FILE...: writes $DATA/indexed/NAME_text_document.{bin,idx} unless it is there
    local prefix=$DATA/indexed/$1
    [ -f "${prefix}_text_document.idx" ] && return
    python tools/preprocess_data.py --input "${@:2}" --output-prefix "$prefix" "${TOKENIZER[@]}" --append-eod
}
mkdir -p "$DATA/indexed"
index train "$DATA"/corpus/*.train.jsonl
DOMAINS=() VALID=()
for file in "$DATA"/corpus/*.valid.jsonl; do
    domain=$(basename "$file" .valid.jsonl)
    index "valid.$domain" "$file"
    DOMAINS+=("$domain")
    VALID+=("$DATA/indexed/valid.${domain}_text_document")
done
echo "domains: ${DOMAINS[*]}"

MODEL_ARGS=(
    --num-layers 4 --hidden-size 128 --ffn-hidden-size 512 --num-attention-heads 4
    --group-query-attention --num-query-groups 2 --seq-length "$SEQ_LENGTH"
    --max-position-embeddings "$SEQ_LENGTH" --position-embedding-type rope --rotary-base 1000000
    --normalization RMSNorm --swiglu --disable-bias-linear --untie-embeddings-and-output-weights
    --attention-dropout 0 --hidden-dropout 0 --init-method-std 0.02 --make-vocab-size-divisible-by 128
)
MOE_ARGS=(
    --moe-relu-routing --num-experts 8 --moe-router-topk 1 --moe-router-dtype fp32
    --moe-token-dispatcher-type alltoall
    # The defaults, 1e-8 and 1.2, are for batches of 500,000 tokens; these circle less at 2,048.
    --moe-relu-l1-reg-coeff-init 1e-6 --moe-relu-l1-reg-coeff-multiplier 1.1
)
DATA_ARGS=("${TOKENIZER[@]}" --train-data-path "$DATA/indexed/train_text_document"
    --data-cache-path "$DATA/cache" --num-workers 0)
TRAINING_ARGS=(
    --micro-batch-size 16 --global-batch-size 16 --train-iters "$STEPS" --seed 1234
    --lr 1e-3 --min-lr 1e-4 --lr-decay-style cosine --lr-warmup-fraction 0.05
    --weight-decay 0.1 --adam-beta2 0.95 --clip-grad 1.0
    --override-opt-param-scheduler # so that a second call may ask for more STEPS
)
LOGGING_ARGS=(
    --log-interval 20 --eval-interval 100 --eval-iters 4 --tensorboard-dir "$RUN/tensorboard"
    --tensorboard-log-interval 1 --save "$RUN/checkpoint" --save-interval 200 --load "$RUN/checkpoint"
)
COMMON=(torchrun --standalone --nproc-per-node 1 pretrain_gpt.py "${MODEL_ARGS[@]}" "${MOE_ARGS[@]}"
    "${DATA_ARGS[@]}" "${TRAINING_ARGS[@]}" "${LOGGING_ARGS[@]}")

say "4/7 training, $STEPS steps; the whole log is in $RUN/train.log"
"${COMMON[@]}" --valid-data-path "${VALID[@]}" --record-routing "$RUN/routing" --record-routing-interval 20 2>&1 |
    tee "$RUN/train.log" | grep --line-buffered -E '> ReMoE| iteration +[0-9]+/|validation loss|(Error|pretrain_gpt.py): ' |
    sed -uE 's/^ *\[[^]]*\] *//; s/ consumed samples: *[0-9]+ \|//; s/ \| loss scale.*//' ||
    failed "$RUN/train.log"

say "5/7 validation loss by domain"
# One sequence at a time: Megatron's full validation takes as many batches as there are sequences.
"${COMMON[@]}" --valid-data-path "${VALID[@]}" --micro-batch-size 1 --global-batch-size 1 \
    --skip-train --full-validation --multiple-validation-sets --validation-set-names "${DOMAINS[@]}" \
    >"$RUN/evaluate.log" 2>&1 || failed "$RUN/evaluate.log"
python tools/plot_run.py "$RUN" --evaluation-log "$RUN/evaluate.log" --title "ReMoE quickstart: 8 experts, 1 active on average"

say "6/7 Hugging Face: the same model for transformers, and what it writes"
rm -rf "$RUN/hf" # of the call before
python tools/checkpoint/convert.py --to hf --input "$RUN/checkpoint" --output "$RUN/hf" >"$RUN/convert.log" 2>&1 ||
    failed "$RUN/convert.log"
grep 'largest difference' "$RUN/convert.log"
python tools/generate.py "$RUN/hf" --prompt "And it came to pass" --max-new-tokens 40 \
    --temperature 0.7 --top-p 0.9 2>>"$RUN/convert.log" || failed "$RUN/convert.log"
say "7/7 what its experts do: at both checkpoints, on validation text of every domain"
python tools/analyze_routing.py "$RUN" --tokens 8192 >"$RUN/analysis.log" 2>&1 || failed "$RUN/analysis.log"
python tools/report.py "$RUN" --title "ReMoE quickstart: 8 experts, 1 active on average"
cat <<END

done in $((SECONDS - START)) s
report      $RUN/report.html (open it in a browser)
checkpoint  $RUN/checkpoint
transformers  AutoModelForCausalLM.from_pretrained("$RUN/hf", trust_remote_code=True)
curves      tensorboard --logdir $RUN/tensorboard
next        other settings: edit or copy examples/quickstart.sh; the paper's runs: scripts/train_llama_182m_remoe.sh --help
END
