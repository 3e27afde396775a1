#!/usr/bin/env bash
# LLaMA-like, 182M active parameters, ReLU routing (777M parameters with 8 experts).
# Hardware: 8 GPUs of 80 GB; weights, gradients and optimizer state fill 5.8 GB of each.
# Time: about 12 h if each GPU sustains 100 TFLOP/s (arithmetic: 3.4e19 FLOP in all; not measured here).
# Its first 100 steps or so are near-dense: they need the most memory and take 2.3 times TopK's time.
# Expected loss: 1.921 in validation after 60,000 iterations on the Pile (the paper's).
# Arguments and environment: --help, or train_llama_base.sh.
METHOD=remoe MODEL_SIZE=182m
NUM_LAYERS=12 HIDDEN_SIZE=768 FFN_HIDDEN_SIZE=3072 NUM_ATTENTION_HEADS=12 NUM_QUERY_GROUPS=4
RECOMPUTE=${RECOMPUTE:-moe}
source "$(dirname -- "${BASH_SOURCE[0]}")/train_llama_base.sh"
