#!/usr/bin/env bash
# The text of the studies: eight domains of MB [3] megabytes each in DATA [data/eight], a tokenizer of VOCABULARY [4096] entries,
# an index of each domain. Time: 4 minutes on two cores, of which downloads are the most. What is there is not made again.
# PROFILE [medium]: of tools/prepare_corpus.py; the smallest with Debian's packages, of which the eighth domain, manual pages, is made.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d .venv/bin ] && PATH=$PWD/.venv/bin:$PATH
DATA=${DATA:-data/eight} PROFILE=${PROFILE:-medium} MB=${MB:-3} VOCABULARY=${VOCABULARY:-4096}
CACHE=${CACHE:-$DATA/corpus_cache} # of downloads
TOKENIZER=(--tokenizer-type HuggingFaceTokenizer --tokenizer-model "$DATA/tokenizer")

python tools/prepare_corpus.py --output "$DATA/corpus" --profile "$PROFILE" --mb-per-domain "$MB" --cache "$CACHE"
[ -f "$DATA/tokenizer/tokenizer.json" ] ||
    python tools/train_tokenizer.py --input "$DATA"/corpus/*.train.jsonl --vocab-size "$VOCABULARY" \
        --max-bytes 8000000 --output "$DATA/tokenizer"
mkdir -p "$DATA/indexed"
for text in "$DATA"/corpus/*.train.jsonl; do
    prefix=$DATA/indexed/$(basename "$text" .train.jsonl)
    [ -f "${prefix}_text_document.idx" ] ||
        python tools/preprocess_data.py --input "$text" --output-prefix "$prefix" "${TOKENIZER[@]}" --append-eod
done
