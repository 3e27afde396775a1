#!/usr/bin/env bash
# The study of methods at its smallest, from nothing: text, dense, TopK and ReMoE of the nano size at two seeds each,
# their table, and whether the recorded differences come out again (exit status 1 if not, 2 if that could not be told).
# `make study` starts it.
#   RUNS=/elsewhere make study      trains anew; in RUNS [runs] what is finished is not trained again
# Hardware: two CPU cores. Time: under 30 minutes with installation and text.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d .venv/bin ] && PATH=$PWD/.venv/bin:$PATH
RUNS=${RUNS:-runs}
unset DATA # of the caller: the sweep reads the text in data/eight
SWEEP=(scripts/sweep.py experiments/methods/sweep.yaml --runs "$RUNS"
    --only 'dense_x1_s[12]' 'topk_E8_k1_G1_s[12]' 'relu_E8_k1_G1_s[12]')
START=$SECONDS
say() { printf '\n== %s (%d s)\n' "$1" $((SECONDS - START)); }

say "1/3 text: eight domains"
bash experiments/families/eight_domains.sh
say "2/3 six models, two at a time"
python "${SWEEP[@]}" --jobs "${JOBS:-2}"
say "3/3 table, and the recorded differences"
status=0
python "${SWEEP[@]}" --collect --output "$RUNS/study" --check experiments/methods/results.json || status=$?
case $status in
    0) say "the recorded directions come out again" ;;
    1) say "NOT repeated: a recorded difference does not come out again, or a run is missing, see above" ;;
    *) say "not compared, see above" ;;
esac
exit "$status"
