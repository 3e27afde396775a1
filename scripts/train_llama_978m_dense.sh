#!/usr/bin/env bash
# LLaMA-like, 978M active parameters, the dense baseline (978M parameters).
# Hardware: 8 GPUs of 80 GB; weights, gradients and optimizer state fill 7.3 GB of each.
# Time: about 80 h if each GPU sustains 100 TFLOP/s (arithmetic: 2.3e20 FLOP in all; not measured here).
# Expected loss: 1.822 in validation after 60,000 iterations on the Pile (the paper's).
# Arguments and environment: --help, or train_llama_base.sh.
METHOD=dense MODEL_SIZE=978m
NUM_LAYERS=24 HIDDEN_SIZE=1536 FFN_HIDDEN_SIZE=6144 NUM_ATTENTION_HEADS=16 NUM_QUERY_GROUPS=4
RECOMPUTE=${RECOMPUTE:-full}
source "$(dirname -- "${BASH_SOURCE[0]}")/train_llama_base.sh"
