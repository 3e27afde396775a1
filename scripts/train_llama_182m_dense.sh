#!/usr/bin/env bash
# LLaMA-like, 182M active parameters, the dense baseline (182M parameters).
# Hardware: 8 GPUs of 80 GB; weights, gradients and optimizer state fill 1.4 GB of each.
# Time: about 10 h if each GPU sustains 100 TFLOP/s (arithmetic: 2.9e19 FLOP in all; not measured here).
# Expected loss: 2.042 in validation after 60,000 iterations on the Pile, or 1.873 with argument 4 = 8 (the paper's).
# Arguments and environment: --help, or train_llama_base.sh.
METHOD=dense MODEL_SIZE=182m
NUM_LAYERS=12 HIDDEN_SIZE=768 FFN_HIDDEN_SIZE=3072 NUM_ATTENTION_HEADS=12 NUM_QUERY_GROUPS=4
RECOMPUTE=${RECOMPUTE:-none}
source "$(dirname -- "${BASH_SOURCE[0]}")/train_llama_base.sh"
