"""A trained checkpoint in one process: Megatron's own forward pass for evaluation and generation.

`stored_model` builds and loads the model, whatever layout saved it; `causal_lm` gives it the interface
of transformers, for which evaluation harnesses and `generate` are written.
"""
