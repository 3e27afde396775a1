"""The settings that make a model what it is, by their flags: what a checkpoint must agree on."""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One setting of a model.

    Attributes:
        flag: As the user writes it.
        name: Of the argument.
        matters: Whether it says anything about the model of these arguments.
        read: What the arguments say, the same for every way to write it; else their value.
    """

    flag: str
    name: str
    matters: Callable[[Namespace], bool] = lambda args: True
    read: Callable[[Namespace], object] | None = None

    def value(self, args: Namespace) -> object:
        """What validated arguments say."""
        value = self.read(args) if self.read else getattr(args, self.name)
        return list(value) if isinstance(value, tuple) else value


def moe_layers(args: Namespace) -> list[int]:
    """The pattern of `--moe-layer-freq`, 1 for an MoE layer, whether given as a number or a list."""
    freq = getattr(args, "moe_layer_freq", 1)
    if isinstance(freq, int):
        return [int(i % freq == 0) for i in range(args.num_layers)]
    return list(freq)


# Methods of `--moe-routing` that have a router of `megatron.remoe.baselines`.
OWN_ROUTERS = ("topk-warmup", "expert-choice", "hash", "sparsemixer")


def has_experts(args: Namespace) -> bool:
    """An MoE model."""
    return bool(getattr(args, "num_experts", None))


def routes_by_topk(args: Namespace) -> bool:
    """An MoE model of Megatron's own."""
    return has_experts(args) and not getattr(args, "moe_relu_routing", False)


def routes_by_relu(args: Namespace) -> bool:
    """A ReMoE model."""
    return has_experts(args) and not routes_by_topk(args)


def routing_function(args: Namespace) -> str:
    """By what function the weights route: `relu`, `topk` (however balanced), or a baseline's name."""
    if routes_by_relu(args):
        return "relu"
    method = getattr(args, "moe_routing", None)
    return method if method in OWN_ROUTERS else "topk"


def keeps_experts_apart(args: Namespace) -> bool:
    """Whether `ReMoELayer` has the optimizer keep experts apart from dense parameters in any layout."""
    return has_experts(args) and routing_function(args) != "topk"


def _routes_by(method: str) -> Callable[[Namespace], bool]:
    return lambda args: has_experts(args) and getattr(args, "moe_routing", None) == method


def _query_groups(args: Namespace) -> int:
    # Megatron writes the number of heads into the arguments while it builds the model.
    return args.num_query_groups if args.group_query_attention else args.num_attention_heads


def _has_dense_layers(args: Namespace) -> bool:
    return not has_experts(args) or 0 in moe_layers(args)


def _learns_positions(args: Namespace) -> bool:
    return getattr(args, "position_embedding_type", None) == "learned_absolute"


def _scales_rope(args: Namespace) -> bool:
    return bool(getattr(args, "use_rope_scaling", False))


# Another value means other weights.
SHAPES = (
    Setting("--num-layers", "num_layers"),
    Setting("--hidden-size", "hidden_size"),
    Setting("--ffn-hidden-size", "ffn_hidden_size", _has_dense_layers),
    Setting("--num-attention-heads", "num_attention_heads"),
    Setting("--num-query-groups", "num_query_groups", read=_query_groups),
    Setting("--kv-channels", "kv_channels"),
    Setting("--multi-latent-attention", "multi_latent_attention"),
    Setting("--attention-output-gate", "attention_output_gate"),
    Setting("--swiglu", "swiglu"),
    Setting("--normalization", "normalization"),
    Setting("--disable-bias-linear", "add_bias_linear"),
    Setting("--add-qkv-bias", "add_qkv_bias"),
    Setting("--qk-layernorm", "qk_layernorm"),
    Setting("--untie-embeddings-and-output-weights", "untie_embeddings_and_output_weights"),
    Setting("--position-embedding-type", "position_embedding_type"),
    Setting("--max-position-embeddings", "max_position_embeddings", _learns_positions),
    Setting("--num-experts", "num_experts"),
    Setting("--moe-layer-freq", "moe_layer_freq", has_experts, moe_layers),
    Setting("--moe-ffn-hidden-size", "moe_ffn_hidden_size", has_experts),
    Setting(
        "--moe-shared-expert-intermediate-size", "moe_shared_expert_intermediate_size", has_experts
    ),
    Setting("--moe-shared-expert-gate", "moe_shared_expert_gate", has_experts),
    Setting("--moe-latent-size", "moe_latent_size", has_experts),
)

