"""Megatron's model configuration with ReLU routing in it."""

from argparse import Namespace
from functools import partial

from megatron.training.argument_utils import core_transformer_config_from_args
from megatron.training.argument_utils import gpt_config_from_args as megatron_gpt_config_from_args
from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

from megatron.remoe.baselines.config import BaselineConfig
from megatron.remoe.baselines.install import install_baseline
from megatron.remoe.baselines.routers import ROUTERS
from megatron.remoe.config import ReMoETransformerConfig
from megatron.remoe.layer_specs import (
    baseline_layer_spec,
    remoe_layer_spec,
    torch_native_layer_spec,
)
from megatron.remoe.memory.report import report_memory
from megatron.remoe.memory.shape import starts_dense
from megatron.remoe.recording.recorder import install_recording
from megatron.remoe.step_hook import install_step_hook
from megatron.remoe.throughput.install import install_throughput_log
from megatron.remoe.torch_native.experts import GEMM_NAMES, choose_gemm


def gpt_config_from_args(args: Namespace) -> GPTModelConfig:
    """Megatron's `gpt_config_from_args`, with the routing that is asked for.

    Args:
        args: What `megatron.remoe.arguments.parse_and_validate_args` gave.

    Returns:
        A `GPTModelConfig` whose layer spec routes by ReLU and whose post-wrap hook installs the
        controller, or has a router of `megatron.remoe.baselines`; Megatron's own without either flag.
        Where `fit_to_machine` chose torch-native layers, its spec has them in any case.
        `--log-throughput` and `--record-routing` add hooks to each, too.
    """
    config = routed_config(args)
    if starts_dense(args):
        report_memory(args, config.transformer)
    if args.log_throughput:
        config.post_wrap_hooks.append(install_throughput_log)
    if args.record_routing is not None:
        config.post_wrap_hooks.append(install_recording)  # last: it wraps the step hook
    _say_which_experts(args, config)
    return config


def routed_config(args: Namespace) -> GPTModelConfig:
    """`gpt_config_from_args` without what it prints, logs throughput, or records.

    Args:
        args: Validated; experts and k are those after `--moe-granularity`.
    """
    base = torch_native_layer_spec if args.torch_native_layers else default_layer_spec
    if args.moe_routing in ROUTERS:
        transformer = core_transformer_config_from_args(args, BaselineConfig)
        config = megatron_gpt_config_from_args(args, config=transformer)
        config.transformer_layer_spec = partial(baseline_layer_spec, base=base)
        config.post_wrap_hooks.append(install_baseline)
        return config
    if not args.moe_relu_routing:
        config = megatron_gpt_config_from_args(args)
        if args.torch_native_layers and args.spec is None:
            config.transformer_layer_spec = base
        return config
    transformer = core_transformer_config_from_args(args, ReMoETransformerConfig)
    config = megatron_gpt_config_from_args(args, config=transformer)
    config.transformer_layer_spec = partial(remoe_layer_spec, base=base)
    config.post_wrap_hooks.append(install_step_hook)
    return config


def _say_which_experts(args: Namespace, config: GPTModelConfig) -> None:
    transformer = config.transformer
    is_ours = args.moe_relu_routing or args.moe_routing in ROUTERS or args.spec is None
    if args.rank != 0 or not (args.moe_grouped_gemm and transformer.num_moe_experts and is_ours):
        return
    by = "TransformerEngine"
    if args.torch_native_layers:
        width = transformer.moe_ffn_hidden_size // transformer.expert_tensor_parallel_size
        by = GEMM_NAMES[choose_gemm(transformer, width)]
    print(f"> ReMoE: --moe-grouped-gemm: experts by {by}", flush=True)
