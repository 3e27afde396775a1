"""Models of transformers' form that are small enough to run in a test."""

import torch

import remoe.hf as hf

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "moe_intermediate_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,  # large, so that tokens differ in what they choose
    "pad_token_id": 0,
}

# What a ReMoE model may be, one setting or set of settings a row.
VARIANTS = {
    "plain": {},
    "router in the weights' dtype": {"router_dtype": None},
    "dense and sparse layers": {"moe_layers": [0, 1]},
    "all layers dense": {"moe_layers": [0, 0]},
    "shared expert": {"shared_expert_intermediate_size": 24},
    "gated shared expert": {"shared_expert_intermediate_size": 24, "shared_expert_gate": True},
    "thresholds": {"router_thresholds": [0.3, -0.2]},
    "norm of each head": {"qk_norm": "head"},
    "norm over all heads": {"qk_norm": "full"},
    "bias of q, k and v": {"attention_bias": True},
    "tied embeddings": {"tie_word_embeddings": True},
    "wide heads": {"head_dim": 16, "num_key_value_heads": 4},
    "scaled positions": {
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    },
    "one expert": {"num_experts": 1},
    "widths that grouped_mm refuses": {"moe_intermediate_size": 15},
}


def tiny_config(**settings):
    return hf.ReMoEConfig(**(SIZES | settings))


def tiny_model(seed=1, **settings):
    torch.manual_seed(seed)
    return hf.ReMoEForCausalLM(tiny_config(**settings)).eval()


def tokens(batch=2, length=11, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, SIZES["vocab_size"], (batch, length), generator=generator)