# Another value means another function of the same weights.
FUNCTION = (
    Setting("--norm-epsilon", "layernorm_epsilon"),
    Setting("--apply-layernorm-1p", "layernorm_zero_centered_gamma"),
    Setting(
        "--apply-residual-connection-post-layernorm", "apply_residual_connection_post_layernorm"
    ),
    Setting("--squared-relu", "squared_relu"),
    Setting("--quick-geglu", "quick_geglu"),
    Setting("--openai-gelu", "openai_gelu"),
    Setting("--qk-l2-norm", "qk_l2_norm"),
    Setting("--softmax-type", "softmax_type"),
    Setting("--window-size", "window_size"),
    Setting("--no-rope-freq", "no_rope_freq"),
    Setting("--rotary-base", "rotary_base"),
    Setting("--rotary-percent", "rotary_percent"),
    Setting("--rotary-interleaved", "rotary_interleaved"),
    Setting("--rotary-seq-len-interpolation-factor", "rotary_seq_len_interpolation_factor"),
    Setting("--use-rope-scaling", "use_rope_scaling"),
    Setting("--rope-scaling-factor", "rope_scaling_factor", _scales_rope),
    Setting("--moe-routing", "moe_routing", routes_by_topk, routing_function),
    Setting("--moe-sparsemixer-jitter", "moe_sparsemixer_jitter", _routes_by("sparsemixer")),
    Setting("--moe-hash-seed", "moe_hash_seed", _routes_by("hash")),
    Setting("--moe-router-topk", "moe_router_topk", routes_by_topk),
    Setting("--moe-router-pre-softmax", "moe_router_pre_softmax", routes_by_topk),
    Setting("--moe-router-score-function", "moe_router_score_function", routes_by_topk),
    Setting("--moe-router-topk-scaling-factor", "moe_router_topk_scaling_factor", routes_by_topk),
    Setting("--moe-router-num-groups", "moe_router_num_groups", routes_by_topk),
    Setting("--moe-router-group-topk", "moe_router_group_topk", routes_by_topk),
)

# The controller's: another value steers the same weights elsewhere, which may be meant.
CONTROLLER = (
    Setting("--moe-router-topk", "moe_router_topk", routes_by_relu),
    Setting(
        "--moe-relu-l1-reg-coeff-multiplier", "moe_relu_l1_reg_coeff_multiplier", routes_by_relu
    ),
    Setting(
        "--moe-relu-l1-reg-coeff-warmup-multiplier",
        "moe_relu_l1_reg_coeff_warmup_multiplier",
        routes_by_relu,
    ),
    Setting("--moe-relu-load-balancing", "moe_relu_load_balancing", routes_by_relu),
    Setting("--moe-relu-max-active-experts", "moe_relu_max_active_experts", routes_by_relu),
    Setting("--moe-relu-cap-steps", "moe_relu_cap_steps", routes_by_relu),
    Setting("--moe-topk-warmup-experts", "moe_topk_warmup_experts", _routes_by("topk-warmup")),
    Setting("--moe-topk-warmup-steps", "moe_topk_warmup_steps", _routes_by("topk-warmup")),
)


def _train_samples(args: Namespace) -> int:
    # A run by samples has iterations too, once it has begun.
    return args.train_samples or (args.train_iters or 0) * args.global_batch_size


def _decay_samples(args: Namespace) -> int:
    if args.lr_decay_samples or args.train_samples:
        return args.lr_decay_samples or args.train_samples
    return (args.lr_decay_iters or args.train_iters or 0) * args.global_batch_size


def _warmup_samples(args: Namespace) -> float:
    if args.lr_warmup_fraction is not None:
        return args.lr_warmup_fraction * _decay_samples(args)
    return args.lr_warmup_samples or args.lr_warmup_iters * args.global_batch_size


# Megatron's scheduler asserts these when it is loaded, long after the model was built.
SCHEDULE = (
    Setting("--lr", "lr"),
    Setting("--min-lr", "min_lr"),
    Setting("--lr-decay-style", "lr_decay_style"),
    Setting("--train-iters or -samples, in samples", "train_iters", read=_train_samples),
    Setting("--lr-decay-iters or -samples, in samples", "lr_decay_iters", read=_decay_samples),
    Setting("--lr-warmup, in samples", "lr_warmup_iters", read=_warmup_samples),
    Setting("--start-weight-decay or --weight-decay", "start_weight_decay"),
    Setting("--end-weight-decay or --weight-decay", "end_weight_decay"),
    Setting("--weight-decay-incr-style", "weight_decay_incr_style"),
)
