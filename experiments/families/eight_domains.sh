#!/usr/bin/env bash
# The text of the studies: eight domains of 3 MB each in DATA [data/eight], a tokenizer of 4,096 entries, an index of each
# domain. Time: 4 minutes on two cores, of which downloads are the most. What is there is not made again.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d .venv/bin ] && PATH=$PWD/.venv/bin:$PATH
DATA=${DATA:-data/eight}
CACHE=${CACHE:-$DATA/corpus_cache} # of downloads
TOKENIZER=(--tokenizer-type HuggingFaceTokenizer --tokenizer-model "$DATA/tokenizer")

# The smallest profile with Debian's packages, of which the eighth domain is made: manual pages.
python tools/prepare_corpus.py --output "$DATA/corpus" --profile medium --mb-per-domain 3 --cache "$CACHE"
[ -f "$DATA/tokenizer/tokenizer.json" ] ||
    python tools/train_tokenizer.py --input "$DATA"/corpus/*.train.jsonl --vocab-size 4096 \
        --max-bytes 8000000 --output "$DATA/tokenizer"
mkdir -p "$DATA/indexed"
for text in "$DATA"/corpus/*.train.jsonl; do
    prefix=$DATA/indexed/$(basename "$text" .train.jsonl)
    [ -f "${prefix}_text_document.idx" ] ||
        python tools/preprocess_data.py --input "$text" --output-prefix "$prefix" "${TOKENIZER[@]}" --append-eod
done
