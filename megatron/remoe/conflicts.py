"""Which of Megatron's options mean nothing, or something wrong, under ReLU routing."""

import warnings
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass

from megatron.remoe.option_values import value_errors


@dataclass(frozen=True)
class Conflict:
    """One option that does not go with ReLU routing.

    Attributes:
        flag: As the user writes it.
        applies: Whether these arguments, with these flags given on the command line, run into it.
        reason: Why, and the mend.
    """

    flag: str
    applies: Callable[[Namespace, frozenset[str]], bool]
    reason: str


def _set(*names: str) -> Callable[[Namespace, frozenset[str]], bool]:
    """The option, by any of its spellings, has a value that is neither None nor false nor zero."""
    return lambda args, given: any(getattr(args, name, None) for name in names)


def _given(flag: str) -> Callable[[Namespace, frozenset[str]], bool]:
    """The flag stands on the command line."""
    return lambda args, given: flag in given


def _balances_by_topk(args: Namespace, given: frozenset[str]) -> bool:
    kinds = args.moe_router_load_balancing_type
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return "--moe-router-load-balancing-type" in given and kinds != ["none"]


def _has_aux_loss(args: Namespace, given: frozenset[str]) -> bool:
    coeffs = args.moe_aux_loss_coeff
    return any(coeffs) if isinstance(coeffs, list) else bool(coeffs)


def captures_moe_graph(args: Namespace, given: frozenset[str]) -> bool:
    """Whether CUDA graphs replay MoE layers or parts of them."""
    # The old spellings become --cuda-graph-impl and -modules only when Megatron validates.
    if args.cuda_graph_impl == "none" and not (args.enable_cuda_graph or args.external_cuda_graph):
        return False
    modules = args.cuda_graph_modules or args.cuda_graph_scope_deprecated or []
    names = {getattr(m, "name", str(m)) for m in modules}
    whole_layer = not names or args.cuda_graph_impl == "full_iteration"
    return whole_layer or any("moe" in n or n.startswith("full") for n in names)


def _uses_flex(backend: str) -> Callable[[Namespace, frozenset[str]], bool]:
    return lambda args, given: (
        args.moe_token_dispatcher_type == "flex" and args.moe_flex_dispatcher_backend == backend
    )


def _overflows_deepep(args: Namespace, given: frozenset[str]) -> bool:
    etp = args.expert_tensor_parallel_size or args.tensor_model_parallel_size
    experts = (args.num_experts or 0) * args.moe_granularity
    return _uses_flex("deepep")(args, given) and etp * experts > 32


def _flex_without_fp32(args: Namespace, given: frozenset[str]) -> bool:
    return args.moe_token_dispatcher_type == "flex" and args.moe_router_dtype != "fp32"


NO_CAPACITY = "capacity is computed from a fixed k; ReLU routing drops nothing: leave it out"
TOPK_ONLY = "acts inside TopK selection, which ReLU routing does not have: leave it out"
UNTESTED = "has not been made to work with ReLU routing: leave it out"

