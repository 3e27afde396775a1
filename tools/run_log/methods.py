"""Routing methods in words, by the names of `--moe-routing`."""

METHOD_NAMES = {
    "dense": "dense",
    "topk": "TopK",
    "topk-unbalanced": "TopK, no balancing",
    "topk-warmup": "TopK, near-dense warm-up",
    "topk-bias": "TopK, balanced by bias",
    "expert-choice": "expert choice",
    "hash": "hash",
    "sparsemixer": "SparseMixer-v2",
    "relu": "ReMoE",
    "relu-l1": "ReMoE, plain L1",
}
