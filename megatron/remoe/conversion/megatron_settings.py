"""Megatron's arguments <-> the architecture that they describe."""

from argparse import ArgumentParser, Namespace

import torch

from megatron.remoe.checkpoint.settings import has_experts, moe_layers, routes_by_relu
from megatron.remoe.conversion.architecture import Architecture, Controller, Experts

ROUTER_DTYPES = {"fp32": "float32", None: None}


def architecture_of(
    args: Namespace, vocab_size: int, padded_vocab_size: int, reached_target: bool | None
) -> Architecture:
    """What the stored arguments say; they must have passed `refused.check_megatron`.

    Args:
        args: Validated when they were stored: experts and k are those after `--moe-granularity`.
        vocab_size: Of the tokenizer.
        padded_vocab_size: Rows of the embedding.
        reached_target: Of lambda's warm-up; None without one.
    """
    groups = args.num_query_groups if args.group_query_attention else args.num_attention_heads
    return Architecture(
        num_layers=args.num_layers,
        hidden_size=args.hidden_size,
        ffn_width=args.ffn_hidden_size,
        num_heads=args.num_attention_heads,
        num_groups=groups,
        head_dim=args.kv_channels,
        vocab_size=vocab_size,
        padded_vocab_size=padded_vocab_size,
        max_positions=args.max_position_embeddings,
        norm_eps=args.layernorm_epsilon,
        rope_theta=float(args.rotary_base),
        init_std=args.init_method_std,
        attention_dropout=args.attention_dropout,
        tied=not args.untie_embeddings_and_output_weights,
        qkv_bias=bool(args.add_qkv_bias),
        qk_norm=bool(args.qk_layernorm),
        experts=_experts_of(args),
        controller=_controller_of(args, reached_target) if routes_by_relu(args) else None,
    )


def _experts_of(args: Namespace) -> Experts | None:
    if not has_experts(args):
        return None
    thresholds = getattr(args, "moe_relu_router_thresholds", None)
    return Experts(
        num_experts=args.num_experts,
        topk=args.moe_router_topk,
        width=args.moe_ffn_hidden_size or args.ffn_hidden_size,
        layers=tuple(moe_layers(args)),
        relu=routes_by_relu(args),
        renormalised=not args.moe_router_pre_softmax and not routes_by_relu(args),
        shared_width=args.moe_shared_expert_intermediate_size or 0,
        shared_gate=bool(getattr(args, "moe_shared_expert_gate", False)),
        router_dtype=ROUTER_DTYPES[args.moe_router_dtype],
        thresholds=tuple(thresholds) if thresholds and routes_by_relu(args) else None,
    )


def _controller_of(args: Namespace, reached_target: bool | None) -> Controller:
    return Controller(
        reg_coeff_init=args.moe_relu_l1_reg_coeff_init,
        reg_coeff_multiplier=args.moe_relu_l1_reg_coeff_multiplier,
        load_balancing=getattr(args, "moe_relu_load_balancing", "micro-batch") != "none",
        reached_target=reached_target,
    )


def flags_of(model: Architecture) -> list[str]:
    """The flags of `pretrain_gpt.py` that build a model."""
    words: list[object] = [
        *("--num-layers", model.num_layers, "--hidden-size", model.hidden_size),
        *("--ffn-hidden-size", model.ffn_width, "--num-attention-heads", model.num_heads),
        *("--group-query-attention", "--num-query-groups", model.num_groups),
        *("--kv-channels", model.head_dim, "--max-position-embeddings", model.max_positions),
        *("--seq-length", model.max_positions, "--norm-epsilon", model.norm_eps),
        *("--rotary-base", _number(model.rope_theta), "--init-method-std", model.init_std),
        *("--attention-dropout", model.attention_dropout, "--hidden-dropout", 0.0),
        *("--swiglu", "--normalization", "RMSNorm", "--position-embedding-type", "rope"),
        "--disable-bias-linear",
    ]
    switches = {
        "--untie-embeddings-and-output-weights": not model.tied,
        "--add-qkv-bias": model.qkv_bias,
        "--qk-layernorm": model.qk_norm,
    }
    words += [flag for flag, is_on in switches.items() if is_on]
    if model.experts:
        words += _flags_of_experts(model.experts)
    if model.controller:
        words += _flags_of_controller(model.controller)
    return [str(word) for word in words]