REFUSED = (
    Conflict(
        "--moe-router-load-balancing-type",
        _balances_by_topk,
        "the load-balanced L1 regulariser balances the experts: leave it out, or give none "
        "(and see --moe-relu-load-balancing)",
    ),
    Conflict(
        "--moe-aux-loss-coeff", _has_aux_loss, "the L1 regulariser takes its place: leave it out"
    ),
    Conflict(
        "--moe-router-topk-scaling-factor",
        _set("moe_router_topk_scaling_factor"),
        "ReLU gates are used as they are: leave it out",
    ),
    Conflict("--moe-router-fusion", _set("moe_router_fusion"), TOPK_ONLY),
    Conflict(
        "--moe-permute-fusion",
        _set("moe_permute_fusion"),
        "the fused kernels fail where no token of a rank is active: leave it out",
    ),
    Conflict(
        "--moe-flex-dispatcher-backend ncclep",
        _uses_flex("ncclep"),
        "it cuts each token to k experts: use hybridep, or --moe-token-dispatcher-type alltoall",
    ),
    Conflict(
        "--moe-flex-dispatcher-backend deepep",
        _overflows_deepep,
        "DeepEP carries at most 32 experts a token (experts x expert tensor parallel size): use "
        "hybridep, or --moe-token-dispatcher-type alltoall",
    ),
    Conflict(
        "--moe-token-dispatcher-type flex",
        _flex_without_fp32,
        "its kernels take fp32 gates only: add --moe-router-dtype fp32",
    ),
    Conflict("--moe-expert-capacity-factor", _set("moe_expert_capacity_factor"), NO_CAPACITY),
    Conflict(
        "--moe-pad-expert-input-to-capacity", _set("moe_pad_expert_input_to_capacity"), NO_CAPACITY
    ),
    Conflict(
        "--moe-expert-rank-capacity-factor", _set("moe_expert_rank_capacity_factor"), NO_CAPACITY
    ),
    Conflict("--moe-paged-stash", _set("moe_paged_stash"), NO_CAPACITY),
    Conflict("--moe-router-num-groups", _set("moe_router_num_groups"), TOPK_ONLY),
    Conflict("--moe-router-group-topk", _set("moe_router_group_topk"), TOPK_ONLY),
    Conflict(
        "--moe-router-enable-expert-bias",
        _set("moe_router_enable_expert_bias"),
        "it is another balancing method, made for TopK: leave it out",
    ),
    Conflict(
        "--moe-router-force-load-balancing",
        _set("moe_router_force_load_balancing"),
        "random logits stay half active, so lambda would grow for ever: leave it out",
    ),
    Conflict(
        "--moe-router-force-biased",
        lambda args, given: args.moe_router_force_biased is not None,
        "random logits stay half active, so lambda would grow for ever: leave it out",
    ),
    Conflict("--moe-enable-routing-replay", _set("moe_enable_routing_replay"), TOPK_ONLY),
    Conflict(
        "--moe-routing-trace-path",
        _set("moe_routing_trace_path"),
        "it records k experts a token and skips or misreads anything else: leave it out",
    ),
    Conflict(
        "--use-transformer-engine-op-fuser", _set("use_transformer_engine_op_fuser"), UNTESTED
    ),
    Conflict(
        "--moe-apply-probs-on-input",
        _set("moe_apply_probs_on_input"),
        "it moves the gate inside the expert's non-linearity: leave it out",
    ),
    Conflict(
        "--moe-router-padding-for-quantization",
        _set("moe_router_padding_for_quantization", "moe_router_padding_for_fp8"),
        "padding marks tokens as active that are not: leave it out",
    ),
    Conflict(
        "--cuda-graph-impl",
        captures_moe_graph,
        "the number of active experts is data: name --cuda-graph-modules attn (or mlp), no MoE ones",
    ),
    Conflict(
        "--moe-pad-experts-for-cuda-graph-inference",
        _set("moe_pad_experts_for_cuda_graph_inference"),
        NO_CAPACITY,
    ),
    Conflict("--use-torch-fsdp2", _set("use_torch_fsdp2"), UNTESTED),
    Conflict(
        "--moe-use-upcycling",
        _set("moe_use_upcycling"),
        "it scales for softmax top-k: leave it out",
    ),
    Conflict("--perform-rl-step", _set("perform_rl_step"), UNTESTED),
    Conflict(
        "--hybrid-layer-pattern", _set("hybrid_layer_pattern", "hybrid_override_pattern"), UNTESTED
    ),
    Conflict("--experimental-attention-variant", _set("experimental_attention_variant"), UNTESTED),
    Conflict("--multi-latent-attention", _set("multi_latent_attention"), UNTESTED),
    Conflict(
        "--heterogeneous-layers-config-path",
        _set("heterogeneous_layers_config_path", "heterogeneous_layers_config_encoded_json"),
        UNTESTED,
    ),
    Conflict("--spec", _set("spec"), "--moe-relu-routing brings its own layer spec: leave it out"),
    Conflict(
        "--transformer-impl inference_optimized",
        lambda args, given: args.transformer_impl == "inference_optimized",
        "it stores k experts a token: use transformer_engine or local",
    ),
    Conflict(
        "--mlp-chunks-for-training",
        lambda args, given: args.mlp_chunks_for_training > 1,
        "each chunk would add a whole L1 loss: leave it out",
    ),
)

IGNORED = (
    Conflict(
        "--moe-router-score-function",
        _given("--moe-router-score-function"),
        "has no effect: ReLU takes the place of the score function",
    ),
    Conflict(
        "--moe-router-pre-softmax",
        _given("--moe-router-pre-softmax"),
        "has no effect: there is no softmax",
    ),
    Conflict(
        "--moe-token-drop-policy",
        _given("--moe-token-drop-policy"),
        "has no effect: no token is dropped",
    ),
    Conflict(
        "--moe-router-bias-update-rate",
        _given("--moe-router-bias-update-rate"),
        "has no effect: there is no expert bias",
    ),
    Conflict(
        "--moe-router-quantile-balancing-ema",
        _given("--moe-router-quantile-balancing-ema"),
        "has no effect: the L1 regulariser balances the experts",
    ),
    Conflict(
        "--moe-upcycling-granularity",
        _given("--moe-upcycling-granularity"),
        "has no effect: no dense model is upcycled (see --moe-granularity)",
    ),
    Conflict(
        "--moe-z-loss-coeff",
        _set("moe_z_loss_coeff"),
        "pushes logits down and so shifts sparsity, against which the controller works",
    ),
    Conflict(
        "--use-megatron-fsdp",
        _set("use_megatron_fsdp"),
        "has not been tested with ReLU routing",
    ),
)


def check_conflicts(args: Namespace, given: frozenset[str]) -> None:
    """Refuse or warn of what does not go with ReLU routing.

    Args:
        args: Parsed, not yet validated by Megatron.
        given: Flags that stand on the command line.

    Raises:
        ValueError: One message that lists every conflict, each with its mend.
    """
    errors = value_errors(args)
    if args.moe_relu_routing:
        errors += [f"{c.flag}: {c.reason}" for c in REFUSED if c.applies(args, given)]
        for conflict in IGNORED:
            if conflict.applies(args, given):
                warnings.warn(f"{conflict.flag} {conflict.reason}", stacklevel=2)
    else:
        for flag in sorted(given):
            if flag.startswith("--moe-relu-"):
                warnings.warn(f"{flag} has no effect without --moe-relu-routing", stacklevel=2)
    if errors:
        raise ValueError("these options do not go together:\n  " + "\n  ".join(errors))