def _flags_of_experts(experts: Experts) -> list[object]:
    words: list[object] = [
        *("--num-experts", experts.num_experts, "--moe-router-topk", experts.topk),
        *("--moe-ffn-hidden-size", experts.width),
    ]
    if not all(experts.layers):
        words += ["--moe-layer-freq", str(list(experts.layers)).replace(" ", "")]
    if experts.shared_width:
        words += ["--moe-shared-expert-intermediate-size", experts.shared_width]
    if experts.shared_gate:
        words.append("--moe-shared-expert-gate")
    if experts.router_dtype:
        words += ["--moe-router-dtype", "fp32"]
    if not experts.relu and not experts.renormalised:
        words.append("--moe-router-pre-softmax")
    return words


def _flags_of_controller(controller: Controller) -> list[object]:
    balancing = "micro-batch" if controller.load_balancing else "none"
    return [
        "--moe-relu-routing",
        *("--moe-relu-l1-reg-coeff-init", repr(controller.reg_coeff_init)),
        *("--moe-relu-l1-reg-coeff-multiplier", repr(controller.reg_coeff_multiplier)),
        *("--moe-relu-load-balancing", balancing),
    ]


def stored_args(
    model: Architecture, dtype: torch.dtype, divisible_by: int, transformer_impl: str, extra: dict
) -> Namespace:
    """The arguments that a run would store that had trained the model in one process.

    Args:
        model: The model.
        dtype: Of its weights.
        divisible_by: Of `--make-vocab-size-divisible-by`.
        transformer_impl: `local` or `transformer_engine`.
        extra: Further arguments that the model's own run had, by name.
    """
    from megatron.training.arguments import add_megatron_arguments

    from megatron.remoe.arguments import add_remoe_args

    parser = add_remoe_args(add_megatron_arguments(ArgumentParser(allow_abbrev=False)))
    args = parser.parse_args(flags_of(model))
    derived = _derived(model, dtype)
    derived |= {
        "make_vocab_size_divisible_by": divisible_by,
        "transformer_impl": transformer_impl,
    }
    if model.routing == "ReMoE":  # what `set_for_relu_routing` sets
        derived |= {
            "moe_router_load_balancing_type": "none",
            "moe_aux_loss_coeff": 0.0,
            "moe_router_pre_softmax": True,
            "moe_relu_router_thresholds": model.experts.thresholds and [*model.experts.thresholds],
        }
    for name, value in {**extra, **derived}.items():
        setattr(args, name, value)
    return args


def _derived(model: Architecture, dtype: torch.dtype) -> dict:
    """What Megatron's validation and training write into the arguments."""
    one_process = ("world_size", "data_parallel_size", "context_parallel_size")
    return {
        **dict.fromkeys(one_process, 1),
        "rank": 0,
        "iteration": 0,
        "curr_iteration": 0,
        "consumed_train_samples": 0,
        "consumed_valid_samples": 0,
        "skipped_train_samples": 0,
        "params_dtype": dtype,
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "padded_vocab_size": model.padded_vocab_size,
        "encoder_num_layers": model.num_layers,
        "encoder_seq_length": model.max_positions,
        "add_position_embedding": True,
        "layernorm_zero_centered_gamma": False,
        "ckpt_format": "torch_dist",
        "use_dist_ckpt": True,
        "no_save_optim": True,
        "no_save_rng": True,
    }


def _number(value: float) -> object:
    """As the flag takes it: `--rotary-base` is a whole number."""
    return int(value) if value == int(value) else value
